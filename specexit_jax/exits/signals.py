"""The table of signals: meaning, scale, label and direction of each (docs/method.md §1). All other code reads this table.

Arrays of signals [..., S] have one column a signal, in the order of the table. A tuple of names beside the array says which
signals these are: those of a draft (`DraftConfig.signal_names`) or those that a policy reads (`Policy.signals`).
"""

import dataclasses
from collections.abc import Callable, Sequence
from itertools import groupby

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.exits.scales import Scale, Share, Tokens

__all__ = ["PAPER", "SIGNALS", "Labelled", "Signal", "activate", "deactivate", "named", "passed"]


@dataclasses.dataclass(frozen=True)
class Labelled:
    """What labels are computed from: the n thinking tokens of one annotated trace.

    agreement: at the boundary that a token belongs to, whether (or how likely) the forced answer agrees with the final one.
    seen: the number of thinking tokens up to that boundary. enough: T*, the number of thinking tokens up to the sufficient
    boundary; None where the trace never closed its thinking, and then `agreement` is meaningless.
    """

    agreement: Float[np.ndarray, " n"]
    seen: Int[np.ndarray, " n"] | Float[np.ndarray, " n"]
    enough: int | None


@dataclasses.dataclass(frozen=True)
class Signal:
    """One row of the table.

    meaning: a phrase for people. scale: activation, loss and range. at_least: True where a high value favours an exit, so that a
    threshold is a lower limit; False where a low value does. label: a function to labels float [n], or to None for a trace that
    has none. colour: in figures. event: the name of the binary event whose probability the signal is (its fit is then scored by
    AUC and Brier); None: its fit is scored by the mean absolute error. source: "draft" for a signal head of the draft, "score" for
    the exit score (`score.Score`).
    """

    meaning: str
    scale: Scale
    at_least: bool
    label: Callable[[Labelled], np.ndarray | None]
    colour: str
    event: str | None = None
    source: str = "draft"

    @property
    def open_limit(self) -> float:
        """A threshold that every value passes."""
        return -1e6 if self.at_least else 1e6

    @property
    def never_limit(self) -> float:
        """A threshold that no value passes; finite, so that JSON can hold it."""
        return self.scale.highest + 1.0 if self.at_least else self.scale.lowest - 1.0

    def limit_text(self, limit: float) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.scale.text(limit)}"

    def can_refuse(self, limit: float) -> bool:
        """Whether some value does not pass this threshold."""
        return limit > self.scale.lowest if self.at_least else limit < self.scale.highest


def _confidence(trace: Labelled) -> np.ndarray | None:
    return None if trace.enough is None else trace.agreement


def _progress(trace: Labelled) -> np.ndarray:
    """seen / T*, at most 1. In a trace that never closes it is 0, the limit as T* grows."""
    if trace.enough is None:
        return np.zeros(len(trace.seen))
    return np.minimum(trace.seen / max(trace.enough, 1), 1.0)


def _remain(trace: Labelled) -> np.ndarray | None:
    return None if trace.enough is None else np.maximum(trace.enough - trace.seen, 0.0)


SIGNALS: dict[str, Signal] = {
    "confidence": Signal(
        meaning="probability that an answer forced here agrees with that of full thinking",
        scale=Share(),
        at_least=True,
        label=_confidence,
        colour="#dc2626",
        event="agree",
    ),
    "progress": Signal(
        meaning="share of the thinking up to T* that is done",
        scale=Share(),
        at_least=True,
        label=_progress,
        colour="#2563eb",
    ),
    "remain": Signal(
        meaning="tokens of thinking left until T*",
        scale=Tokens(),
        at_least=False,
        label=_remain,
        colour="#0f766e",
    ),
    "score": Signal(
        meaning="the same probability, by a network that also sees the target's readings and the past of the signals",
        scale=Share(),
        at_least=True,
        label=lambda trace: None,
        colour="#7c3aed",
        event="agree",
        source="score",
    ),
}
PAPER = tuple(SIGNALS)[:3]  # the signals of the paper; those of a draft or file that does not name its signals


def draft_signals() -> tuple[str, ...]:
    """The signals that a new draft is trained with."""
    return tuple(name for name, signal in SIGNALS.items() if signal.source == "draft")


def activate(raw: Float[Array, "*batch S"], names: Sequence[str] = PAPER) -> Float[Array, "*batch S"]:
    """Raw head outputs to values on the signals' scales, always in float32."""
    raw = raw.astype(jnp.float32)
    return jnp.concatenate([scale.activate(raw[..., own]) for scale, own in by_scale(names)], axis=-1)


def deactivate(values: Float[Array, "*batch S"], names: Sequence[str] = PAPER) -> Float[Array, "*batch S"]:
    """The inverse of `activate`. Shares are clipped to [1e-6, 1 - 1e-6], tokens to at least 1e-6."""
    return jnp.concatenate([scale.deactivate(values[..., own]) for scale, own in by_scale(names)], axis=-1)


def by_scale(names: Sequence[str]) -> list[tuple[Scale, slice]]:
    """Slices of adjacent columns with the same scale, so that the columns of a slice are computed at once."""
    parts, start = [], 0
    for scale, run in groupby(names, key=lambda name: SIGNALS[name].scale):
        end = start + len(list(run))
        parts.append((scale, slice(start, end)))
        start = end
    return parts


def passed(
    values: Float[Array, "*batch S"], limits: Float[Array, "*#batch S"], names: Sequence[str], strict: bool = False
) -> list[Bool[Array, "*batch"]]:
    """For each signal, whether its value passes the threshold. limits: one for all, or such as broadcast to the values.
    strict: a value equal to the threshold does not pass."""
    found = []
    for column, name in enumerate(names):
        value, limit = values[..., column], limits[..., column]
        if SIGNALS[name].at_least:
            found.append(value > limit if strict else value >= limit)
        else:
            found.append(value < limit if strict else value <= limit)
    return found


def columns_of(values: Array, held: Sequence[str], wanted: Sequence[str]) -> Array:
    """The columns [..., W] of the wanted signals. held: the names of the columns of `values` [..., S]."""
    if tuple(held) == tuple(wanted):
        return values
    return values[..., np.asarray([tuple(held).index(name) for name in wanted], np.int32)]


def open_limits(names: Sequence[str]) -> tuple[float, ...]:
    """Thresholds that every signal passes."""
    return tuple(SIGNALS[name].open_limit for name in names)


def never_limits(names: Sequence[str]) -> tuple[float, ...]:
    """Thresholds that no signal passes."""
    return tuple(SIGNALS[name].never_limit for name in names)


def named(values: Sequence[float] | None, names: Sequence[str]) -> dict[str, float]:
    """Values by the signals' names; {} where there are none."""
    return {} if values is None else dict(zip(names, map(float, values), strict=True))


def agreement_column(names: Sequence[str]) -> int:
    """The column of the signal whose event is "agree"; of the exit score, where there is one."""
    return max(column for column, name in enumerate(names) if SIGNALS[name].event == "agree")


def of_draft(names: Sequence[str]) -> tuple[str, ...]:
    """Those of the signals that a draft has heads for."""
    return tuple(name for name in names if SIGNALS[name].source == "draft")


def exit_signals(names: Sequence[str], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The signals among `names` to exit by: the exit score alone, where there is one, else those wanted (None: all)."""
    scores = tuple(name for name in names if SIGNALS[name].source == "score")
    return scores or tuple(wanted or names)
