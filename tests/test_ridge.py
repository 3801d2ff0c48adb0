"""Ridge regressions for many columns at once, against Newton's method and the normal equations of each alone."""

import numpy as np
import pytest

from specexit_jax.training import ridge
from specexit_jax.training.ridge import Regressions

COUNT, WIDTH = 300, 12


@pytest.fixture(scope="module")
def problem():
    """(inputs of very different sizes, targets, weights, links): two logistic regressions, one of shares, and two of numbers."""
    rng = np.random.default_rng(0)
    inputs = (rng.normal(size=(COUNT, WIDTH)) * 10.0 ** rng.uniform(-2, 2, WIDTH)).astype(np.float32)
    inputs[:, 0] = 7.0  # the intercept
    told = inputs @ (rng.normal(size=WIDTH) / np.abs(inputs).max(axis=0)) - 0.5
    share = 1 / (1 + np.exp(-told - rng.normal(size=COUNT)))
    targets = np.stack([rng.random(COUNT) < share, share, 3 + 2 * told, told], axis=1).astype(np.float64)
    weights = (rng.random((COUNT, 4)) < 0.8) * rng.choice([1.0, 3.0], (COUNT, 4))
    return inputs, targets, weights, ("logit", "logit", "log", "log")


def alone(x, y, weights, link, ridge):
    """The slow, plain way: Newton's method on one column."""
    scale = 1 / np.sqrt(np.mean(np.square(x, dtype=np.float64), axis=0))
    x, w = x * scale, np.zeros(x.shape[1])
    mean = np.sum(weights * y) / np.sum(weights)
    for _ in range(50):
        raw = x @ w
        p = 1 / (1 + np.exp(-raw)) if link == "logit" else raw
        each = weights / (mean * (1 - mean)) if link == "logit" else weights
        curve = each * (p * (1 - p) if link == "logit" else 1.0)
        hessian = (x * curve[:, None]).T @ x + ridge * np.eye(len(w))
        w = w - np.linalg.solve(hessian, x.T @ (each * (p - y)) + ridge * w)
    return scale * w


def test_every_column_is_the_optimum_of_its_own_problem(problem):
    inputs, targets, weights, links = problem
    ridges = (1e4, 10.0, 0.1)
    for tried, columns in zip(ridges, Regressions(*problem).solve(ridges), strict=True):
        wanted = [alone(inputs, targets[:, i], weights[:, i], link, tried) for i, link in enumerate(links)]
        raw = inputs @ np.stack(wanted, axis=1)
        np.testing.assert_allclose(inputs @ columns, raw, atol=2e-4 * np.abs(raw).max())


def test_a_large_matrix_is_solved_in_its_own_precision(problem, monkeypatch):
    """Without a copy in float64, to about as many digits as float32 has."""
    (exact,) = Regressions(*problem).solve([1.0])
    monkeypatch.setattr(ridge, "_SMALL", 0)
    single = Regressions(*problem)
    assert single._x is problem[0]
    (found,) = single.solve([1.0])
    raw = problem[0] @ exact
    np.testing.assert_allclose(problem[0] @ found, raw, atol=1e-2 * np.abs(raw).max())


def test_weights_of_zero_leave_a_position_out(problem):
    inputs, targets, weights, links = problem
    spoilt = np.where(weights == 0, 1e3, targets)
    pair = [next(Regressions(inputs, given, weights, links).solve([1.0])) for given in (targets, spoilt)]
    np.testing.assert_allclose(*pair, rtol=1e-6, atol=1e-9)


def test_what_is_not_finite_is_refused(problem):
    inputs, *others = problem
    spoilt = inputs.copy()
    spoilt[3, 2] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        Regressions(spoilt, *others)
