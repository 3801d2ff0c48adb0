"""How well a score foretells a 0/1 label: ranking, error, calibration. Numpy on arrays."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from specexit_jax.evaluation.statistics import Estimate, share, wilson
from specexit_jax.exits.units import codes_of, means_of


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """P(score of a positive > score of a negative), ties counted half; nan when only one class is present."""
    labels = np.asarray(labels, bool)
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if positives == 0 or negatives == 0:
        return float("nan")
    ranks = stats.rankdata(scores)
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Pearson's, of scores or of 0/1 labels; None where one of them does not vary."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if not first.std() or not second.std():
        return None
    return float(np.corrcoef(first, second)[0, 1])


def brier(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean squared error of a probability against 0/1 labels."""
    return float(np.mean(np.square(np.asarray(probabilities, np.float64) - np.asarray(labels, np.float64))))


# left edges of bins for probabilities that are mostly near 1
NEAR_ONE = (0.0, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99, 0.997, 0.999, 0.9997, 0.9999)


class Reliability(NamedTuple):
    """Bins over [0, 1]; empty bins are left out. All arrays [bins]."""

    predicted: np.ndarray  # mean probability in the bin
    observed: np.ndarray  # frequency of the positive label
    low: np.ndarray  # interval of `observed`, by problems where they are known
    high: np.ndarray
    count: np.ndarray
    left: np.ndarray  # left edge of the bin
    error: float  # expected calibration error: count-weighted |predicted - observed| over bins of equal width
    right: np.ndarray  # right edge of the bin


def reliability(
    labels: np.ndarray,
    probabilities: np.ndarray,
    bins: int = 10,
    problems: Sequence[str] | None = None,
    edges: Sequence[float] | None = None,
) -> Reliability:
    """Frequencies beside probabilities [n]; problems: of each, what is independent (left out: every label is).

    edges: left ends of the bins, ascending from 0; default: `bins` of equal width, by which the error is in any case.
    """
    labels, probabilities = np.asarray(labels, bool), np.asarray(probabilities, np.float64)
    if len(labels) == 0:
        raise ValueError("a reliability diagram of no boundaries: annotate some traces first")
    starts = np.arange(bins) / bins if edges is None else np.asarray(edges, np.float64)
    place = np.clip(np.searchsorted(starts, probabilities, side="right") - 1, 0, len(starts) - 1)
    count = np.bincount(place, minlength=len(starts))
    kept = count > 0
    hits = np.bincount(place, weights=labels, minlength=len(starts))[kept]
    predicted = np.bincount(place, weights=probabilities, minlength=len(starts))[kept] / count[kept]
    if problems is None:
        intervals = [wilson(int(h), int(n)) for h, n in zip(hits, count[kept], strict=True)]
    else:
        codes = codes_of(problems)
        intervals = [_share_of(labels[place == one], codes[place == one]) for one in np.flatnonzero(kept)]
    observed, low, high = np.asarray(intervals, np.float64).T
    error = float(np.sum(count[kept] * np.abs(predicted - observed)) / count.sum())
    if edges is not None:
        error = reliability(labels, probabilities, bins).error
    right = np.append(starts, 1.0)[1:][kept]
    return Reliability(predicted, observed, low, high, count[kept], starts[kept], error, right)


def _share_of(labels: np.ndarray, problems: np.ndarray) -> Estimate:
    """`share` of labels, every label weighing alike."""
    codes = codes_of(problems.tolist())
    return share(means_of(labels, codes), np.bincount(codes))
