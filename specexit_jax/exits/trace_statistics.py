"""Running statistics of a trace's signals and readings: what an exit score is computed from (docs/score.md).

They are of the thinking so far: of the whole trace, of the current paragraph and of the first one. Each has O(1) state a row and
is updated token by token, so that the values do not depend on how verify steps divide the text.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from specexit_jax.exits.readings import WRITTEN
from specexit_jax.exits.signals import deactivate

SURPRISED = 1.0  # nats from which on a token counts as surprising
_R = len(WRITTEN)
_SUMS = (_R, 2 * _R, 2 * _R + 1, 2 * _R + 2, 2 * _R + 3)  # where the parts of `Statistics.sums` begin


@flax.struct.dataclass
class Statistics:
    """The state after some tokens. Leaves [B, 3] have a column for each reading in WRITTEN, those [B, P] one for each signal
    and one for the reading `closing`.

    A token adds to `sums` and raises `largest` and `second`; only a boundary changes the others.

    sums: of the readings in the trace, then in the current paragraph; numbers of tokens in both, of surprising tokens in both.
    largest: the largest readings of the trace, then of the paragraph. second: the second largest of the trace. paragraphs: the
    finished ones. first: mean and largest value of the first paragraph. worst: the largest mean of a finished paragraph. highest,
    lowest, previous, total: of the raw signals and of closing at the boundaries so far.
    """

    sums: Float[Array, "B 10"]
    largest: Float[Array, "B 6"]
    second: Float[Array, "B 3"]
    paragraphs: Float[Array, "B 1"]
    first: Float[Array, "B 6"]
    worst: Float[Array, "B 3"]
    highest: Float[Array, "B P"]
    lowest: Float[Array, "B P"]
    previous: Float[Array, "B P"]
    total: Float[Array, "B P"]


def no_statistics(batch: int, signals: int) -> Statistics:
    """The state before the first token of thinking."""
    widths = (2 * _R + 4, 2 * _R, _R, 1, 2 * _R, _R, *[signals + 1] * 4)
    return Statistics(*(jnp.zeros((batch, width), jnp.float32) for width in widths))


def with_token(
    signals: int, state: Statistics, values: Float[Array, "B C"], counted: Bool[Array, " B"] | None = None
) -> Statistics:
    """The state after one more token, which may end its paragraph (`with_boundary`). signals: the number of the draft's.

    counted: the rows that have this token; None: all.
    """
    seen = values[:, signals : signals + _R]
    one, surprised = jnp.ones_like(seen[:, :1]), (seen[:, :1] > SURPRISED).astype(jnp.float32)
    added, raised = (
        jnp.concatenate([seen, seen, one, one, surprised, surprised], axis=1),
        jnp.concatenate([seen] * 2, axis=1),
    )
    keep = (lambda after, before: after) if counted is None else (lambda *each: jnp.where(counted[:, None], *each))
    return state.replace(
        sums=keep(state.sums + added, state.sums),
        largest=keep(jnp.maximum(state.largest, raised), state.largest),
        second=keep(jnp.maximum(state.second, jnp.minimum(state.largest[:, :_R], seen)), state.second),
    )


def with_boundary(
    names: tuple[str, ...], state: Statistics, values: Float[Array, "B C"]
) -> tuple[Statistics, Float[Array, "B F"]]:
    """(the state after the last token has ended its paragraph, the statistics that include it: those of `statistic_names`).

    names: of the S signals. state: after `with_token`. values: the token's signals, activated, then its readings. Where the token
    is no boundary the state is of no use.
    """
    signals, seen, ahead = jnp.split(values, (len(names), len(names) + _R), axis=1)
    signals = jnp.concatenate([deactivate(signals, names), ahead[:, :1]], axis=1)  # those whose past is kept
    sums, paragraph_sums, tokens, length, surprising, surprising_here = jnp.split(state.sums, _SUMS, axis=1)
    largest, paragraph_largest = jnp.split(state.largest, 2, axis=1)
    mean = paragraph_sums / jnp.maximum(length, 1)
    past = state.paragraphs > 0
    first = jnp.where(past, state.first, jnp.concatenate([mean, paragraph_largest], axis=1))
    worst = jnp.maximum(state.worst, mean)
    highest, lowest = (jnp.where(past, known, signals) for known in (state.highest, state.lowest))
    previous = jnp.where(past, state.previous, signals)
    usual = jnp.where(past, state.total / jnp.maximum(state.paragraphs, 1), signals)
    told = [sums / jnp.maximum(tokens, 1), largest, state.second, mean, paragraph_largest, first, worst, seen]
    told += [jnp.log1p(tokens), jnp.log1p(length), jnp.log1p(state.paragraphs)]
    told += [surprising / jnp.maximum(tokens, 1), surprising_here / jnp.maximum(length, 1)]
    told += [ahead[:, 1:], signals, highest, lowest, previous, usual]
    none = jnp.zeros_like(length)
    ended = Statistics(
        sums=jnp.concatenate([sums, jnp.zeros_like(paragraph_sums), tokens, none, surprising, none], axis=1),
        largest=jnp.concatenate([largest, jnp.zeros_like(largest)], axis=1),
        second=state.second,
        paragraphs=state.paragraphs + 1,
        first=first,
        worst=worst,
        highest=jnp.maximum(highest, signals),
        lowest=jnp.minimum(lowest, signals),
        previous=signals,
        total=state.total + signals,
    )
    return ended, jnp.concatenate(told, axis=1)


def statistics_step(
    names: tuple[str, ...], state: Statistics, values: Float[Array, "B C"], boundary: Bool[Array, " B"]
) -> tuple[Statistics, Float[Array, "B F"]]:
    """(the state after one more token, the statistics that include it). boundary: whether the token ends a paragraph; it still
    belongs to it. The other arguments are those of `with_boundary`.
    """
    state = with_token(len(names), state, values)
    ended, told = with_boundary(names, state, values)
    return where_rows(boundary, ended, state), told


def where_rows(rows: Bool[Array, " B"], those: Any, others: Any) -> Any:
    """The pytree `those` in these rows, and `others` in the others; leaves [B, ...]."""

    def choose(one: Array, other: Array) -> Array:
        return jnp.where(rows.reshape(rows.shape + (1,) * (one.ndim - 1)), one, other)

    return jax.tree.map(choose, those, others)


def _is_of(reading: str, name: str) -> bool:
    return name.endswith(f" {reading}") or (reading == "surprisal" and name.endswith("surprising"))


def statistic_names(signals: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the columns of `statistics_step`, for a draft with these signals."""
    of_text = ("mean", "largest", "second", "paragraph mean", "paragraph largest", "first mean", "first largest")
    found = [f"{part} {reading}" for part in (*of_text, "worst mean", "last") for reading in WRITTEN]
    found += ["tokens", "paragraph tokens", "paragraphs", "surprising", "paragraph surprising"]
    kept = (*signals, "closing")
    found += [
        "next_entropy",
        *(f"{part} {name}" for part in ("raw", "highest", "lowest", "previous", "usual") for name in kept),
    ]
    return tuple(found)


