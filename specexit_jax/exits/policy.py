"""The exit policies, and the table of those that policy.json can hold (docs/method.md §3). `protocols` has their interface."""

import dataclasses
import functools
import operator

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.exits.protocols import Decision, Policy, Rule, Terms, TrialPolicy
from specexit_jax.exits.released import Released
from specexit_jax.exits.score import SCORE
from specexit_jax.exits.signals import PAPER, never_limits, passed
from specexit_jax.exits.smoothers import SMOOTHERS, Ewma, Smoother, smoother_named

__all__ = ["POLICIES", "Deer", "FirstAnswer", "NeverExit", "Policy", "Released", "Threshold", "unreachable"]


@flax.struct.dataclass
class NeverExit(Policy):
    """Never exits: the model thinks until it closes its thinking itself."""

    exits = False
    reads_tokens = False

    def decide(self, state, tokens, signals, boundary, valid, closes=None) -> Decision:
        return first_column(jnp.zeros_like(valid)), _nothing(valid)


@flax.struct.dataclass
class Threshold(Rule):
    """The `default` rule: exit at the first boundary whose smoothed signals (its own token included) pass all thresholds.

    thresholds: one for each of the smoother's signals; the table of signals says whether it is a lower or an upper limit. With
    rows' own (`with_limits`) they are [B, 1, S].
    budget: the number of thinking tokens from which on every boundary is an exit; None: there is no budget.
    """

    thresholds: Float[Array, "*rows S"]
    smoother: Smoother = Ewma()
    budget: Int[Array, ""] | None = None

    by_thresholds = True
    reads_tokens = False

    @property
    def signals(self) -> tuple[str, ...]:
        return self.smoother.signals

    @property
    def reads(self) -> tuple[str, ...]:
        return self.smoother.reads

    @classmethod
    def smoothings(cls) -> tuple[str, ...]:
        return (*SMOOTHERS, SCORE)

    @classmethod
    def wrong_in(cls, terms: Terms) -> str | None:
        scored = terms.smoothing == SCORE
        if scored and (terms.score is None or terms.signals[-1:] != (SCORE,) or len(terms.signals) < 2):
            return f"smoothing is '{SCORE}', which needs a score network and a threshold of the {SCORE} beside those of signals"
        if not scored and (terms.score is not None or SCORE in terms.signals):
            return f"smoothing is '{terms.smoothing}', but the file has a score network or a threshold of the {SCORE}"
        return super().wrong_in(dataclasses.replace(terms, score=None))

    @classmethod
    def of(cls, terms: Terms) -> "Threshold":
        budget = None if terms.budget is None else jnp.int32(terms.budget)
        limits = jnp.asarray(terms.thresholds, jnp.float32)
        return cls(limits, smoother_named(terms.smoothing, terms.signals, terms.score), budget)

    @property
    def limits(self) -> Float[Array, " S"]:
        return self.thresholds

    def with_limits(self, limits: Float[Array, "B S"]) -> "Threshold":
        return self.replace(thresholds=limits[:, None])

    def init(self, batch: int):
        """(the smoother's state, the number of thinking tokens so far or None without a budget)."""
        return self.smoother.init(batch), None if self.budget is None else jnp.zeros((batch,), jnp.int32)

    def decide(self, state, tokens, signals, boundary, valid, closes=None) -> Decision:
        return self._decision(state[1], self.smoother.scan(state[0], signals, boundary), boundary, valid)

    def decide_and_commit(self, state, tokens, signals, boundary, valid, thinking, closes=None):
        (smoothing, thought), count = state, jnp.sum(thinking.astype(jnp.int32), axis=1)
        smoothed, smoothing = self.smoother.scan_and_commit(smoothing, signals, boundary, count)
        after = smoothing, None if thought is None else thought + count
        return self._decision(thought, smoothed, boundary, valid), after

    def _decision(self, thought, smoothed, boundary, valid) -> Decision:
        granted = functools.reduce(operator.and_, passed(smoothed, self.thresholds, self.signals))
        if self.budget is not None:
            granted = granted | (thought[:, None] + jnp.cumsum(valid, axis=1, dtype=jnp.int32) >= self.budget)
        return first_column(granted & boundary & valid), smoothed

    def commit(self, state, tokens, signals, boundary, valid, count):
        smoothing, thought = state
        thinking = _thinking(valid, count)
        smoothing = self.smoother.commit(smoothing, signals, boundary, thinking)
        return smoothing, None if thought is None else thought + thinking


@flax.struct.dataclass
class FirstAnswer(Policy):
    """Exit at the first boundary at or after a token that states an answer. states_answer: which tokens of the vocabulary do."""

    states_answer: Bool[Array, " V"]

    def init(self, batch: int) -> Bool[Array, " B"]:
        return jnp.zeros((batch,), bool)

    def _stated(self, state, tokens, valid) -> Bool[Array, "B T"]:
        """Whether an answer has been stated at or before each token."""
        said = (self.states_answer[tokens] & valid).astype(jnp.int32)
        return state[:, None] | (jnp.cumsum(said, axis=1) > 0)

    def decide(self, state, tokens, signals, boundary, valid, closes=None) -> Decision:
        return first_column(self._stated(state, tokens, valid) & boundary & valid), _nothing(valid)

    def commit(self, state, tokens, signals, boundary, valid, count):
        kept = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :] < _thinking(valid, count)[:, None]
        return state | (self.states_answer[tokens] & valid & kept).any(axis=1)


@flax.struct.dataclass
class Deer(TrialPolicy):
    """The rival method DEER (arXiv 2504.15895): try an answer at every boundary, and exit where exp(mean log p) > confidence.

    The published method writes a special sentence before a short trial answer, and writes the answer again after the exit. Here
    the trial is the answer itself. max_answer: the most tokens of a trial after `</think>`, the stop token included.
    """

    confidence: Float[Array, ""]
    max_answer: int = flax.struct.field(pytree_node=False, default=16)

    on_trial = True
    reads_tokens = False

    def decide(self, state, tokens, signals, boundary, valid, closes=None) -> Decision:
        return first_column(boundary & valid), _nothing(valid)

    def stands(self, log_probability: Float[Array, "..."], length: Int[Array, "..."]) -> Bool[Array, "..."]:
        """See `TrialPolicy`. An answer without tokens fails."""
        return (length > 0) & (jnp.exp(log_probability) > self.confidence)


POLICIES: dict[str, type[Rule]] = {"default": Threshold, "released": Released}  # by the key `rule` of policy.json


def unreachable(smoother: Smoother | None = None, signals: tuple[str, ...] = PAPER) -> Threshold:
    """A policy that computes every signal but never exits, to measure the cost of signals and exit rule."""
    smoother = smoother or Ewma(signals=signals)
    return Threshold(jnp.array(never_limits(smoother.signals), jnp.float32), smoother)


def first_column(granted: Bool[Array, "B T"]) -> Int[Array, " B"]:
    """The first true column of each row; T where there is none."""
    return jnp.where(granted.any(axis=1), jnp.argmax(granted, axis=1), granted.shape[1]).astype(jnp.int32)


def _thinking(valid: Bool[Array, "B T"], count: Int[Array, " B"]) -> Int[Array, " B"]:
    """The number of thinking tokens among the first `count`. Only these are smoothed and counted."""
    return jnp.minimum(count, valid.sum(axis=1, dtype=jnp.int32))


def _nothing(valid: Bool[Array, "B T"]) -> Float[Array, "B T 0"]:
    """The smoothed signals of a policy that reads none: no columns."""
    return jnp.zeros((*valid.shape, 0), jnp.float32)
