"""The path of thresholds that learn-then-test walks, fixed on the development split (docs/method.md §5).

A path moves the threshold of one signal from strict to loose in small steps. The other thresholds and the smoother are fixed.
A path of settings that are each the best at one level of harm does worse on other data, because the walk ends at the first
step that fails. On halves of the bundled model's development split, sweeps of one signal certified 51 % fewer tokens, and
separately chosen settings 48 %.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from specexit_jax.exits.calibration import Outcomes, exit_boundaries, score, threshold_axis
from specexit_jax.exits.signals import exit_signals, open_limits

STEPS, OTHERS = 100, 8  # number of thresholds: of the swept signal, and of each other signal
_LEAST, _LEVELS = 0.3, 15  # paths are compared by their tokens at 15 levels of harm from 0.3 epsilon to epsilon


@dataclasses.dataclass(frozen=True)
class Path:
    """A path of P settings.

    smoothing: a name of `smoothers.SMOOTHERS`. swept: the signal whose threshold moves. thresholds: safest first. fixed_on: the
    outcomes that it was chosen on.
    """

    smoothing: str
    swept: str
    thresholds: Float[np.ndarray, "P S"]
    fixed_on: Outcomes | None = None


def sweeps(outcomes: Outcomes, signals: Sequence[str] | None = None) -> tuple[str, list[Float[np.ndarray, "P S"]]]:
    """(the swept signal, all paths along it).

    signals: names of the signals to exit by (None: all); an exit score is the only one. The first is swept, each combination of
    thresholds of the others gives a path, and all remaining signals have open thresholds.
    """
    names = outcomes.signals
    own = [names.index(name) for name in exit_signals(names, signals)]
    swept, axes = own[0], [np.asarray([limit]) for limit in open_limits(names)]
    for signal in own[1:]:
        axes[signal] = threshold_axis(outcomes, signal, OTHERS)
    limits = threshold_axis(outcomes, swept, STEPS)
    axes[swept] = limits[:1]
    held = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(names))
    paths = np.repeat(held[:, None], len(limits), axis=1)
    paths[:, :, swept] = limits
    return names[swept], list(paths)


@dataclasses.dataclass(frozen=True)
class Scored:
    """The results of a path's steps on the development split.

    harm: the mean harm of a problem. tokens: the mean tokens of a trace. full: the mean tokens without exits.
    """

    path: Path
    harm: Float[np.ndarray, " P"]
    tokens: Float[np.ndarray, " P"]
    full: float


def scored_paths(
    development: Mapping[str, Outcomes], signals: Sequence[str] | None = None, budget: int | None = None
) -> list[Scored]:
    """All paths of all smoothers with their results.

    development: the outcomes on the development split by the smoother's name. signals: as in `sweeps`. budget: see
    `policy.Threshold`.
    """
    found = []
    for name, outcomes in development.items():
        swept, paths = sweeps(outcomes, signals)
        scores = score(outcomes, exit_boundaries(outcomes, np.concatenate(paths), budget))
        parts = (np.split(values, len(paths)) for values in (scores.risk, scores.tokens))
        full = float(outcomes.weights @ outcomes.full_tokens)
        found += [
            Scored(Path(name, swept, path, outcomes), *both, full) for path, *both in zip(paths, *parts, strict=True)
        ]
    return found


def choose_path(scored: Sequence[Scored], epsilon: float) -> Path:
    """The path with the fewest tokens on average over levels of harm up to epsilon."""
    if not scored:
        raise ValueError("a path needs at least one smoother to choose from")
    return min(scored, key=lambda one: tokens_below(epsilon, one)).path


def tokens_below(epsilon: float, scored: Scored) -> float:
    """The mean over levels of harm of the fewest tokens at a step with at most that harm, or of `full` where there is none."""
    levels = np.linspace(_LEAST * epsilon, epsilon, _LEVELS)
    allowed = np.where(scored.harm[None, :] <= levels[:, None], scored.tokens[None, :], scored.full)
    return float(allowed.min(axis=1).mean())
