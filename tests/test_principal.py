"""Whitening of many features by subspace iteration, against that by the whole covariance."""

import numpy as np

from specexit_jax.evaluation import principal


def test_whitened_features_are_uncorrelated_and_of_unit_variance(monkeypatch):
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(3000, 60)) @ rng.normal(size=(60, 60)) * 10.0 ** rng.uniform(-2, 2, 60) + 5).astype(
        np.float32
    )
    monkeypatch.setattr(principal, "COMPONENTS", 12)
    monkeypatch.setattr(principal, "_BLOCK", 700)
    centre, projection = principal.whitening(features)
    exact = (features - centre) @ projection
    assert projection.shape == (60, 12)
    np.testing.assert_allclose(np.cov(exact.T), np.eye(12), atol=1e-2)
    monkeypatch.setattr(principal, "_EXACT", 10)
    other_centre, other = principal.whitening(features)
    np.testing.assert_array_equal(centre, other_centre)
    found = (features - centre) @ other
    mixed = found.T @ exact / len(features)  # the same axes, up to their sign
    np.testing.assert_allclose(np.abs(np.diag(mixed)), 1, atol=0.05)
    np.testing.assert_array_equal(other, principal.whitening(features)[1])


def test_a_constant_feature_is_not_amplified():
    features = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)
    features[:, 3] = 7.0
    centre, projection = principal.whitening(features)
    assert np.abs((features - centre) @ projection).max() < 10