_COUNTS = ("tokens", "paragraph tokens", "paragraphs")
_PAST = ("highest", "lowest", "previous", "usual")
# Parts that a score can do without, by name. A statistic may belong to several.
PARTS: dict[str, Callable[[str], bool]] = {
    **{reading: functools.partial(_is_of, reading) for reading in (*WRITTEN, "closing")},
    "next_entropy": lambda name: name == "next_entropy",
    "readings": lambda name: any(PARTS[part](name) for part in (*WRITTEN, "closing", "next_entropy")),
    "signals": lambda name: name.startswith(("raw", *_PAST)) and not PARTS["closing"](name),
    "past": lambda name: name.startswith(_PAST),
    "paragraphs": lambda name: name.startswith(("paragraph", "first", "worst")),
    "counts": lambda name: name in _COUNTS,
}


def statistics_without(signals: tuple[str, ...], parts: Sequence[str]) -> tuple[str, ...]:
    """The names of the statistics that belong to none of these parts. Raises ValueError on a part that is none of PARTS, and
    where nothing is left."""
    if unknown := [part for part in parts if part not in PARTS]:
        raise ValueError(f"an exit score has no part {unknown[0]!r}: choose among {', '.join(PARTS)}")
    left = tuple(name for name in statistic_names(signals) if not any(PARTS[part](name) for part in parts))
    if not left:
        raise ValueError(f"without {', '.join(parts)} an exit score has nothing to read")
    return left
