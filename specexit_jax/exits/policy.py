"""When to stop thinking: frozen policies over the accepted tokens of one verify step (docs/method.md §3).

Every policy has, besides `needs_signals` (False: the loop may compile without the signal heads):
  init(batch) -> state
  decide(state, tokens [B, T], signals [B, T, 3] | None, boundary [B, T], valid [B, T], closes [B] | None)
      -> (exit_column int32 [B], smoothed [B, T, 3]): the column of the last token kept, T where there is no exit, and
         what the decision looked at
  commit(state, tokens, signals, boundary, valid, count [B]) -> the state after the first `count[b]` tokens
`valid` marks the leading tokens of the step that are accepted and still thinking (`</think>` is not); `closes` the
rows whose accepted tokens contain `</think>`. Thresholds are array leaves: a sweep never recompiles.

A policy that also has `stands(log_probability [B], length [B]) -> bool [B]` and `max_answer` exits on trial: once the answer
ends, after at most max_answer tokens, `stands` sees its mean log-probability, and the exit is taken back where it is false.
"""

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.exits.released import Released
from specexit_jax.exits.smoothers import Ewma, Smoother

__all__ = ["Deer", "FirstAnswer", "NeverExit", "Policy", "Released", "Threshold", "unreachable"]

Decision = tuple[Int[Array, " B"], Float[Array, "B T 3"]]


@flax.struct.dataclass
class NeverExit:
    """The null policy: the model thinks until it closes its thinking itself."""

    needs_signals = False
    per_step = False

    def init(self, batch: int) -> tuple[()]:
        return ()

    def decide(self, state, tokens, signals, boundary, valid, closes=None) -> Decision:
        return _first_column(jnp.zeros_like(valid)), _shown(tokens, signals)

    def commit(self, state, tokens, signals, boundary, valid, count) -> tuple[()]:
        return state


@flax.struct.dataclass
class Threshold:
    """The `default` rule: exit at the first boundary whose smoothed signals (its own token included) pass all three.

    thresholds: [confidence at least, progress at least, remain at most]. budget: thinking tokens from which on any boundary
    is an exit (a hopeless problem is given up); None: none is.
    """

    thresholds: Float[Array, "3"]
    smoother: Smoother = flax.struct.field(pytree_node=False, default=Ewma())
    budget: Int[Array, ""] | None = None

    needs_signals = True
    per_step = False

    def init(self, batch: int):
        """The smoother's state and the thinking tokens so far, which a policy without a budget does not count."""
        return self.smoother.init(batch), None if self.budget is None else jnp.zeros((batch,), jnp.int32)

    def decide(self, state, tokens, signals, boundary, valid, closes=None) -> Decision:
        smoothing, thought = state
        smoothed = self.smoother.scan(smoothing, signals, boundary)
        granted = (
            (smoothed[..., 0] >= self.thresholds[0])
            & (smoothed[..., 1] >= self.thresholds[1])
            & (smoothed[..., 2] <= self.thresholds[2])
        )
        if self.budget is not None:
            granted = granted | (thought[:, None] + jnp.cumsum(valid, axis=1, dtype=jnp.int32) >= self.budget)
        return _first_column(granted & boundary & valid), smoothed

    def commit(self, state, tokens, signals, boundary, valid, count):
        smoothing, thought = state
        thinking = _thinking(valid, count)
        smoothing = self.smoother.commit(smoothing, signals, boundary, thinking)
        return smoothing, None if thought is None else thought + thinking


@flax.struct.dataclass
class FirstAnswer:
    """Exit at the first boundary at or after a token that states an answer (table `states_answer`, bool [V])."""

    states_answer: Bool[Array, " V"]

    needs_signals = False
    per_step = False

    def init(self, batch: int) -> Bool[Array, " B"]:
        return jnp.zeros((batch,), bool)

    def _stated(self, state, tokens, valid) -> Bool[Array, "B T"]:
        """Whether an answer has been stated at or before each token."""
        said = (self.states_answer[tokens] & valid).astype(jnp.int32)
        return state[:, None] | (jnp.cumsum(said, axis=1) > 0)

    def decide(self, state, tokens, signals, boundary, valid, closes=None) -> Decision:
        return _first_column(self._stated(state, tokens, valid) & boundary & valid), _shown(tokens, signals)

    def commit(self, state, tokens, signals, boundary, valid, count):
        kept = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :] < _thinking(valid, count)[:, None]
        return state | (self.states_answer[tokens] & valid & kept).any(axis=1)


@flax.struct.dataclass
class Deer:
    """The rival DEER (arXiv 2504.15895): try an answer at every boundary, exit where exp(mean log p) > confidence.

    The published one induces its trial by a sentence of its own, which cuts it short, and answers anew after it; here the
    trial is the answer. max_answer: tokens after `</think>`, the stop token included, after which a trial is judged as it is.
    """

    confidence: Float[Array, ""]
    max_answer: int = flax.struct.field(pytree_node=False, default=16)

    needs_signals = False
    per_step = False

    def init(self, batch: int) -> tuple[()]:
        return ()

    def decide(self, state, tokens, signals, boundary, valid, closes=None) -> Decision:
        return _first_column(boundary & valid), _shown(tokens, signals)

    def commit(self, state, tokens, signals, boundary, valid, count) -> tuple[()]:
        return state

    def stands(self, log_probability: Float[Array, "..."], length: Int[Array, "..."]) -> Bool[Array, "..."]:
        """An answer that had no room for a token never stands."""
        return (length > 0) & (jnp.exp(log_probability) > self.confidence)


Policy = NeverExit | Threshold | FirstAnswer | Released | Deer


def unreachable(smoother: Smoother | None = None) -> Threshold:
    """Computes every signal and never exits: what the cost of signals and exit rule is measured with."""
    return Threshold(jnp.array([2.0, 2.0, -1.0], jnp.float32), smoother or Ewma())


def _first_column(granted: Bool[Array, "B T"]) -> Int[Array, " B"]:
    """The first column granted in each row, T where there is none."""
    return jnp.where(granted.any(axis=1), jnp.argmax(granted, axis=1), granted.shape[1]).astype(jnp.int32)


def _thinking(valid: Bool[Array, "B T"], count: Int[Array, " B"]) -> Int[Array, " B"]:
    """How many of the `count` committed tokens are thinking: only those enter an average."""
    return jnp.minimum(count, valid.sum(axis=1, dtype=jnp.int32))


def _shown(tokens: Int[Array, "B T"], signals) -> Float[Array, "B T 3"]:
    """What a policy that reads no signals reports: the signals if there are any, else zeros."""
    return jnp.zeros((*tokens.shape, 3), jnp.float32) if signals is None else signals
