"""The five smoothers of the paper's ablation, per token, and ours per boundary (docs/method.md §3).

A smoother is a frozen dataclass (a static choice); what it remembers is a pytree of arrays. Its value after a token
is a function of the thinking tokens up to and including that token, never of how verification sliced them: `scan`
over a sequence equals any chain of `scan` and `commit` over its slices.

  signals: the names of the S columns that it smooths
  init(batch) -> state
  scan(state, signals [B, T, S], boundary [B, T]) -> value after each token [B, T, S]
  commit(state, signals, boundary, count [B]) -> state advanced by the first `count[b]` tokens of each row
"""

import dataclasses
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.exits.signals import PAPER, activate, deactivate

Signals = Float[Array, "B T S"]
Boundary = Bool[Array, "B T"]
Count = Int[Array, " B"]

UNROLLED = 16  # a verify step is shorter: its recurrence becomes one fused kernel; a replayed trace is longer: lax.scan


@dataclasses.dataclass(frozen=True)
class _Columns:
    """signals: the names of the columns, in the order of the table."""

    signals: tuple[str, ...] = dataclasses.field(default=PAPER, kw_only=True)


@dataclasses.dataclass(frozen=True)
class NoSmoothing(_Columns):
    """The token's own signal."""

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
class Ewma(_Columns):
    """e <- alpha s + (1 - alpha) e; the first value starts the average."""

    alpha: float = 0.1

    def init(self, batch: int) -> EwmaState:
        return EwmaState(jnp.zeros((batch, len(self.signals)), jnp.float32), jnp.zeros((batch,), bool))

    def _step(self, state: EwmaState, signal: Array, boundary: Array) -> tuple[EwmaState, Array]:
        average = self.alpha * signal + (1.0 - self.alpha) * state.value
        value = jnp.where(state.started[:, None], average, signal)
        return EwmaState(value, jnp.ones_like(state.started)), value

    def scan(self, state: EwmaState, signals: Signals, boundary: Boundary) -> Signals:
        return _unfold(self._step, state, signals, boundary)[1]

    def commit(self, state: EwmaState, signals: Signals, boundary: Boundary, count: Count) -> EwmaState:
        return _at(_unfold(self._step, state, signals, boundary)[0], count)


