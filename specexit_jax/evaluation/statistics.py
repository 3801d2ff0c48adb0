"""Intervals and paired comparisons: numpy on arrays, seeds fixed.

A mean over tasks weighs every task alike whatever its number of problems, so intervals are stratified by task
everywhere: a *stratum* is one task's array with a row a problem. Traces of one problem (seeds, samples) are averaged
first: one problem is one observation.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import signal, stats

from specexit_jax.exits.units import codes_of, means_of

RESAMPLES = 4000
LEVEL = 0.95
_FINEST = 2520  # differences of problems are multiples of 1 / this number, at the finest
_CHUNK = 4_000_000  # resampled rows held at once: bounds memory near 100 MB


class Estimate(NamedTuple):
    value: float
    low: float
    high: float


def by_problem(values: np.ndarray, problems: Sequence[str]) -> np.ndarray:
    """[P, ...]: values [N, ...] averaged over the traces of each problem, in the order of first appearance."""
    return np.moveaxis(means_of(np.moveaxis(np.asarray(values, np.float64), 0, -1), codes_of(problems)), -1, 0)


def strata_of(columns: np.ndarray, tasks: Sequence[str], problems: Sequence[str]) -> list[np.ndarray]:
    """[problems, C] a task: columns [N, C] averaged over the traces of each problem."""
    task, names = codes_of(tasks), np.asarray(problems, object)
    return [
        by_problem(columns[task == one], names[task == one].tolist()) for one in range(int(task.max(initial=-1)) + 1)
    ]


def wilson(successes: float, n: float, level: float = LEVEL) -> Estimate:
    """Wilson score interval of a proportion: stays in [0, 1] and keeps a width at 0 and n successes."""
    _check_count(successes, n)
    z = float(stats.norm.ppf(0.5 + level / 2))
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Estimate(p, min(p, float(max(centre - half, 0.0))), max(p, float(min(centre + half, 1.0))))


def share(values: np.ndarray, weights: np.ndarray | None = None, level: float = LEVEL) -> Estimate:
    """Interval of a share from each problem's own share in [0, 1], values [P]; weights: of the problems, default all alike.

    Wilson's with an effective number of problems (Franco, Little, Louis & Slud 2019, J. Surv. Stat. Methodol. 7): P where problems
    are all or nothing, hence `wilson` of problems then; more where their traces differ, by how much smaller the variance is. It
    is estimated beside z^2 / 2 made-up problems that are wholly right and as many that are wholly wrong, so that a share of 0
    or 1 keeps the width that P problems give.
    """
    values = np.asarray(values, np.float64)
    if weights is None and np.isin(values, (0.0, 1.0)).all():
        return wilson(int(values.sum()), len(values), level)
    own = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    own = own / own.sum()
    problems, added = 1.0 / float(own @ own), float(stats.norm.ppf(0.5 + level / 2)) ** 2 / 2
    mean = float(np.clip(own @ values, 0.0, 1.0))
    middle = (problems * mean + added) / (problems + 2 * added)
    spread = problems * float(own**2 @ np.square(values - middle)) * problems
    spread += added * ((1.0 - middle) ** 2 + middle**2)
    ratio = spread / (problems + 2 * added) / (middle * (1.0 - middle))
    effective = problems / min(ratio, 1.0)
    return wilson(mean * effective, effective, level)


def mean_of_estimates(estimates: Sequence[Estimate]) -> Estimate:
    """Mean over tasks from each task's own interval, by square-and-add (MOVER, Zou & Donner 2008).

    Keeps the asymmetry of Wilson intervals, where a bootstrap of a task without an error would claim certainty.
    """
    table = np.asarray(estimates, np.float64)
    if table.size == 0:
        raise ValueError("the mean of no estimates: give at least one task")
    value = table[:, 0].mean()
    below = np.sqrt(np.square(table[:, 0] - table[:, 1]).sum()) / len(table)
    above = np.sqrt(np.square(table[:, 2] - table[:, 0]).sum()) / len(table)
    return Estimate(float(value), float(value - below), float(value + above))


def bootstrap_means(strata: Sequence[np.ndarray], resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Means over strata of resampled column means.

    strata: one array [n_k, C] a task, rows = problems (what is resampled, whole: columns stay paired).
    Returns [resamples, C].
    """
    if not strata or any(len(stratum) == 0 for stratum in strata):
        raise ValueError("a bootstrap over no problems: every task needs at least one")
    rng = np.random.default_rng(seed)
    columns = np.shape(strata[0])[1]
    total = np.zeros((resamples, columns))
    for stratum in strata:
        values = np.asarray(stratum, np.float64)
        n = len(values)
        chunk = max(1, _CHUNK // n)
        for start in range(0, resamples, chunk):
            rows = rng.integers(n, size=(min(chunk, resamples - start), n), dtype=np.int32)
            for column in range(columns):
                total[start : start + len(rows), column] += values[:, column].take(rows).mean(axis=1)
    return total / len(strata)


def stratified_estimate(
    strata: Sequence[np.ndarray],
    statistic: Callable[[np.ndarray], np.ndarray],
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Percentile interval of a function of task-averaged column means.

    statistic: [R, C] means -> [R]; e.g. a difference (paired) or a ratio of two columns.
    A statistic that is undefined on the data (0 / 0) is nan throughout.
    """
    means = bootstrap_means(strata, resamples, seed)
    point = np.mean([np.asarray(stratum, np.float64).mean(axis=0) for stratum in strata], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(point[None])[0])
        drawn = statistic(means)
    if not np.isfinite(value):
        return Estimate(float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(drawn[np.isfinite(drawn)], [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high))


def mean_interval(values: np.ndarray, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Bootstrap interval of a plain mean, values [n]."""
    return stratified_estimate([np.asarray(values)[:, None]], lambda m: m[:, 0], level, resamples, seed)


def paired_difference(pairs: Sequence[np.ndarray], **options) -> Estimate:
    """Mean over tasks of (column 0 - column 1), resampling problems: pairs are [n_k, 2] a task."""
    return stratified_estimate(pairs, lambda m: m[:, 0] - m[:, 1], **options)


def paired_ratio(pairs: Sequence[np.ndarray], **options) -> Estimate:
    """(mean over tasks of column 0) / (mean over tasks of column 1), resampling problems."""
    return stratified_estimate(pairs, lambda m: m[:, 0] / m[:, 1], **options)


def mcnemar(harmed: int, mended: int) -> float:
    """Two-sided exact p-value of 'as many right turned wrong as wrong turned right'."""
    if harmed + mended == 0:
        return 1.0
    return float(stats.binomtest(harmed, harmed + mended).pvalue)


def sign_flips(differences: np.ndarray) -> float:
    """Two-sided exact p-value of 'the differences of problems [P], in [-1, 1], are as often of one sign as of the other'.

    Under the hypothesis each difference keeps its size and has a random sign; the p-value is the probability of a sum
    this far from 0. With one trace a problem this is McNemar's test. Differences are multiples of 1 / (seeds); of 1 /
    2520 where no smaller part fits.
    """
    apart = np.asarray(differences, np.float64)
    apart = apart[np.abs(apart) > 1e-9]
    parts = next((n for n in range(1, _FINEST) if np.allclose(apart * n, np.rint(apart * n), atol=1e-6)), _FINEST)
    sizes, counts = np.unique(np.rint(np.abs(apart) * parts).astype(np.int64), return_counts=True)
    if len(sizes) <= 1:
        return mcnemar(int((apart < 0).sum()), int((apart > 0).sum()))
    chance = np.ones(1)  # distribution of the sum of the positive ones
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        own = np.zeros(size * count + 1)
        own[::size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        chance = np.maximum(signal.convolve(chance, own), 0.0)
    sums = np.abs(2 * np.arange(len(chance)) - (len(chance) - 1))
    return float(min(1.0, chance[sums >= abs(round(float(apart.sum()) * parts))].sum()))


def resampled(problems: Sequence[str], resamples: int, seed: int = 0) -> Iterator[np.ndarray]:
    """The rows of each draw of a bootstrap that resamples whole problems; problems: of each row."""
    codes = codes_of(problems)
    rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    for drawn in np.random.default_rng(seed).integers(len(rows), size=(resamples, len(rows))):
        yield np.concatenate([rows[problem] for problem in drawn])


def _check_count(successes: float, n: float) -> None:
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: need 0 <= successes <= n and n > 0")
