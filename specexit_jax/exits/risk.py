"""Learn-then-test: thresholds with a bound on the share of problems that an exit turns from right to wrong.

specexit.md section 5. A path through threshold space, ordered safest first on one split, is walked on another with
exact binomial tests while they reject "risk > epsilon"; the last that passed has P(risk <= epsilon) >= 1 - delta.
Fixed-sequence testing needs no correction for the number of steps, because the order was fixed beforehand.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import binom

from specexit_jax.exits.calibration import Outcomes, Scores, exit_boundaries, score


@dataclasses.dataclass(frozen=True)
class Certificate:
    """How far the walk came. thresholds is None where not even the first step of the path passed."""

    thresholds: tuple[float, float, float] | None
    step: int | None
    harmed: int
    problems: int
    p_value: float
    epsilon: float
    delta: float


def safest_first(scores: Scores) -> Int[np.ndarray, " P"]:
    """A path through the G settings of a development split: harm never falls along it, and every step saves tokens."""
    path, fewest = [], np.inf
    for setting in np.lexsort((scores.tokens, scores.harmed)):
        if scores.tokens[setting] < fewest:
            path.append(setting)
            fewest = scores.tokens[setting]
    return np.asarray(path, np.int64)


def p_value(harmed: int, problems: int, epsilon: float) -> float:
    """P(at most `harmed` of `problems`) if the risk were exactly epsilon: small values reject "risk > epsilon"."""
    return float(binom.cdf(harmed, problems, epsilon))


def walk(harmed: Sequence[int], problems: int, epsilon: float, delta: float) -> int | None:
    """The last step of the path before the first test that does not reject at level delta; None if the first fails."""
    passed = None
    for step, count in enumerate(harmed):
        if p_value(count, problems, epsilon) > delta:
            break
        passed = step
    return passed


def learn_then_test(path: Float[np.ndarray, "P 3"], calibration: Outcomes, epsilon: float, delta: float) -> Certificate:
    """Walks `path` (safest first, fixed on another split) on the calibration split.

    Raises ValueError where so few problems could not certify even a policy that harms none of them.
    """
    problems = len(calibration.full_tokens)
    least = problems_needed(epsilon, delta)
    if problems < least:
        raise ValueError(
            f"{problems} calibration problems can never certify a risk of {epsilon:g} at delta {delta:g}: "
            f"give at least {least}, or calibrate by grid without a certificate"
        )
    harmed = score(calibration, exit_boundaries(calibration, path)).harmed
    step = walk(harmed, problems, epsilon, delta)
    shown = int(harmed[step or 0]) if len(harmed) else problems
    return Certificate(
        thresholds=None if step is None else tuple(float(value) for value in path[step]),
        step=step,
        harmed=shown,
        problems=problems,
        p_value=p_value(shown, problems, epsilon),
        epsilon=epsilon,
        delta=delta,
    )


def problems_needed(epsilon: float, delta: float, observed: float = 0.0) -> int:
    """The fewest problems on which an observed risk of at least `observed` is certified below epsilon.

    A share of n problems is a whole number of them, rounded up; so a slightly larger n may fail again (one more
    problem is allowed to be harmed there). Raises ValueError unless 0 <= observed < epsilon < 1 and 0 < delta < 1.
    """
    if not (0.0 <= observed < epsilon < 1.0 and 0.0 < delta < 1.0):
        raise ValueError(
            f"no number of problems certifies: observed risk {observed:g} must lie below epsilon {epsilon:g}, "
            f"and epsilon and delta ({delta:g}) between 0 and 1"
        )
    problems, harmed = 1, 0
    while True:
        harmed = math.ceil(round(observed * problems, 9))
        if p_value(harmed, problems, epsilon) <= delta:
            return problems
        problems += 1
