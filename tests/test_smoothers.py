"""Smoothers: each against a loop from its definition, and independent of how verify steps divide the text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specexit_jax.exits.recurrence import UNROLLED
from specexit_jax.exits.scales import TOKENS_MAX
from specexit_jax.exits.signals import activate
from specexit_jax.exits.smoothers import SMOOTHERS, smoother_named


def _reference(name: str, signals: np.ndarray, boundary: np.ndarray) -> np.ndarray:
    """float64 [T, 3]: the value after each token, from the whole history each time."""
    values = []
    for t in range(len(signals)):
        seen, window = signals[: t + 1].astype(np.float64), signals[max(0, t - 9) : t + 1].astype(np.float64)
        if name == "none":
            values.append(seen[-1])
        elif name == "mean":
            values.append(window.mean(axis=0))
        elif name == "momentum":
            values.append(seen[-1] + (np.diff(window, axis=0).mean(axis=0) if len(window) > 1 else 0.0))
        elif name == "ewma":
            value = seen[0]
            for signal in seen[1:]:
                value = 0.1 * signal + 0.9 * value
            values.append(value)
        elif name == "boundary_ewma":
            ended = np.flatnonzero(boundary[: t + 1])
            odds = seen[ended] / (1 - seen[ended]) * [1, 1, 0] + seen[ended] * [0, 0, 1]
            weights = 0.5 ** np.minimum(np.arange(len(ended))[::-1] + 1.0, len(ended) - 1.0)
            mean = np.exp(weights @ np.log(odds)) if len(ended) else None
            values.append(seen[-1] if mean is None else np.append(mean[:2] / (1 + mean[:2]), mean[2]))
        else:
            ended = np.flatnonzero(boundary[:t])
            values.append(seen[ended[-1] + 1 if len(ended) else 0 :].mean(axis=0))
    return np.stack(values)


def _sequence(seed: int, length: int, rows: int = 3) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    signals = rng.random((rows, length, 3), np.float32) * np.array([1, 1, 300], np.float32)
    return jnp.asarray(signals), jnp.asarray(rng.random((rows, length)) < 0.2)


@pytest.mark.parametrize("length", [7, 60])
@pytest.mark.parametrize("name", SMOOTHERS)
def test_scan_follows_the_definition(name: str, length: int):
    signals, boundary = _sequence(0, length)
    smoother = smoother_named(name)
    got = jax.jit(smoother.scan)(smoother.init(3), signals, boundary)
    assert got.dtype == jnp.float32 and (length <= UNROLLED) == (length == 7)
    for row in range(3):
        want = _reference(name, np.asarray(signals[row]), np.asarray(boundary[row]))
        np.testing.assert_allclose(got[row], want, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", SMOOTHERS)
def test_slicing_changes_nothing(name: str):
    """Verify steps of 6 columns, of which each row commits another number (also 0), against one long scan."""
    signals, boundary = _sequence(1, 60)
    smoother = smoother_named(name)
    whole = np.asarray(jax.jit(smoother.scan)(smoother.init(3), signals, boundary))
    scan, commit = jax.jit(smoother.scan), jax.jit(smoother.commit)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        state, position = smoother.init(3), np.zeros(3, np.int32)
        while position.min() < 60 - 6:
            start = np.minimum(position, 54)
            columns = start[:, None] + np.arange(6)[None, :]
            # Columns after the committed ones hold rejected drafts. Their signals must have no effect.
            step = jnp.take_along_axis(signals, jnp.asarray(columns)[:, :, None], axis=1)
            ends = jnp.take_along_axis(boundary, jnp.asarray(columns), axis=1)
            values = np.asarray(scan(state, step, ends))
            count = np.where(position < 54, rng.integers(0, 7, 3), 0).astype(np.int32)
            for row in range(3):
                if position[row] < 54:
                    want = whole[row, position[row] : position[row] + 6]
                    np.testing.assert_allclose(values[row], want, rtol=2e-6, atol=1e-6)
            rejected = np.arange(6)[None, :] >= count[:, None]
            step = jnp.where(jnp.asarray(rejected)[:, :, None], jnp.float32(7.0), step)
            state = commit(state, step, ends | jnp.asarray(rejected), jnp.asarray(count))
            position = position + count


@pytest.mark.parametrize("name", SMOOTHERS)
def test_state_keeps_its_type(name: str):
    """The loop carries the state, so commit must return the shapes and dtypes of init."""
    smoother = smoother_named(name)
    signals, boundary = _sequence(2, 5)
    state = smoother.init(3)
    after = jax.eval_shape(smoother.commit, state, signals, boundary, jnp.ones((3,), jnp.int32))
    assert jax.tree.structure(state) == jax.tree.structure(after)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype


def test_momentum_extrapolates_beyond_the_unit_interval():
    rising = jnp.tile(jnp.linspace(0.1, 1.0, 10, dtype=jnp.float32)[None, :, None], (1, 1, 3))
    smoother = smoother_named("momentum")
    assert float(smoother.scan(smoother.init(1), rising, jnp.zeros((1, 10), bool))[0, -1, 0]) == pytest.approx(1.1)


def test_unknown_smoother_is_refused():
    with pytest.raises(ValueError, match="unknown smoother 'median'.*ewma"):
        smoother_named("median")


def test_activation_is_float32_and_clamped():
    raw = jnp.array([[0.0, 100.0, 3.0], [-100.0, 0.0, 1000.0]], jnp.bfloat16)
    got = activate(raw)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, [[0.5, 1.0, np.exp(3.0)], [0.0, 0.5, TOKENS_MAX]], rtol=1e-5, atol=1e-30)
