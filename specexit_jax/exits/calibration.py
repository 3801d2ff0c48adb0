"""Choosing thresholds by grid from replayed outcomes, under a bound on the accuracy lost (`risk`: learn-then-test).

Nothing is decoded here. Annotation has forced an answer at every boundary, so what any thresholds would have done is
a lookup: the first boundary of a trace whose smoothed signals pass.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from specexit_jax.exits.signals import PAPER, SIGNALS, never_limits, open_limits
from specexit_jax.exits.units import Units, sums_of

FIRST, OTHERS = 64, 6  # thresholds of the first signal in a grid, and of each other one
CHUNK = 128  # settings scored at once
LOWEST_BIT = np.array([(byte & -byte).bit_length() - 1 for byte in range(256)])


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """What happens at every boundary of N annotated traces, padded to M boundaries.

    smoothed: signals as the policy sees them at the boundary, one column for each name in `signals`; present: False in the
    padding; tokens: generated tokens in all after an exit there; thinking: tokens thought by then; correct: the forced answer
    is right; full_*: without an exit; closed: the trace closed its thinking itself and ended; weights: of the traces in every
    mean, summing to 1 (task_weights: tasks count alike); units: which problem each is a sample of (left out: each of its
    own).
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
    """Of G settings: means over traces, the standard error of the accuracy drop (a problem's samples are one observation),
    traces that count as harmed, and risk, the mean over problems of the share of its traces that are."""

    tokens: Float[np.ndarray, " G"]
    accuracy: Float[np.ndarray, " G"]
    drop: Float[np.ndarray, " G"]
    drop_error: Float[np.ndarray, " G"]
    harmed: Int[np.ndarray, " G"]
    exit_rate: Float[np.ndarray, " G"]
    risk: Float[np.ndarray, " G"]


@dataclasses.dataclass(frozen=True)
class Choice:
    """The thresholds chosen on a split and what they did there."""

    thresholds: tuple[float, ...]
    tokens: float
    accuracy: float
    drop: float
    exit_rate: float


def task_weights(tasks: Sequence[str], units: Units | None = None) -> Float[np.ndarray, " N"]:
    """Weights under which a mean over traces is the mean over tasks of each task's mean over its problems; units: as in
    `Outcomes`."""
    units = units or Units.single(len(tasks))
    _, task = np.unique(np.asarray(tasks), return_inverse=True)
    problems = np.bincount(task[units.first])
    return 1.0 / (len(problems) * problems[task] * np.bincount(units.problem)[units.problem])


def select(outcomes: Outcomes, rows: Bool[np.ndarray, " N"]) -> Outcomes:
    """Some of the traces; their weights sum to 1 again."""
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
    """Thresholds at quantiles of the signals seen at boundaries, denser at the strict end, and each one left open.

    sizes: thresholds of each signal (None: FIRST, then OTHERS). signals: which of them to exit by (None: all); the others
    stay open.

    Every threshold lies midway between two observed values: a rounding error of the smoothed signal, which decoding
    and replay need not share, then never tips a decision on these traces.
    """
    names = outcomes.signals
    sizes = (FIRST, *[OTHERS] * (len(names) - 1)) if sizes is None else sizes
    axes = [
        threshold_axis(outcomes, column, size) if signals is None or name in signals else np.array(open_limits([name]))
        for column, (name, size) in enumerate(zip(names, sizes, strict=True))
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(names))


def threshold_axis(outcomes: Outcomes, signal: int, size: int) -> Float[np.ndarray, " A"]:
    """At most `size` thresholds of one signal, by its column, and the open one, safest first."""
    own = SIGNALS[outcomes.signals[signal]]
    seen, most = (
        outcomes.smoothed[outcomes.present][:, signal],
        not own.at_least,
    )  # at most: the strict end is the low one
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
    """The boundary at which each trace exits under each setting, M where it does not. Exactly `policy.Threshold`.

    budget: as there, of all settings. Each distinct limit of a signal is compared once; a setting is then the AND of
    a row of bits for each.
    """
    traces, most = outcomes.present.shape
    limits = np.asarray(thresholds, np.float32)
    if not most:
        return np.zeros((len(limits), traces), np.int32)
    packed, chosen = [], []
    spent = outcomes.present & (outcomes.thinking >= (np.inf if budget is None else budget))
    given_up = np.packbits(spent, axis=-1, bitorder="little")[None]
    for signal, name in enumerate(outcomes.signals):
        passes = np.greater_equal if SIGNALS[name].at_least else np.less_equal
        levels, index = np.unique(limits[:, signal], return_inverse=True)
        granted = passes(outcomes.smoothed[None, ..., signal], levels[:, None, None]) & outcomes.present[None]
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
    return np.concatenate(parts) if parts else np.zeros((0, traces), np.int32)


def score(outcomes: Outcomes, exits: Int[np.ndarray, "G N"]) -> Scores:
    """Means over traces of exiting at `exits`.

    A trace is harmed if full thinking is right and the exit is wrong. One that never closed its thinking counts as a
    failure: harmed unless an exit gave it a right answer.
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
    return np.where(outcomes.closed[None, :], outcomes.full_correct[None, :] & ~correct, ~correct)


def harms(outcomes: Outcomes, exits: Int[np.ndarray, "G N"]) -> Bool[np.ndarray, "G N"]:
    """Which traces count as harmed (see `score`) under each setting."""
    row = np.arange(exits.shape[1])[None, :]
    return _harms(outcomes, _or_full(outcomes.correct, outcomes.full_correct)[row, exits])


def taken(outcomes: Outcomes, exits: Int[np.ndarray, " N"]) -> tuple[np.ndarray, np.ndarray]:
    """(tokens int [N], correct bool [N]) of each trace under one setting's exits."""
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
) -> Choice:
    """The setting of fewest mean tokens whose drop + margin + standard_errors x its error is at most `bound`.

    bound, margin: fractions of accuracy (0.005 is half a point); budget: see `policy.Threshold`. Limits that no
    signal passes always qualify and are what remains if nothing else does. Among equal tokens the smaller drop wins.
    """
    candidates = np.concatenate([np.asarray([never_limits(outcomes.signals)]), np.asarray(thresholds, np.float64)])
    scores = score(outcomes, exit_boundaries(outcomes, candidates, budget))
    allowed = scores.drop + margin + standard_errors * scores.drop_error <= bound + 1e-12
    allowed[0] = True
    best = min(np.flatnonzero(allowed), key=lambda g: (scores.tokens[g], scores.drop[g]))
    return Choice(
        tuple(float(value) for value in candidates[best]),
        float(scores.tokens[best]),
        float(scores.accuracy[best]),
        float(scores.drop[best]),
        float(scores.exit_rate[best]),
    )
