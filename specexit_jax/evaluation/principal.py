"""Principal components of many features, without a second copy of them."""

from collections.abc import Iterator

import numpy as np

COMPONENTS = 320  # all of them where there are fewer
_EXACT = 1280  # features up to which the whole covariance is made
_SPARE = 32  # further directions of the iteration, which make the last kept ones exact sooner
_ROUNDS = 6
_BLOCK = 4096  # rows that are standardised at a time


def whitening(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(centre float32 [A], projection float32 [A, P]) of features [n, A]: standardised, rotated to principal axes, each of unit
    variance. Directions without variance are not amplified.

    Beyond 1,280 features the axes are found by subspace iteration from a fixed start (Halko et al. 2011,
    arxiv.org/abs/0909.4061).
    """
    centre = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    one = np.ones_like(centre)
    square = sum(np.square(block).sum(axis=0) for block in _standard(features, centre, one, np.float64))
    scale = np.sqrt(square / len(features)).astype(np.float32) + np.float32(1e-6)
    if features.shape[1] <= _EXACT:
        square = sum(block.T @ block for block in _standard(features, centre, scale, np.float64))
        values, vectors = np.linalg.eigh(square / len(features))
    else:
        values, vectors = _leading(features, centre, scale)
    kept = np.argsort(values)[::-1][:COMPONENTS]
    projection = vectors[:, kept] / np.sqrt(np.maximum(values[kept], 1e-4 * values.max())) / scale[:, None]
    return centre, projection.astype(np.float32)


def _leading(features: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues of the covariance of the standardised features, and their vectors [A, P]."""
    width = min(COMPONENTS + _SPARE, *features.shape)
    axes = np.random.default_rng(0).standard_normal((features.shape[1], width), np.float32)
    for _ in range(_ROUNDS):
        axes = np.linalg.qr(axes)[0]
        axes = sum(block.T @ (block @ axes) for block in _standard(features, centre, scale, np.float32))
    axes = np.linalg.qr(axes)[0]
    seen = [block @ axes for block in _standard(features, centre, scale, np.float32)]
    square = sum((part.T @ part).astype(np.float64) for part in seen) / len(features)
    values, turn = np.linalg.eigh(square)
    return values, axes @ turn


def _standard(features: np.ndarray, centre: np.ndarray, scale: np.ndarray, dtype: type) -> Iterator[np.ndarray]:
    for start in range(0, len(features), _BLOCK):
        yield ((features[start : start + _BLOCK] - centre) / scale).astype(dtype)
