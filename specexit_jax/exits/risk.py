"""Learn-then-test: thresholds with a bound on the share of problems that an exit turns from right to wrong.

specexit.md section 5. A path through threshold space, ordered safest first on one split, is walked on another with
exact binomial tests while they reject "risk > epsilon"; the last that passed has P(risk <= epsilon) >= 1 - delta.
Fixed-sequence testing needs no correction for the number of steps, because the order was fixed beforehand.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import beta, binom

from specexit_jax.exits.calibration import Outcomes, exit_boundaries, score


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What P(risk <= epsilon) >= 1 - delta was shown for: step `step` of the path `steps`, thresholds safest first.

    harmed: of `problems` of `split`, at that step; risk_upper: what the risk is below with probability 1 - delta (exact
    binomial, of that step alone); path_split: where the path was fixed.
    """

    epsilon: float
    delta: float
    split: str
    problems: int
    harmed: int
    p_value: float
    risk_upper: float
    path_split: str
    step: int
    steps: tuple[tuple[float, float, float], ...]

    @property
    def thresholds(self) -> tuple[float, float, float]:
        return self.steps[self.step]


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


def risk_upper(harmed: int, problems: int, delta: float) -> float:
    """The exact one-sided upper limit of a binomial share at level 1 - delta (Clopper and Pearson)."""
    return 1.0 if harmed >= problems else float(beta.ppf(1.0 - delta, harmed + 1, problems - harmed))


def learn_then_test(
    path: Float[np.ndarray, "P 3"],
    calibration: Outcomes,
    epsilon: float,
    delta: float,
    budget: int | None = None,
    split: str = "calibration",
    path_split: str = "development",
) -> Certificate:
    """Walks `path` (safest first, fixed on path_split) on the calibration split; budget: see `policy.Threshold`.

    Raises CannotCertify, with how many problems it would take, where so few could not certify even a policy that harms
    none of them, and where the path's first step does not pass.
    """
    problems = len(calibration.full_tokens)
    least = problems_needed(epsilon, delta)
    if problems < least:
        raise CannotCertify(
            f"{problems} problems of {split} can never certify a risk of {epsilon:g} at delta {delta:g}: at least {least} "
            "are needed, if none is harmed"
        )
    harmed = score(calibration, exit_boundaries(calibration, path, budget)).harmed
    step = walk(harmed, problems, epsilon, delta)
    if step is None:
        raise CannotCertify(_refusal(int(harmed[0]), problems, epsilon, delta, split))
    count = int(harmed[step])
    return Certificate(
        epsilon=epsilon,
        delta=delta,
        split=split,
        problems=problems,
        harmed=count,
        p_value=p_value(count, problems, epsilon),
        risk_upper=risk_upper(count, problems, delta),
        path_split=path_split,
        step=step,
        steps=tuple(tuple(float(limit) for limit in limits) for limits in path),
    )


class CannotCertify(ValueError):
    """The split certifies nothing at this epsilon and delta."""


def _refusal(harmed: int, problems: int, epsilon: float, delta: float, split: str) -> str:
    share = harmed / problems
    told = f"even the safest step of the path harms {harmed} of {problems} problems of {split} ({100 * share:.2f} %), which"
    if share >= epsilon:
        return f"{told} no number of problems certifies below {epsilon:g}: raise epsilon"
    more = problems_needed(epsilon, delta, share)
    return f"{told} is not certified below {epsilon:g} at delta {delta:g}: at this share it takes about {more} problems"


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
