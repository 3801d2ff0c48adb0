"""The path through threshold space that learn-then-test walks, fixed on the development split (docs/method.md §5).

A path moves one signal's threshold from strict to loose in small steps; the other thresholds and the smoother are fixed. The
best setting at every level of harm, chosen separately, does worse on other data: a walk ends at its first unlucky step. On
halves of the bundled model's development split, sweeps certified 51 % fewer tokens, separately chosen settings 48 %.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from specexit_jax.exits.calibration import Outcomes, exit_boundaries, score, threshold_axis
from specexit_jax.exits.signals import open_limits

STEPS, OTHERS = 100, 8  # limits of the swept signal, and of each other one that may be held
_LEAST, _LEVELS = 0.3, 15  # a path is judged by its tokens at harms from 0.3 epsilon to epsilon


@dataclasses.dataclass(frozen=True)
class Path:
    """thresholds: safest first; smoothing: a name of `smoothers.SMOOTHERS`; swept: a signal's name; fixed_on: the
    split that it was fixed on."""

    smoothing: str
    swept: str
    thresholds: Float[np.ndarray, "P S"]
    fixed_on: Outcomes | None = None


def sweeps(outcomes: Outcomes, signals: Sequence[str] | None = None) -> tuple[str, list[Float[np.ndarray, "P S"]]]:
    """The swept signal (the first of `signals`) and every path along it; signals that are not named stay open (None: all are
    named)."""
    names = outcomes.signals
    own = [names.index(name) for name in signals or names]
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
    """What every step of a path does on the development split: harm (a problem, on average) and tokens; full: the
    tokens of no exit."""

    path: Path
    harm: Float[np.ndarray, " P"]
    tokens: Float[np.ndarray, " P"]
    full: float


def scored_paths(
    development: Mapping[str, Outcomes], signals: Sequence[str] | None = None, budget: int | None = None
) -> list[Scored]:
    """All paths over smoothers and held limits, scored.

    development: a smoother's name -> what its thresholds do on the development split; budget: see `policy.Threshold`.
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
    """The path of fewest tokens at harms below epsilon."""
    if not scored:
        raise ValueError("a path needs at least one smoother to choose from")
    return min(scored, key=lambda one: _tokens_below(epsilon, one)).path


def _tokens_below(epsilon: float, scored: Scored) -> float:
    """The mean over harms up to epsilon of the fewest tokens there, those of no exit where nothing is as safe."""
    levels = np.linspace(_LEAST * epsilon, epsilon, _LEVELS)
    allowed = np.where(scored.harm[None, :] <= levels[:, None], scored.tokens[None, :], scored.full)
    return float(allowed.min(axis=1).mean())
