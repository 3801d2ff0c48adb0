"""Problems with several correlated samples, a fixed number from each task, whose risk under any thresholds is known."""

import numpy as np

from specexit_jax.evaluation.certified.certify import Goal, certify, scored
from specexit_jax.exits.calibration import Outcomes, task_weights
from specexit_jax.exits.risk import CannotCertify
from specexit_jax.exits.units import Units

RATES = (0.5, 1.0, 1.5)  # of the tasks, which weigh alike


def drawn(
    rng: np.random.Generator, problems: int, samples: int, shared: float, worst: float, clustered: bool = True
) -> dict[str, Outcomes]:
    """Two smoothers' outcomes on `problems` problems of three tasks; each trace has one boundary.

    Two smoothed confidences c and d and progress are uniform; an exit harms with probability worst x rate (1 - (c + d) / 2).
    With probability `shared` a trace takes the draw of its problem, else a draw of its own; this sets the correlation between
    samples. clustered: with False every trace is a problem of its own.
    """
    task = np.arange(problems) % len(RATES)
    fresh = rng.random((problems, samples)) >= shared
    c, d, progress, luck = (
        np.where(fresh, rng.random((problems, samples)), rng.random((problems, 1))).ravel() for _ in range(4)
    )
    rate = worst * np.repeat(np.asarray(RATES)[task], samples)
    traces = problems * samples
    tasks = [f"task {number}" for number in np.repeat(task, samples)]
    names = [str(number) for number in np.repeat(np.arange(problems), samples)]
    units = Units.of(names, np.tile(np.arange(samples), problems), tasks) if clustered else None
    ones = np.ones(traces, bool)
    found = {}
    for name, confidence in (("none", c), ("ewma", d)):
        found[name] = Outcomes(
            smoothed=np.stack([confidence, progress, np.zeros(traces)], axis=1)[:, None].astype(np.float32),
            present=ones[:, None],
            tokens=np.full((traces, 1), 10),
            thinking=np.full((traces, 1), 9),
            correct=luck[:, None] >= (rate * (1.0 - (c + d) / 2.0))[:, None],
            full_tokens=np.full(traces, 100),
            full_correct=ones,
            closed=ones,
            weights=task_weights(tasks, units),
            units=units,
        )
    return found


def true_risk(thresholds: tuple[float, float, float], worst: float) -> float:
    """The probability that an exit by these thresholds harms a trace; it is the same for both smoothers."""
    confidence, progress = np.clip(thresholds[:2], 0.0, 1.0)
    kept = 0.75 * (1.0 - confidence) - 0.25 * (1.0 - confidence**2)
    return float(worst * np.mean(RATES) * kept * (1.0 - progress))


def wrong_certificates(
    draws: int, problems: int, samples: int, shared: float, epsilon: float, worst: float, clustered: bool, seed: int
) -> tuple[int, int, dict[str, int]]:
    """(draws with a wrong certificate, draws with a certificate, how often each test was used). Every draw has a new development
    split, on which the path is chosen, and a new calibration split, on which it is tested."""
    rng, goal = np.random.default_rng(seed), Goal(epsilon, 0.05, ("confidence", "progress"))
    wrong, tests = 0, {}
    for _ in range(draws):
        development, calibration = (drawn(rng, problems, samples, shared, worst, clustered) for _ in range(2))
        try:
            _, found = certify(scored(development, goal), calibration, goal)
        except CannotCertify:
            continue
        tests[found.test] = tests.get(found.test, 0) + 1
        wrong += true_risk(found.thresholds, worst) > epsilon
    return wrong, sum(tests.values()), tests
