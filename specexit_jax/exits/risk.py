"""Learn-then-test: thresholds with a certified bound on the share of problems that an exit turns from right to wrong.

A path of thresholds is ordered on one split, safest first. On another split its steps are tested in this order, as long as a
test rejects "risk > epsilon". The thresholds of the last step that passed have P(risk <= epsilon) >= 1 - delta. The order was
fixed beforehand, so this fixed-sequence testing needs no correction for the number of steps. `harm` has the tests.
(docs/method.md §5; Angelopoulos et al., arXiv 2110.01052.)
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from specexit_jax.exits.calibration import Outcomes, exit_boundaries, harms
from specexit_jax.exits.harm import harm_test, p_value, risk_upper
from specexit_jax.exits.problems_needed import problems_needed

__all__ = [
    "CannotCertify", "Certificate", "learn_then_test", "p_value", "problems_needed", "require_enough", "risk_upper", "walk",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Certificate:
    """The thresholds of step `step` of the path `steps` have P(risk <= epsilon) >= 1 - delta.

    split: the split that was tested, with this number of problems and traces. path_split: the split that the path was fixed on.
    steps: the thresholds of all steps, safest first. test: a name of `harm`. harmed: at this step, the number of harmed traces
    among those that the test uses (one a problem for `binomial`). risk: their mean harm a problem. p_value: of this step.
    risk_upper: an upper confidence limit of the risk at level 1 - delta, for this step alone. tasks: the number of problems of
    each task. together: the number of certificates that were made at once; all of them hold with probability 1 - together x
    delta. scope: in words, what the certificate holds for. Fields are None in files of older versions, which do not have them.
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
    steps: tuple[tuple[float, ...], ...]
    traces: int | None = None
    test: str | None = None
    risk: float | None = None
    tasks: Mapping[str, int] | None = None
    together: int | None = None
    scope: str | None = None

    @property
    def thresholds(self) -> tuple[float, ...]:
        return self.steps[self.step]


def scope_of(delta: float, tasks: Mapping[str, int], together: int = 1) -> str:
    """In words, what a certificate on problems of these tasks holds for. together: as in `Certificate`."""
    if len(tasks) > 1:
        mixture = ", ".join(f"{task} {count}" for task, count in tasks.items())
        told = f"holds for this mixture of tasks ({mixture}), not for each of them nor for another mixture"
    else:
        told = f"holds for problems like those of {next(iter(tasks), 'the split')} alone"
    if together > 1:
        return (
            f"{told}; all {together} certificates made with it hold at once with probability {1 - together * delta:g}"
        )
    return (
        f"{told}; with probability {1 - delta:g} by itself: of several such certificates each may fail with {delta:g}"
    )


def walk(steps: int, p_value_of: Callable[[int], float], delta: float) -> int | None:
    """The last step before the first one whose p-value is above delta; None if that is the first step."""
    passed = None
    for step in range(steps):
        if p_value_of(step) > delta:
            break
        passed = step
    return passed


def require_enough(problems: int, epsilon: float, delta: float, split: str = "calibration") -> None:
    """Raises CannotCertify where so few problems could not certify even a policy that harms none of them."""
    least = problems_needed(epsilon, delta)
    if problems < least:
        raise CannotCertify(
            f"{problems} problems of {split} can never certify a risk of {epsilon:g} at delta {delta:g}: at least {least} "
            "are needed, if none is harmed"
        )


def learn_then_test(
    path: Float[np.ndarray, "P S"],
    calibration: Outcomes,
    epsilon: float,
    delta: float,
    budget: int | None = None,
    split: str = "calibration",
    path_split: str = "development",
    development: Outcomes | None = None,
    together: int = 1,
) -> Certificate:
    """Tests the steps of `path` on the calibration split, and returns the certificate of the last step that passes.

    path: thresholds, safest first, fixed on path_split. budget: see `policy.Threshold`. development: the outcomes of path_split,
    with which the test is chosen where problems have several traces (`harm.harm_test`). together: as in `Certificate`. Raises
    CannotCertify, with the number of problems that it would take, where there are too few problems, and where the first step
    does not pass.
    """
    units = calibration.units
    require_enough(units.problems, epsilon, delta, split)
    seen = None
    if development is not None and not units.one_each:
        seen = harms(development, exit_boundaries(development, path, budget)), development.units
    test = harm_test(units, epsilon, delta, seen)
    losses = test.losses(harms(calibration, exit_boundaries(calibration, path, budget)), units)
    step = walk(len(path), lambda step: test.p_value(losses[step], epsilon), delta)
    if step is None:
        raise CannotCertify(_refusal(float(losses[0].sum()), units.problems, epsilon, delta, split))
    own = losses[step]
    tasks = units.tasks()
    return Certificate(
        epsilon=epsilon,
        delta=delta,
        split=split,
        problems=units.problems,
        harmed=test.harmed(own, units),
        p_value=test.p_value(own, epsilon),
        risk_upper=test.upper(own, delta),
        path_split=path_split,
        step=step,
        steps=tuple(tuple(float(limit) for limit in limits) for limits in path),
        traces=len(units.problem),
        test=test.name,
        risk=float(own.mean()),
        tasks=tasks,
        together=together,
        scope=scope_of(delta, tasks, together),
    )


class CannotCertify(ValueError):
    """The split cannot certify any thresholds at this epsilon and delta."""


def _refusal(harmed: float, problems: int, epsilon: float, delta: float, split: str) -> str:
    share = harmed / problems
    harm = f"even the safest step of the path harms {harmed:g} of {problems} problems of {split} ({100 * share:.2f} %), which"
    if share >= epsilon:
        return f"{harm} no number of problems certifies below {epsilon:g}: raise epsilon"
    more = problems_needed(epsilon, delta, share)
    return f"{harm} is not certified below {epsilon:g} at delta {delta:g}: at this share it takes about {more} problems"
