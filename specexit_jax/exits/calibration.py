"""Chooses thresholds on a grid, under a bound on the accuracy lost. (`risk` certifies thresholds by learn-then-test.)

Nothing is decoded here. Annotation has forced an answer at every boundary, so the outcome of any thresholds is a lookup: the
exit is at the first boundary of a trace whose smoothed signals pass them.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from specexit_jax.exits.signals import PAPER, SIGNALS, exit_signals, never_limits, open_limits
from specexit_jax.exits.units import Units, sums_of

# Number of thresholds in a grid: of the first signal, of each other one, and of one that is alone.
FIRST, OTHERS, ALONE = 64, 6, 512
CHUNK = 128  # number of settings that are scored at a time
BLOCK = 2**17  # boundaries that are compared with all thresholds at a time
LOWEST_BIT = np.array([(byte & -byte).bit_length() - 1 for byte in range(256)])


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """What an exit at every boundary of N annotated traces gives, padded to M boundaries.

    smoothed: the smoothed signals at the boundary, one column for each name in `signals`. present: False in the padding.
    tokens: all generated tokens if the exit is there, answer included. thinking: thinking tokens up to there. correct: whether
    the forced answer is right. full_tokens, full_correct: without an exit. closed: the trace closed its thinking itself and
    ended. weights: of the traces in all means; they sum to 1 (`task_weights` gives all tasks the same weight). units: the
    problem of each trace; None: every trace is a problem of its own.
    """

    smoothed: Float[np.ndarray, "N M S"]
    present: Bool[np.ndarray, "N M"]
    tokens: Int[np.ndarray, "N M"]
    thinking: Int[np.ndarray, "N M"]
    correct: Bool[np.ndarray, "N M"]
    full_tokens: Int[np.ndarray, " N"]
    full_correct: Bool[np.ndarray, " N"]
    closed: Bool[np.ndarray, " N"]
    weights: Float[np.ndarray, " N"]
    units: Units | None = None
    signals: tuple[str, ...] = PAPER

    def __post_init__(self):
        if self.units is None:
            object.__setattr__(self, "units", Units.single(len(self.full_tokens)))


@dataclasses.dataclass(frozen=True)
class Scores:
    """The results of G settings of thresholds.

    tokens, accuracy, drop, exit_rate: weighted means over traces; drop: accuracy without exits minus accuracy with them.
    drop_error: the standard error of drop, where all samples of a problem are one observation. harmed: the number of harmed
    traces (`score`). risk: the mean over problems of the share of the problem's traces that are harmed.
    """

    tokens: Float[np.ndarray, " G"]
    accuracy: Float[np.ndarray, " G"]
    drop: Float[np.ndarray, " G"]
    drop_error: Float[np.ndarray, " G"]
    harmed: Int[np.ndarray, " G"]
    exit_rate: Float[np.ndarray, " G"]
    risk: Float[np.ndarray, " G"]


@dataclasses.dataclass(frozen=True)
class ChosenThresholds:
    """The thresholds chosen on a split, one a signal, and their results there: means over its traces."""

    thresholds: tuple[float, ...]
    tokens: float
    accuracy: float
    drop: float
    exit_rate: float


def task_weights(tasks: Sequence[str], units: Units | None = None) -> Float[np.ndarray, " N"]:
    """Weights with which a mean over traces is the mean over tasks of each task's mean over its problems.

    tasks: of each trace. units: as in `Outcomes`.
    """
    units = units or Units.single(len(tasks))
    _, task = np.unique(np.asarray(tasks), return_inverse=True)
    problems = np.bincount(task[units.first])
    return 1.0 / (len(problems) * problems[task] * np.bincount(units.problem)[units.problem])


def select(outcomes: Outcomes, rows: Bool[np.ndarray, " N"]) -> Outcomes:
    """The outcomes of some traces, with weights that sum to 1 again."""
    names = [field.name for field in dataclasses.fields(Outcomes) if field.name not in ("units", "signals")]
    parts = {name: getattr(outcomes, name)[rows] for name in names}
    return Outcomes(
        **parts | {"weights": parts["weights"] / parts["weights"].sum()},
        units=outcomes.units.take(rows),
        signals=outcomes.signals,
    )


def threshold_grid(
    outcomes: Outcomes, sizes: Sequence[int] | None = None, signals: Sequence[str] | None = None
) -> Float[np.ndarray, "G S"]:
    """All combinations of each signal's thresholds: quantiles of its values at boundaries, denser at the strict end, and an
    open threshold.

    sizes: number of thresholds of each signal (None: FIRST for the first, ALONE for one that is alone, else OTHERS). signals: names
    of the signals to exit by (None: all); an exit score is the only one. The others have open thresholds only.

    Every threshold lies midway between two observed values. So rounding errors of the smoothed signals, which can differ
    between decoding and replay, do not change a decision on these traces.
    """
    names = outcomes.signals
    own = exit_signals(names, signals)
    usual = dict.fromkeys(names, OTHERS) | {names[0]: FIRST} | (dict.fromkeys(own, ALONE) if len(own) == 1 else {})
    sizes = [usual[name] for name in names] if sizes is None else sizes
    axes = [
        threshold_axis(outcomes, column, size) if name in own else np.array(open_limits([name]))
        for column, (name, size) in enumerate(zip(names, sizes, strict=True))
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(names))


def threshold_axis(outcomes: Outcomes, signal: int, size: int) -> Float[np.ndarray, " A"]:
    """At most `size` thresholds of one signal and the open one, strict to loose. signal: its column."""
    own = SIGNALS[outcomes.signals[signal]]
    seen = outcomes.smoothed[outcomes.present][:, signal]
    most = not own.at_least  # the threshold is an upper limit, so its strict end is the low one
    values = np.unique(seen.astype(np.float64))
    gaps = (values[1:] + values[:-1]) / 2
    levels = np.linspace(0.0, 1.0, size) ** 2
    wanted = np.quantile(seen, levels if most else 1.0 - levels) if len(seen) else np.zeros(0)
    inner = gaps[np.minimum(np.searchsorted(gaps, wanted), len(gaps) - 1)] if len(gaps) else np.zeros(0)
    axis = np.unique(np.append(inner, own.open_limit))
    return axis if most else axis[::-1]


def exit_boundaries(
    outcomes: Outcomes, thresholds: Float[np.ndarray, "G S"], budget: int | None = None
) -> Int[np.ndarray, "G N"]:
    """The boundary at which each trace exits under each of G settings; M where it does not exit.

    The decisions equal those of `policy.Threshold`. budget: as there, the same for all settings. Each distinct threshold of a
    signal is compared once; a setting's decisions are the bitwise AND over its signals. BLOCK boundaries are compared at a time.
    """
    traces, most = outcomes.present.shape
    limits = np.asarray(thresholds, np.float32)
    if not most:
        return np.zeros((len(limits), traces), np.int32)
    size = max(BLOCK // most, 1)
    parts = [slice(start, start + size) for start in range(0, traces, size)]
    found = [_exits_of(outcomes, rows, limits, budget) for rows in parts]
    return np.concatenate([np.zeros((len(limits), 0), np.int32), *found], axis=1)


def _exits_of(outcomes: Outcomes, traces: slice, limits: Float[np.ndarray, "G S"], budget: int | None) -> np.ndarray:
    """`exit_boundaries` of some traces."""
    present, smoothed = outcomes.present[traces], outcomes.smoothed[traces]
    packed, chosen, most = [], [], present.shape[1]
    spent = present & (outcomes.thinking[traces] >= (np.inf if budget is None else budget))
    given_up = np.packbits(spent, axis=-1, bitorder="little")[None]
    for signal, name in enumerate(outcomes.signals):
        passes = np.greater_equal if SIGNALS[name].at_least else np.less_equal
        levels, index = np.unique(limits[:, signal], return_inverse=True)
        granted = passes(smoothed[None, ..., signal], levels[:, None, None]) & present[None]
        packed.append(np.packbits(granted, axis=-1, bitorder="little"))
        chosen.append(index)
    parts = []
    for start in range(0, len(limits), CHUNK):
        rows = slice(start, start + CHUNK)
        each = [bits[index[rows]] for bits, index in zip(packed, chosen, strict=True)]
        granted = np.bitwise_and.reduce(each) | given_up
        byte = np.argmax(granted != 0, axis=-1)
        first = 8 * byte + LOWEST_BIT[np.take_along_axis(granted, byte[..., None], axis=-1)[..., 0]]
        parts.append(np.where(granted.any(axis=-1), first, most).astype(np.int32))
    return np.concatenate(parts) if parts else np.zeros((0, len(present)), np.int32)


def score(outcomes: Outcomes, exits: Int[np.ndarray, "G N"]) -> Scores:
    """The results of exits at these boundaries (M: no exit).

    A trace is harmed if full thinking is right and the exit is wrong. A trace that never closed its thinking is harmed unless
    its exit gives the right answer.
    """
    parts = [_score(outcomes, exits[start : start + CHUNK]) for start in range(0, max(len(exits), 1), CHUNK)]
    return Scores(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _score(outcomes: Outcomes, exits: Int[np.ndarray, "G N"]) -> tuple[np.ndarray, ...]:
    """The fields of `Scores` for a few settings."""
    row, exited = np.arange(exits.shape[1])[None, :], exits < outcomes.present.shape[1]
    tokens = _or_full(outcomes.tokens, outcomes.full_tokens)[row, exits]
    correct = _or_full(outcomes.correct, outcomes.full_correct)[row, exits]
    lost = outcomes.full_correct[None, :].astype(np.float64) - correct
    drop = lost @ outcomes.weights
    units, apart = outcomes.units, (lost - drop[:, None]) * outcomes.weights
    error = np.sqrt(np.square(apart if units.one_each else sums_of(apart, units.problem)).sum(axis=1))
    harmed = _harms(outcomes, correct)
    risk = harmed.sum(axis=1) / max(units.problems, 1) if units.one_each else harmed @ units.shares
    mean = [values.astype(np.float64) @ outcomes.weights for values in (tokens, correct, exited)]
    return mean[0], mean[1], drop, error, harmed.sum(axis=1), mean[2], risk


def _harms(outcomes: Outcomes, correct: Bool[np.ndarray, "G N"]) -> Bool[np.ndarray, "G N"]:
    """Which traces are harmed, from whether their answers under each setting are correct."""
    return np.where(outcomes.closed[None, :], outcomes.full_correct[None, :] & ~correct, ~correct)


def harms(outcomes: Outcomes, exits: Int[np.ndarray, "G N"]) -> Bool[np.ndarray, "G N"]:
    """Which traces are harmed (see `score`) under each setting."""
    row = np.arange(exits.shape[1])[None, :]
    return _harms(outcomes, _or_full(outcomes.correct, outcomes.full_correct)[row, exits])


def results_at(outcomes: Outcomes, exits: Int[np.ndarray, " N"]) -> tuple[np.ndarray, np.ndarray]:
    """(tokens int [N], correct bool [N]) of each trace, for the exits of one setting."""
    row = np.arange(len(exits))
    return (
        _or_full(outcomes.tokens, outcomes.full_tokens)[row, exits],
        _or_full(outcomes.correct, outcomes.full_correct)[row, exits],
    )


def _or_full(at_boundary: np.ndarray, full: np.ndarray) -> np.ndarray:
    """[N, M + 1]: the outcome at every boundary, then that of no exit."""
    return np.concatenate([at_boundary, full[:, None]], axis=1)


def choose_thresholds(
    outcomes: Outcomes,
    thresholds: Float[np.ndarray, "G S"],
    bound: float,
    margin: float = 0.0,
    standard_errors: float = 0.0,
    budget: int | None = None,
) -> ChosenThresholds:
    """The setting with the fewest mean tokens for which drop + margin + standard_errors x drop_error is at most `bound`.

    bound, margin: as fractions of accuracy (0.005 is half a point). budget: see `policy.Threshold`. Of settings with equal
    tokens the one with the smaller drop is chosen. If no setting qualifies, the result is thresholds that no signal passes.
    """
    candidates = np.concatenate([np.asarray([never_limits(outcomes.signals)]), np.asarray(thresholds, np.float64)])
    scores = score(outcomes, exit_boundaries(outcomes, candidates, budget))
    allowed = scores.drop + margin + standard_errors * scores.drop_error <= bound + 1e-12
    allowed[0] = True
    best = min(np.flatnonzero(allowed), key=lambda g: (scores.tokens[g], scores.drop[g]))
    return ChosenThresholds(
        tuple(float(value) for value in candidates[best]),
        float(scores.tokens[best]),
        float(scores.accuracy[best]),
        float(scores.drop[best]),
        float(scores.exit_rate[best]),
    )
