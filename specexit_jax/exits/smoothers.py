"""The five smoothers of the paper's ablation, which average over tokens, one that averages over boundaries, and the exit score.

A smoother is a pytree: its settings are static, and only the exit score (`score.Score`) has arrays. Its state is a pytree of
arrays. The value after a token depends on the thinking tokens up to and including that token, and not on how verify steps
divide them: `scan` over a sequence equals any chain of `scan` and `commit` over its parts. (docs/method.md §3)

  reads: the names of the R columns that it is given
  signals: the names of the S columns that it gives; the same, except for the exit score
  init(batch) -> state
  scan(state, signals [B, T, R], boundary [B, T]) -> value after each token [B, T, S]
  commit(state, signals, boundary, count [B]) -> the state after the first `count[b]` tokens of each row
  scan_and_commit(state, signals, boundary, count) -> both; the value after each of the first `count[b]` tokens alone counts
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.exits.recurrence import Boundary, Count, Signals, state_after, unfold
from specexit_jax.exits.score import SCORE, Score, ScoreNetwork
from specexit_jax.exits.signals import PAPER, activate, deactivate


@dataclasses.dataclass(frozen=True)
class _Columns:
    """signals: the names of the columns, in the order of the table."""

    signals: tuple[str, ...] = dataclasses.field(default=PAPER, kw_only=True)

    @property
    def reads(self) -> tuple[str, ...]:
        return self.signals

    def scan_and_commit(self, state: Any, signals: Signals, boundary: Boundary, count: Count) -> tuple[Signals, Any]:
        return self.scan(state, signals, boundary), self.commit(state, signals, boundary, count)


@dataclasses.dataclass(frozen=True)
class _Recurrent(_Columns):
    """A smoother that is computed token by token (`recurrence`)."""

    def _step(self, state: Any, signal: Float[Array, "B S"], boundary: Bool[Array, " B"]) -> tuple[Any, Array]:
        raise NotImplementedError

    def scan(self, state: Any, signals: Signals, boundary: Boundary) -> Signals:
        return unfold(self._step, state, signals, boundary)[1]

    def commit(self, state: Any, signals: Signals, boundary: Boundary, count: Count) -> Any:
        return state_after(unfold(self._step, state, signals, boundary)[0], count)


@dataclasses.dataclass(frozen=True)
class NoSmoothing(_Columns):
    """The signal of the token itself."""

    def init(self, batch: int) -> tuple[()]:
        return ()

    def scan(self, state: tuple[()], signals: Signals, boundary: Boundary) -> Signals:
        return signals

    def commit(self, state: tuple[()], signals: Signals, boundary: Boundary, count: Count) -> tuple[()]:
        return state


@flax.struct.dataclass
class EwmaState:
    value: Float[Array, "B S"]
    started: Bool[Array, " B"]


@dataclasses.dataclass(frozen=True)
class Ewma(_Recurrent):
    """Exponential average: e <- alpha s + (1 - alpha) e, started with the first value."""

    alpha: float = 0.1

    def init(self, batch: int) -> EwmaState:
        return EwmaState(jnp.zeros((batch, len(self.signals)), jnp.float32), jnp.zeros((batch,), bool))

    def _step(self, state: EwmaState, signal: Array, boundary: Array) -> tuple[EwmaState, Array]:
        average = self.alpha * signal + (1.0 - self.alpha) * state.value
        value = jnp.where(state.started[:, None], average, signal)
        return EwmaState(value, jnp.ones_like(state.started)), value


@dataclasses.dataclass(frozen=True)
class BoundaryEwma(_Recurrent):
    """Exponential average over boundary tokens only, of log-odds (shares) and logarithms (tokens).

    Between boundaries the value is constant. Before the first boundary it is the token's own signal. The labels of the signals
    are defined at boundaries, so only the values there are averaged. A low value at one boundary lowers the next averages.
    """

    alpha: float = 0.5

    def init(self, batch: int) -> EwmaState:
        return EwmaState(jnp.zeros((batch, len(self.signals)), jnp.float32), jnp.zeros((batch,), bool))

    def _step(self, state: EwmaState, signal: Array, boundary: Array) -> tuple[EwmaState, Array]:
        raw = deactivate(signal, self.signals)
        average = self.alpha * raw + (1.0 - self.alpha) * state.value
        reached = jnp.where(state.started[:, None], average, raw)
        value = jnp.where(boundary[:, None], reached, state.value)
        shown = jnp.where((boundary | state.started)[:, None], activate(value, self.signals), signal)
        return EwmaState(value, state.started | boundary), shown


@flax.struct.dataclass
class ParagraphState:
    total: Float[Array, "B S"]
    length: Float[Array, " B"]


@dataclasses.dataclass(frozen=True)
class ParagraphMean(_Recurrent):
    """Mean over the current paragraph. A boundary token is the last of its paragraph."""

    def init(self, batch: int) -> ParagraphState:
        return ParagraphState(jnp.zeros((batch, len(self.signals)), jnp.float32), jnp.zeros((batch,), jnp.float32))

    def _step(self, state: ParagraphState, signal: Array, boundary: Array) -> tuple[ParagraphState, Array]:
        total, length = state.total + signal, state.length + 1.0
        after = ParagraphState(
            jnp.where(boundary[:, None], 0.0, total),
            jnp.where(boundary, 0.0, length),
        )
        return after, total / length[:, None]


@flax.struct.dataclass
class WindowState:
    """history: the last window - 1 signals, newest last, zeros before the first. first: the first signal of all. count: how
    many there were."""

    history: Float[Array, "B W S"]
    first: Float[Array, "B S"]
    count: Int[Array, " B"]


@dataclasses.dataclass(frozen=True)
class _Windowed(_Columns):
    """A smoother of the last `window` signals."""

    window: int = 10

    def init(self, batch: int) -> WindowState:
        width = len(self.signals)
        return WindowState(
            jnp.zeros((batch, self.window - 1, width), jnp.float32),
            jnp.zeros((batch, width), jnp.float32),
            jnp.zeros((batch,), jnp.int32),
        )

    def commit(self, state: WindowState, signals: Signals, boundary: Boundary, count: Count) -> WindowState:
        extended = jnp.concatenate([state.history, signals], axis=1)
        index = count[:, None] + jnp.arange(state.history.shape[1], dtype=jnp.int32)[None, :]
        return WindowState(
            jnp.take_along_axis(extended, index[:, :, None], axis=1),
            jnp.where((state.count > 0)[:, None], state.first, signals[:, 0]),
            state.count + count,
        )


@dataclasses.dataclass(frozen=True)
class SlidingMean(_Windowed):
    """Mean of the last `window` signals, or of all where there are fewer."""

    def scan(self, state: WindowState, signals: Signals, boundary: Boundary) -> Signals:
        length = signals.shape[1]
        extended = jnp.concatenate([state.history, signals], axis=1)
        # Each sum runs from the oldest to the newest signal, so its rounding does not depend on how steps divide the text.
        total = sum(extended[:, k : k + length] for k in range(self.window))
        return total / jnp.minimum(_seen(state, length), self.window).astype(jnp.float32)[:, :, None]


@dataclasses.dataclass(frozen=True)
class Momentum(_Windowed):
    """The signal extrapolated by one token, with its mean change over the last `window` signals.

    s_t + (s_t - s_{t-w+1}) / (w - 1): the predictor of the released code, applied to every token. (The mean of the window's w - 1
    differences telescopes.) While there are fewer than w signals, all of them are the window, and a single signal predicts
    itself. (The released code has no score before w values: see `Released`.) Extrapolated values can leave [0, 1] or be
    negative numbers of tokens.
    """

    def scan(self, state: WindowState, signals: Signals, boundary: Boundary) -> Signals:
        length = signals.shape[1]
        extended = jnp.concatenate([state.history, signals], axis=1)
        seen = _seen(state, length)
        first = jnp.where((state.count > 0)[:, None], state.first, signals[:, 0])
        oldest = jnp.where((seen >= self.window)[:, :, None], extended[:, :length], first[:, None, :])
        gaps = jnp.clip(seen - 1, 1, self.window - 1).astype(jnp.float32)
        return signals + (signals - oldest) / gaps[:, :, None]


Smoother = NoSmoothing | Ewma | BoundaryEwma | ParagraphMean | SlidingMean | Momentum | Score
SMOOTHERS = {
    "none": NoSmoothing,
    "momentum": Momentum,
    "mean": SlidingMean,
    "ewma": Ewma,
    "boundary_ewma": BoundaryEwma,
    "paragraph_mean": ParagraphMean,
}
for _smoother in SMOOTHERS.values():
    jax.tree_util.register_static(_smoother)


def smoother_named(name: str, signals: Sequence[str] = PAPER, score: ScoreNetwork | None = None) -> Smoother:
    """The smoother of this name in SMOOTHERS with its default settings (in the paper: window 10, alpha 0.1), or the exit score.

    signals: the names of the columns that it gives. score: the network of the exit score. Raises ValueError on an unknown name,
    and on `score` without its network.
    """
    if name == SCORE and score is not None:
        return Score(score, tuple(signal for signal in signals if signal != SCORE))
    if name not in SMOOTHERS:
        known = ", ".join(SMOOTHERS)
        raise ValueError(
            f"unknown smoother '{name}': choose one of {known}, or {SCORE} where a score network was fitted"
        )
    return SMOOTHERS[name](signals=tuple(signals))


def _seen(state: WindowState, length: int) -> Int[Array, "B T"]:
    """The number of signals up to and including each token."""
    return state.count[:, None] + jnp.arange(1, length + 1, dtype=jnp.int32)[None, :]
