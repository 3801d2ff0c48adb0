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
from specexit_jax.exits.recurrence import UNROLLED, Boundary, Count, Signals, state_after, unfold
from specexit_jax.exits.trace_statistics import (
    Statistics,
    no_statistics,
    statistic_names,
    statistics_step,
    where_rows,
    with_boundary,
    with_token,
)

SCORE = "score"
MOST = 12.0  # log-odds


@flax.struct.dataclass
class ScoreNetwork:
    """sigmoid(tanh(x W + b) w + c), where x are the statistics divided by their spread about their centre.

    centre, spread: of each of F statistics. weights, bias: of H hidden units. out: their weights, then c. statistics: the names of
    the F that it reads, in the order of `statistic_names`; None: all of them.
    """

    centre: Float[Array, " F"]
    spread: Float[Array, " F"]
    weights: Float[Array, "F H"]
    bias: Float[Array, " H"]
    out: Float[Array, " H1"]
    statistics: tuple[str, ...] | None = flax.struct.field(pytree_node=False, default=None)

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
class ScoreState:
    """statistics: those of the thinking so far. standing: the score at the last boundary; 0 before the first."""

    statistics: Statistics
    standing: Float[Array, " B"]


@flax.struct.dataclass
class Score:
    """Computes the exit score as a smoother computes smoothed signals (`smoothers`).

    The score of a boundary stands until the next one. draft_signals: the draft's. reads: the columns that it is given, the
    draft's signals and the readings. signals: the columns that it gives, the draft's signals as they are and the score.
    """

    network: ScoreNetwork
    draft_signals: tuple[str, ...] = flax.struct.field(pytree_node=False)

    @property
    def reads(self) -> tuple[str, ...]:
        return columns_read(self.draft_signals)

    @property
    def signals(self) -> tuple[str, ...]:
        return (*self.draft_signals, SCORE)

    def init(self, batch: int) -> ScoreState:
        return ScoreState(no_statistics(batch, len(self.draft_signals)), jnp.zeros((batch,), jnp.float32))

    def scan(self, state: ScoreState, signals: Signals, boundary: Boundary) -> Signals:
        return self.scan_and_commit(
            state, signals, boundary, jnp.full(boundary.shape[:1], boundary.shape[1], jnp.int32)
        )[0]

    def commit(self, state: ScoreState, signals: Signals, boundary: Boundary, count: Count) -> ScoreState:
        return self._after(state, signals, boundary, count)[0]

    def scan_and_commit(
        self, state: ScoreState, signals: Signals, boundary: Boundary, count: Count
    ) -> tuple[Signals, ScoreState]:
        after, score = self._after(state, signals, boundary, count)
        return jnp.concatenate([signals[..., : len(self.draft_signals)], score[..., None]], axis=-1), after

    def _after(
        self, state: ScoreState, signals: Signals, boundary: Boundary, count: Count
    ) -> tuple[ScoreState, Float[Array, "B T"]]:
        """(the state after the first `count` columns, the score that stands after each of these columns).

        Most verify steps hold no boundary, and most others one. So tokens are counted, and the network runs in a loop over
        boundaries. Whole texts are read token by token (`_along`).
        """
        length = boundary.shape[1]
        if length > UNROLLED:
            return self._along(state, signals, boundary, count)
        columns = jnp.arange(length, dtype=jnp.int32)[None, :]
        kept = columns < count[:, None]
        ends = boundary & kept

        def goes_on(carried):
            return jnp.any(ends & (columns >= carried[1]))

        def to_the_next(carried):
            """Goes on to the next boundary, in rows that have another."""
            state, done, score = carried
            place = jnp.min(jnp.where(ends & (columns >= done), columns, length), axis=1, keepdims=True)
            there = place[:, 0] < length
            statistics = self._counted(state.statistics, signals, kept & (columns >= done) & (columns <= place))
            values = jnp.take_along_axis(signals, jnp.minimum(place, length - 1)[:, :, None], axis=1)[:, 0]
            ended, told = with_boundary(self.draft_signals, statistics, values)
            found = jnp.where(there, self._score(told[:, None])[:, 0], state.standing)
            state = ScoreState(where_rows(there, ended, state.statistics), found)
            score = jnp.where(there[:, None] & (columns >= place), found[:, None], score)
            return state, jnp.where(there[:, None], place + 1, done), score

        standing = jnp.broadcast_to(state.standing[:, None], boundary.shape)
        begun = state, jnp.zeros((boundary.shape[0], 1), jnp.int32), standing
        state, done, score = jax.lax.while_loop(goes_on, to_the_next, begun)
        statistics = self._counted(state.statistics, signals, kept & (columns >= done))
        return state.replace(statistics=statistics), score

    def _along(self, state: ScoreState, signals: Signals, boundary: Boundary, count: Count):
        """`_after` of many columns, by a scan over them."""
        step = functools.partial(statistics_step, self.draft_signals)
        states, told = unfold(step, state.statistics, signals, boundary)
        columns = jnp.arange(boundary.shape[1], dtype=jnp.int32)[None, :]
        last = jax.lax.cummax(jnp.where(boundary, columns, -1), axis=1)
        there = jnp.take_along_axis(self._score(told), jnp.maximum(last, 0), axis=1)
        score = jnp.where(last < 0, state.standing[:, None], there)
        stood = jnp.concatenate([state.standing[:, None], score], axis=1)
        return ScoreState(*state_after((states, stood), count)), score

    def _counted(self, statistics: Statistics, signals: Signals, tokens: Boundary) -> Statistics:
        """The statistics with these tokens, none of which ends its paragraph yet."""
        for token in range(tokens.shape[1]):
            statistics = with_token(len(self.draft_signals), statistics, signals[:, token], tokens[:, token])
        return statistics

    def _score(self, statistics: Float[Array, "B T F"]) -> Float[Array, "B T"]:
        """The network's, of those of the statistics that it reads."""
        known = statistic_names(self.draft_signals)
        if self.network.statistics not in (None, known):
            statistics = statistics[..., np.asarray([known.index(name) for name in self.network.statistics])]
        return self.network(statistics)