@dataclasses.dataclass(frozen=True)
class BoundaryEwma(_Columns):
    """The same average over boundary tokens alone, of log-odds (shares) and logarithms (tokens).

    Between boundaries the value is constant; before the first boundary it is the token's own signal. The signals are fitted
    at boundaries, so the average is taken there; a low value at one boundary still lowers the average at the next ones.
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

    def scan(self, state: EwmaState, signals: Signals, boundary: Boundary) -> Signals:
        return _unfold(self._step, state, signals, boundary)[1]

    def commit(self, state: EwmaState, signals: Signals, boundary: Boundary, count: Count) -> EwmaState:
        return _at(_unfold(self._step, state, signals, boundary)[0], count)


@flax.struct.dataclass
class ParagraphState:
    total: Float[Array, "B S"]
    length: Float[Array, " B"]


@dataclasses.dataclass(frozen=True)
class ParagraphMean(_Columns):
    """Mean over the current paragraph: starts anew after a boundary; the boundary token ends its own paragraph."""

    def init(self, batch: int) -> ParagraphState:
        return ParagraphState(jnp.zeros((batch, len(self.signals)), jnp.float32), jnp.zeros((batch,), jnp.float32))

    def _step(self, state: ParagraphState, signal: Array, boundary: Array) -> tuple[ParagraphState, Array]:
        total, length = state.total + signal, state.length + 1.0
        after = ParagraphState(
            jnp.where(boundary[:, None], 0.0, total),
            jnp.where(boundary, 0.0, length),
        )
        return after, total / length[:, None]

    def scan(self, state: ParagraphState, signals: Signals, boundary: Boundary) -> Signals:
        return _unfold(self._step, state, signals, boundary)[1]

    def commit(self, state: ParagraphState, signals: Signals, boundary: Boundary, count: Count) -> ParagraphState:
        return _at(_unfold(self._step, state, signals, boundary)[0], count)


@flax.struct.dataclass
class WindowState:
    """The last window - 1 signals (newest last, zeros before the first), the first ever, and how many there were."""

    history: Float[Array, "B W S"]
    first: Float[Array, "B S"]
    count: Int[Array, " B"]


@dataclasses.dataclass(frozen=True)
class SlidingMean(_Columns):
    """Mean of the last `window` signals, or of as many as there are."""

    window: int = 10

    def init(self, batch: int) -> WindowState:
        return _init_window(batch, self.window, len(self.signals))

    def scan(self, state: WindowState, signals: Signals, boundary: Boundary) -> Signals:
        length = signals.shape[1]
        extended = jnp.concatenate([state.history, signals], axis=1)
        # Summed anew from oldest to newest for every token: the rounding does not depend on the slicing either.
        total = sum(extended[:, k : k + length] for k in range(self.window))
        return total / jnp.minimum(_seen(state, length), self.window).astype(jnp.float32)[:, :, None]

    def commit(self, state: WindowState, signals: Signals, boundary: Boundary, count: Count) -> WindowState:
        return _advance_window(state, signals, count)


@dataclasses.dataclass(frozen=True)
class Momentum(_Columns):
    """The signal carried one token further along its mean change over the last `window` signals.

    s_t + (s_t - s_{t-w+1}) / (w - 1): the released predictor (last value plus the mean of the window's w - 1
    differences, which telescopes), token by token. While fewer than w signals exist the window is what there is, and
    a lone signal predicts itself; the released code, which has no score before w values, is `Released`. Values may
    leave [0, 1] or fall below 0 tokens: it is an extrapolation.
    """

    window: int = 10

    def init(self, batch: int) -> WindowState:
        return _init_window(batch, self.window, len(self.signals))

    def scan(self, state: WindowState, signals: Signals, boundary: Boundary) -> Signals:
        length = signals.shape[1]
        extended = jnp.concatenate([state.history, signals], axis=1)
        seen = _seen(state, length)
        first = jnp.where((state.count > 0)[:, None], state.first, signals[:, 0])
        oldest = jnp.where((seen >= self.window)[:, :, None], extended[:, :length], first[:, None, :])
        gaps = jnp.clip(seen - 1, 1, self.window - 1).astype(jnp.float32)
        return signals + (signals - oldest) / gaps[:, :, None]

    def commit(self, state: WindowState, signals: Signals, boundary: Boundary, count: Count) -> WindowState:
        return _advance_window(state, signals, count)


Smoother = NoSmoothing | Ewma | BoundaryEwma | ParagraphMean | SlidingMean | Momentum
SMOOTHERS = {
    "none": NoSmoothing,
    "momentum": Momentum,
    "mean": SlidingMean,
    "ewma": Ewma,
    "boundary_ewma": BoundaryEwma,
    "paragraph_mean": ParagraphMean,
}


def smoother_named(name: str, signals: Sequence[str] = PAPER) -> Smoother:
    """The smoother that `--smoother=NAME` means, of these signals, with the paper's window (10) and alpha (0.1)."""
    if name not in SMOOTHERS:
        raise ValueError(f"unknown smoother '{name}': choose one of {', '.join(SMOOTHERS)}")
    return SMOOTHERS[name](signals=tuple(signals))


def _unfold(step, state, signals: Signals, boundary: Boundary):
    """The states before and after every token (leaves [B, T + 1, ...]) and the values [B, T, S] of a recurrence."""
    length = signals.shape[1]
    if length <= UNROLLED:
        states, values = [state], []
        for t in range(length):
            state, value = step(state, signals[:, t], boundary[:, t])
            states.append(state)
            values.append(value)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *states), jnp.stack(values, axis=1)

    def body(carry, column):
        carry, value = step(carry, *column)
        return carry, (carry, value)

    columns = (jnp.moveaxis(signals, 1, 0), jnp.moveaxis(boundary, 1, 0))
    _, (states, values) = jax.lax.scan(body, state, columns)
    join = lambda before, after: jnp.concatenate([before[:, None], jnp.moveaxis(after, 0, 1)], axis=1)  # noqa: E731
    return jax.tree.map(join, state, states), jnp.moveaxis(values, 0, 1)


def _at(states, count: Count):
    """The state of each row after its first `count[b]` tokens."""

    def pick(leaf: Array) -> Array:
        index = count.reshape(count.shape + (1,) * (leaf.ndim - 1))
        return jnp.take_along_axis(leaf, index, axis=1)[:, 0]

    return jax.tree.map(pick, states)


def _init_window(batch: int, window: int, width: int) -> WindowState:
    return WindowState(
        jnp.zeros((batch, window - 1, width), jnp.float32),
        jnp.zeros((batch, width), jnp.float32),
        jnp.zeros((batch,), jnp.int32),
    )


def _seen(state: WindowState, length: int) -> Int[Array, "B T"]:
    """Signals seen up to and including each token."""
    return state.count[:, None] + jnp.arange(1, length + 1, dtype=jnp.int32)[None, :]


def _advance_window(state: WindowState, signals: Signals, count: Count) -> WindowState:
    extended = jnp.concatenate([state.history, signals], axis=1)
    index = count[:, None] + jnp.arange(state.history.shape[1], dtype=jnp.int32)[None, :]
    return WindowState(
        jnp.take_along_axis(extended, index[:, :, None], axis=1),
        jnp.where((state.count > 0)[:, None], state.first, signals[:, 0]),
        state.count + count,
    )
