"""The arithmetic of learn-then-test, and its guarantee where the true risk is known."""

import numpy as np
import pytest
from calibration_case import random_outcomes
from scipy.stats import binom, binomtest

from specexit_jax.exits.calibration import Outcomes, exit_boundaries, score
from specexit_jax.exits.path import choose_path, scored_paths
from specexit_jax.exits.risk import CannotCertify, learn_then_test, p_value, problems_needed, risk_upper, walk
from specexit_jax.exits.signals import PAPER, never_limits, open_limits

NEVER = never_limits(PAPER)
OPEN = open_limits(PAPER)


def test_problems_needed_gives_the_published_numbers():
    """299, 628 and 1,182 are exact; at 0.75 % the fewest is 4,521, and 4,640 certifies too."""
    assert [problems_needed(0.01, 0.05, risk) for risk in (0.0, 0.0025, 0.005, 0.0075)] == [299, 628, 1182, 4521]
    assert p_value(round(0.0075 * 4640), 4640, 0.01) <= 0.05


@pytest.mark.parametrize("risk", [0.0, 0.0025, 0.005])
def test_one_problem_fewer_is_too_few(risk):
    needed = problems_needed(0.01, 0.05, risk)
    harmed = int(np.ceil(risk * needed))
    assert p_value(harmed, needed, 0.01) <= 0.05 < p_value(harmed, needed - 1, 0.01)


def test_problems_needed_refuses_the_impossible():
    with pytest.raises(ValueError, match="no number of problems"):
        problems_needed(0.01, 0.05, 0.01)


def walked(harmed, problems: int) -> int | None:
    """The step where a binomial walk at epsilon 0.01 and delta 0.05 ends."""
    return walk(len(harmed), lambda step: p_value(harmed[step], problems, 0.01), 0.05)


def test_walk_stops_at_the_first_failure():
    """0 and 2 harmed of 628 pass, 3 fails. Steps after a failure are not tested."""
    assert walked([0, 2, 3, 0], 628) == 1
    assert walked([3, 0], 628) is None
    assert walked([], 628) is None


def test_certified_share_of_draws():
    """With a true risk of 0.5 %, 3,000 problems certify at least four draws of five, 6,000 at least 99 of 100."""
    harmed = np.arange(0, 80)
    for problems, least in ((3000, 0.8), (6000, 0.99)):
        passes = [walked([k], problems) == 0 for k in harmed]
        assert binom.pmf(harmed, problems, 0.005) @ passes >= least
    assert binom.pmf(harmed, 3000, 0.01) @ [walked([k], 3000) == 0 for k in harmed] <= 0.05


def test_the_upper_limit_is_exact():
    assert risk_upper(0, 299, 0.05) == pytest.approx(1 - 0.05 ** (1 / 299))
    for harmed, problems in ((3, 500), (40, 6000)):
        assert binom.cdf(harmed, problems, risk_upper(harmed, problems, 0.05)) == pytest.approx(0.05)
    assert risk_upper(5, 5, 0.05) == 1.0


def test_learn_then_test_certifies_on_another_split():
    development, calibration = random_outcomes(6, 800), random_outcomes(7, 2000)
    path = choose_path(scored_paths({"none": development}), 0.08).thresholds
    found = learn_then_test(path, calibration, epsilon=0.08, delta=0.05)
    harmed = score(calibration, exit_boundaries(calibration, np.array([found.thresholds]))).harmed[0]
    assert harmed == found.harmed and binom.cdf(harmed, 2000, 0.08) == pytest.approx(found.p_value)
    assert found.p_value <= 0.05 and 0 < found.step < len(path) - 1 and found.risk_upper <= 0.08
    after = score(calibration, exit_boundaries(calibration, path[found.step + 1 :][:1])).harmed[0]
    assert p_value(after, 2000, 0.08) > 0.05, "the next step would have passed too"
    assert (found.split, found.path_split, found.problems) == ("calibration", "development", 2000)


def test_too_few_problems_are_refused():
    with pytest.raises(CannotCertify, match="298 problems of calibration can never certify.*at least 299 are needed"):
        learn_then_test(np.array([NEVER]), random_outcomes(8, 298), 0.01, 0.05)


def test_a_path_whose_first_step_fails_is_refused_with_what_it_would_take():
    calm = random_outcomes(9, 400)
    seen = Outcomes(**vars(calm) | {"closed": np.arange(400) >= 2, "full_correct": np.arange(400) >= 2})
    with pytest.raises(CannotCertify, match=r"harms 2 of 400 problems.*0.50 %.*it takes about 1182 problems"):
        learn_then_test(np.array([NEVER]), seen, 0.01, 0.05)
    with pytest.raises(CannotCertify, match="no number of problems certifies below 0.004: raise epsilon"):
        learn_then_test(np.array([NEVER]), Outcomes(**vars(seen) | {"closed": np.arange(400) >= 2}), 0.004, 0.5)


PROBLEMS, EPSILON, DELTA = 1500, 0.02, 0.05


def _drawn(rng: np.random.Generator, bumps: bool) -> Outcomes:
    """Problems with one boundary each, whose confidence c is uniform and whose exit there harms with a probability known
    for every c: 0.1 (1 - c), or with bumps that vary along c."""
    confidence = rng.random((PROBLEMS, 1))
    harms = rng.random((PROBLEMS, 1)) < _harm(confidence, bumps)
    ones = np.ones(PROBLEMS, bool)
    return Outcomes(
        smoothed=np.concatenate([confidence, np.zeros((PROBLEMS, 2))], axis=1)[:, None].astype(np.float32),
        present=ones[:, None],
        tokens=np.full((PROBLEMS, 1), 10),
        thinking=np.full((PROBLEMS, 1), 9),
        correct=~harms,
        full_tokens=np.full(PROBLEMS, 100),
        full_correct=ones,
        closed=ones,
        weights=np.full(PROBLEMS, 1 / PROBLEMS),
    )


def _harm(confidence, bumps: bool):
    return (0.1 * (1.0 - confidence)) if not bumps else 0.05 + 0.05 * np.sin(40.0 * confidence)


def _true_risk(threshold: float, bumps: bool) -> float:
    """The integral of the harm from the threshold to 1."""
    if not bumps:
        return 0.05 * (1.0 - threshold) ** 2
    return 0.05 * (1.0 - threshold) + 0.05 / 40.0 * (np.cos(40.0 * threshold) - np.cos(40.0))


@pytest.mark.parametrize("bumps", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_certified_risk_is_above_epsilon_in_one_draw_of_twenty_at_most(bumps):
    """250 calibration splits of a population whose risk is known; 18 is the 95 % quantile of the number of failures at 5 %."""
    limits = np.linspace(0.999, 0.0, 120)
    path = np.stack([limits, np.full(120, OPEN[1]), np.full(120, OPEN[2])], axis=1)
    rng, broken, naive, certified = np.random.default_rng(11), 0, 0, 0
    for _ in range(250):
        seen = _drawn(rng, bumps)
        found = learn_then_test(path, seen, EPSILON, DELTA)
        certified += found.step > 0
        broken += _true_risk(found.thresholds[0], bumps) > EPSILON
        observed = score(seen, exit_boundaries(seen, path)).harmed / PROBLEMS
        naive += _true_risk(limits[np.flatnonzero(observed <= EPSILON)[-1]], bumps) > EPSILON
    assert broken <= 18 and certified == 250
    assert binomtest(broken, 250, 0.001).pvalue < 0.01, "so strict a test would never come near its delta"
    assert naive > 100, "the loosest step that looks safe is not"