def columns_read(draft_signals: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the columns that statistics are computed from: the draft's signals, then the readings."""
    return (*draft_signals, *READINGS)


def recorded(draft_signals: Sequence[str], policy_signals: Sequence[str]) -> tuple[str, ...]:
    """The names of the signals that decoding records: the draft's, and the exit score where the policy compares one."""
    return (*draft_signals, *(name for name in policy_signals if name == SCORE))


def statistics_of(draft_signals: tuple[str, ...], columns: Signals, boundary: Boundary) -> Float[Array, "B T F"]:
    """The statistics after every token of whole thinking texts. columns: as `columns_read`."""
    state = no_statistics(columns.shape[0], len(draft_signals))
    return unfold(functools.partial(statistics_step, draft_signals), state, columns, boundary)[1]


def to_json(network: ScoreNetwork, draft_signals: tuple[str, ...]) -> dict[str, Any]:
    """The network as policy.json holds it: the names of its statistics, and float32 arrays in base 64."""
    arrays = {name: np.asarray(getattr(network, name), "<f4") for name in _arrays()}
    told = {name: base64.b64encode(values.tobytes()).decode() for name, values in arrays.items()}
    names = statistic_names(draft_signals) if network.statistics is None else network.statistics
    return {"statistics": list(names), "hidden": len(network.bias), **told}


def from_json(content: Any, draft_signals: tuple[str, ...]) -> ScoreNetwork:
    """The inverse of `to_json`. Raises ValueError where it holds something else or statistics of other signals."""
    expected = {"statistics", "hidden", *_arrays()}
    if not isinstance(content, Mapping) or set(content) != expected:
        raise ValueError(f"a score network holds exactly {', '.join(sorted(expected))}")
    known, hidden, names = statistic_names(draft_signals), content["hidden"], content["statistics"]
    if not names or not isinstance(names, list) or names != [name for name in known if name in names]:
        raise ValueError("its score network reads other statistics than this version computes from these signals")
    if not isinstance(hidden, int) or isinstance(hidden, bool) or hidden < 1:
        raise ValueError(f"the hidden units of its score network are {hidden!r}, expected a number")
    size = len(names)
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
    read = None if names == list(known) else tuple(names)
    return ScoreNetwork(**{name: jnp.asarray(values) for name, values in arrays.items()}, statistics=read)


def _arrays() -> list[str]:
    return [field.name for field in dataclasses.fields(ScoreNetwork) if field.name != "statistics"]
