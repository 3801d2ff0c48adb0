"""The exit rule of the released SpecExit code, with the same decisions (docs/method.md §3, `released`).

The rule works on whole verify steps. The mean of the signals over a step's tokens is one observation. A decision uses the
observations of earlier steps, and an exit is only possible at the first boundary of a step. So its decisions depend on how
verify steps divide the text; those of `Threshold` do not.
"""

import dataclasses
from typing import ClassVar

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specexit_jax.exits.protocols import Rule, Terms
from specexit_jax.exits.signals import PAPER, passed

RELEASED_THRESHOLDS = (0.8, 0.3, 200.0)
SCORES = ("ewma", "momentum", "mean", "paragraph_mean")
WINDOW = 10
ALPHA = 0.1


@flax.struct.dataclass
class ReleasedState:
    """history: the last W = 10 observations, newest last. count: how many of them are used. ewma: their exponential average."""

    history: Float[Array, "B W S"]
    count: Int[Array, " B"]
    ewma: Float[Array, "B S"]


@flax.struct.dataclass
class Released(Rule):
    """Exit at the first boundary of a step if the scores of earlier steps pass: confidence > 0.8, progress > 0.3, remain < 200.

    Rows in `closes` do not exit: in the released code, a `</think>` among the accepted tokens ends the thinking before the
    boundaries of the step are considered, even those before it.
    """

    thresholds: Float[Array, "*rows S"]
    score: str = flax.struct.field(pytree_node=False, default="ewma")

    signals: ClassVar[tuple[str, ...]] = PAPER
    per_step = True
    own_kinds = ("released",)

    @classmethod
    def smoothings(cls) -> tuple[str, ...]:
        return SCORES

    @classmethod
    def of(cls, terms: Terms) -> "Released":
        return dataclasses.replace(released(terms.smoothing), thresholds=jnp.asarray(terms.thresholds, jnp.float32))

    @classmethod
    def wrong_in(cls, terms: Terms) -> str | None:
        if terms.signals != cls.signals:
            return f"the released rule has thresholds of exactly {', '.join(cls.signals)}"
        if terms.budget is not None:
            return "the released rule has no budget, expected null"
        return super().wrong_in(terms)

    @classmethod
    def alone(cls, smoothing: str | None) -> "Released":
        return released(smoothing or "ewma")

    @property
    def limits(self) -> Float[Array, " S"]:
        return self.thresholds

    def with_limits(self, limits: Float[Array, "B S"]) -> "Released":
        return self.replace(thresholds=limits)

    def init(self, batch: int) -> ReleasedState:
        return ReleasedState(
            jnp.zeros((batch, WINDOW, len(self.signals)), jnp.float32),
            jnp.zeros((batch,), jnp.int32),
            jnp.zeros((batch, len(self.signals)), jnp.float32),
        )

    def decide(self, state, tokens, signals, boundary, valid, closes=None):
        length = tokens.shape[1]
        score = _score(state, self.score)
        granted = jnp.stack(passed(score, self.thresholds, self.signals, strict=True), axis=1)
        # A score of exactly 0.0 counts as missing, because the released code tests `if score`. Kept, to decide the same.
        can_stop = (granted & (score != 0.0)).all(axis=1) & (state.count >= _needed(self.score))
        if closes is not None:
            can_stop = can_stop & ~closes
        split = boundary & valid
        exits = can_stop & split.any(axis=1)
        column = jnp.where(exits, jnp.argmax(split, axis=1), length).astype(jnp.int32)
        return column, jnp.broadcast_to(score[:, None, :], (*tokens.shape, len(self.signals)))

    def commit(self, state, tokens, signals, boundary, valid, count):
        columns = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :]
        kept = valid & (columns < count[:, None])
        number = kept.sum(axis=1, dtype=jnp.int32)
        total = jnp.where(kept[:, :, None], signals, 0.0).sum(axis=1)
        mean = total / jnp.maximum(number, 1).astype(jnp.float32)[:, None]
        counted = state.count
        if self.score == "paragraph_mean":
            # At a boundary the released code drops all observations but the last, and then adds that of this step.
            counted = jnp.where((boundary & kept).any(axis=1), jnp.minimum(counted, 1), counted)
        average = jnp.where((state.count > 0)[:, None], ALPHA * mean + (1.0 - ALPHA) * state.ewma, mean)
        new = number > 0
        shifted = jnp.concatenate([state.history[:, 1:], mean[:, None, :]], axis=1)
        return ReleasedState(
            jnp.where(new[:, None, None], shifted, state.history),
            jnp.where(new, jnp.minimum(counted + 1, WINDOW), state.count),
            jnp.where(new[:, None], average, state.ewma),
        )


def released(score: str = "ewma") -> Released:
    """The released rule with its own thresholds. score: one of SCORES. Raises ValueError on another name."""
    if score not in SCORES:
        raise ValueError(f"the released rule has no smoother '{score}': choose one of {', '.join(SCORES)}")
    return Released(jnp.array(RELEASED_THRESHOLDS, jnp.float32), score)


def _needed(score: str) -> int:
    """The number of observations that a score needs: momentum needs a full window."""
    return WINDOW if score == "momentum" else 1


def _score(state: ReleasedState, score: str) -> Float[Array, "B S"]:
    """The score of the observations so far; not valid while there are fewer than `_needed`."""
    if score == "ewma":
        return state.ewma
    if score == "momentum":
        return state.history[:, -1] + (state.history[:, -1] - state.history[:, 0]) / (WINDOW - 1)
    counts = jnp.arange(WINDOW, dtype=jnp.int32)[None, :] >= WINDOW - state.count[:, None]
    total = jnp.where(counts[:, :, None], state.history, 0.0).sum(axis=1)
    return total / jnp.maximum(state.count, 1).astype(jnp.float32)[:, None]
