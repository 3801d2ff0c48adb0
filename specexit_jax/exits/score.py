"""The exit score: one number from the draft's signals, the target's readings and their statistics (docs/score.md).

A small network estimates the probability that an answer forced here agrees with that of full thinking. It sees what the signals
cannot: how sure the target was of the tokens that it wrote, and how the signals have changed from boundary to boundary. A policy
compares it like a signal.
"""

import base64
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from specexit_jax.exits.readings import READINGS
from specexit_jax.exits.recurrence import Boundary, Count, Signals, state_after, unfold
from specexit_jax.exits.trace_statistics import Statistics, no_statistics, statistic_names, statistics_step

SCORE = "score"
MOST = 12.0  # log-odds


@flax.struct.dataclass
class ScoreNetwork:
    """sigmoid(tanh(x W + b) w + c), where x are the statistics divided by their spread about their centre.

    centre, spread: of each of F statistics. weights, bias: of H hidden units. out: their weights, then c.
    """

    centre: Float[Array, " F"]
    spread: Float[Array, " F"]
    weights: Float[Array, "F H"]
    bias: Float[Array, " H"]
    out: Float[Array, " H1"]

    def logits(self, statistics: Float[Array, "N F"]) -> Float[Array, " N"]:
        """The log-odds of the score. Statistics further than 6 spreads from the centre count as that far."""
        scaled = jnp.clip((statistics - self.centre[None]) / self.spread[None], -6.0, 6.0)
        # In full float32 on every device: a threshold is compared with scores that another device may have computed.
        product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
        hidden = jnp.tanh(product(scaled, self.weights) + self.bias[None])
        return product(hidden, self.out[:-1]) + self.out[-1]

    def __call__(self, statistics: Float[Array, "B T F"]) -> Float[Array, "B T"]:
        """The score, in (0, 1). Its log-odds are at most MOST, where float32 still tells scores apart."""
        batch, length, width = statistics.shape
        logits = self.logits(statistics.reshape(batch * length, width))
        return jax.nn.sigmoid(jnp.clip(logits, -MOST, MOST)).reshape(batch, length)


@flax.struct.dataclass
class Score:
    """Computes the exit score as a smoother computes smoothed signals (`smoothers`).

    draft_signals: the draft's. reads: the columns that it is given, the draft's signals and the readings. signals: the columns
    that it gives, the draft's signals as they are and the score.
    """

    network: ScoreNetwork
    draft_signals: tuple[str, ...] = flax.struct.field(pytree_node=False)

    @property
    def reads(self) -> tuple[str, ...]:
        return columns_read(self.draft_signals)

    @property
    def signals(self) -> tuple[str, ...]:
        return (*self.draft_signals, SCORE)

    def init(self, batch: int) -> Statistics:
        return no_statistics(batch, len(self.draft_signals))

    def _step(self, state: Statistics, values: Array, boundary: Array):
        return statistics_step(self.draft_signals, state, values, boundary)

    def scan(self, state: Statistics, signals: Signals, boundary: Boundary) -> Signals:
        score = self.network(unfold(self._step, state, signals, boundary)[1])
        return jnp.concatenate([signals[..., : len(self.draft_signals)], score[..., None]], axis=-1)

    def commit(self, state: Statistics, signals: Signals, boundary: Boundary, count: Count) -> Statistics:
        return state_after(unfold(self._step, state, signals, boundary)[0], count)


def columns_read(draft_signals: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the columns that statistics are computed from: the draft's signals, then the readings."""
    return (*draft_signals, *READINGS)


def recorded(draft_signals: Sequence[str], policy_signals: Sequence[str]) -> tuple[str, ...]:
    """The names of the signals that decoding records: the draft's, and the exit score where the policy compares one."""
    return (*draft_signals, *(name for name in policy_signals if name == SCORE))


def statistics_of(draft_signals: tuple[str, ...], columns: Signals, boundary: Boundary) -> Float[Array, "B T F"]:
    """The statistics after every token of whole thinking texts. columns: as `columns_read`."""
    state = no_statistics(columns.shape[0], len(draft_signals))
    return unfold(lambda *each: statistics_step(draft_signals, *each), state, columns, boundary)[1]


def to_json(network: ScoreNetwork, draft_signals: tuple[str, ...]) -> dict[str, Any]:
    """The network as policy.json holds it: the names of its statistics, and float32 arrays in base 64."""
    arrays = {name: np.asarray(getattr(network, name), "<f4") for name in _arrays()}
    told = {name: base64.b64encode(values.tobytes()).decode() for name, values in arrays.items()}
    return {"statistics": list(statistic_names(draft_signals)), "hidden": len(network.bias), **told}


def from_json(content: Any, draft_signals: tuple[str, ...]) -> ScoreNetwork:
    """The inverse of `to_json`. Raises ValueError where it holds something else or statistics of other signals."""
    expected = {"statistics", "hidden", *_arrays()}
    if not isinstance(content, Mapping) or set(content) != expected:
        raise ValueError(f"a score network holds exactly {', '.join(sorted(expected))}")
    known, hidden = statistic_names(draft_signals), content["hidden"]
    if content["statistics"] != list(known):
        raise ValueError("its score network reads other statistics than this version computes from these signals")
    if not isinstance(hidden, int) or isinstance(hidden, bool) or hidden < 1:
        raise ValueError(f"the hidden units of its score network are {hidden!r}, expected a number")
    size = len(known)
    shapes = {"centre": (size,), "spread": (size,), "weights": (size, hidden), "bias": (hidden,), "out": (hidden + 1,)}
    arrays = {}
    for name, shape in shapes.items():
        try:
            values = np.frombuffer(base64.b64decode(content[name], validate=True), "<f4")
            arrays[name] = values.reshape(shape).astype(np.float32)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"the {name} of its score network are not {np.prod(shape)} float32 numbers: {error}"
            ) from None
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"the {name} of its score network are not all finite")
    return ScoreNetwork(**{name: jnp.asarray(values) for name, values in arrays.items()})


def _arrays() -> list[str]:
    return [field.name for field in dataclasses.fields(ScoreNetwork)]
