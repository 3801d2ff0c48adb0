"""Certificates where problems have several samples: a problem is one unit in the choice of the path and in every test."""

import time
from functools import partial

import numpy as np
import pytest
from clustered_case import RATES, drawn, true_risk, wrong_certificates
from scipy.stats import binom

from specexit_jax.exits import path
from specexit_jax.exits.calibration import exit_boundaries, score, select, task_weights
from specexit_jax.exits.harm import Betting, Binomial, harm_test
from specexit_jax.exits.problems_needed import problems_needed
from specexit_jax.exits.risk import learn_then_test
from specexit_jax.exits.units import Units, problem_of

OPEN = (0.0, -1e6, 1e6)


def test_a_trace_names_its_problem():
    assert problem_of({"id": "gcd/test/7/sample-3", "problem": "gcd/test/7"}) == "gcd/test/7"
    assert problem_of({"id": "gcd/test/7/sample-3"}) == problem_of({"id": "gcd/test/7"}) == "gcd/test/7"
    assert problem_of({"id": "a/sample-b"}) == "a/sample-b"


def test_units_count_problems_and_know_the_first_sample_in_any_order():
    units = Units.of(["p", "q", "p", "q", "r", "p"], [2, 0, 0, 1, 0, 1], ["a", "b", "a", "b", "b", "a"])
    assert units.problems == 3 and not units.one_each and units.tasks() == {"a": 1, "b": 2}
    assert units.first.tolist() == [2, 1, 4]
    np.testing.assert_allclose(units.shares, np.array([1 / 3, 1 / 2, 1 / 3, 1 / 2, 1, 1 / 3]) / 3)
    np.testing.assert_allclose(task_weights(units.task, units), np.array([2, 1.5, 2, 1.5, 3, 2]) / 12)
    kept = units.take(np.array([True, False, True, False, True, False]))
    assert kept.problems == 2 and kept.first.tolist() == [1, 2]
    assert Units.of(["p", "p"], [0, 0], ["a", "b"]).one_each, "a name in two tasks is of two problems"


def test_the_risk_is_a_mean_over_problems():
    seen = drawn(np.random.default_rng(0), 30, 4, 0.5, 0.4)["none"]
    kept = select(seen, np.arange(120) % 5 != 0)  # problems of three and of four samples
    found = score(kept, exit_boundaries(kept, np.array([OPEN])))
    harmed = (~kept.correct[:, 0]).astype(float)
    by_hand = np.mean([harmed[kept.units.problem == one].mean() for one in range(30)])
    assert found.risk[0] == pytest.approx(by_hand) and found.harmed[0] == harmed.sum()


@pytest.mark.parametrize(("shared", "test"), [(0.95, "binomial"), (0.1, "betting")])
def test_a_certificate_counts_problems(shared, test):
    """The test is chosen on the development split: the binomial test if the samples of a problem agree, else the betting test."""
    rng, limits = np.random.default_rng(1), np.linspace(1, 0, 60)
    walked = np.stack([limits, np.full(60, -1e6), np.full(60, 1e6)], axis=1)
    development, calibration = (drawn(rng, 240, 4, shared, 0.4)["none"] for _ in range(2))
    found = learn_then_test(walked, calibration, 0.1, 0.05, development=development)
    assert (found.problems, found.traces, found.test) == (240, 960, test)
    assert found.tasks == {"task 0": 80, "task 1": 80, "task 2": 80} and "mixture of tasks" in found.scope
    assert found.p_value <= 0.05 and found.risk < found.risk_upper <= 0.1
    exits = exit_boundaries(calibration, np.array([found.thresholds]))
    if test == "betting":
        assert found.harmed == score(calibration, exits).harmed[0]
        assert found.risk == pytest.approx(score(calibration, exits).risk[0])
    else:
        alone = select(calibration, calibration.units.sample == 0)
        assert found.harmed == score(alone, exit_boundaries(alone, np.array([found.thresholds]))).harmed[0]
        assert found.p_value == binom.cdf(found.harmed, 240, 0.1)


def test_one_trace_a_problem_is_tested_as_ever():
    seen = drawn(np.random.default_rng(2), 400, 1, 0.5, 0.4)["none"]
    found = learn_then_test(np.array([(0.9, -1e6, 1e6)]), seen, 0.1, 0.05, development=seen)
    assert (found.test, found.traces) == ("binomial", 400) and found.risk == found.harmed / 400
    assert found.p_value == binom.cdf(found.harmed, 400, 0.1)


def _losses(rng, draws: int, problems: int, samples: int, shared: float, risk: float) -> np.ndarray:
    """Losses [draws, problems] of a fixed number of problems from each of three tasks, whose mean risk is `risk`."""
    rate = risk * np.asarray(RATES)[np.arange(problems) % 3]
    alike = rng.random((draws, problems)) < shared
    whole, apart = rng.random((draws, problems)) < rate, rng.binomial(samples, rate, (draws, problems))
    return np.where(alike, whole, apart / samples)


@pytest.mark.parametrize(("samples", "shared"), [(4, 0.0), (4, 0.9), (8, 0.5), (8, 1.0)])
def test_bets_reject_a_true_risk_of_epsilon_in_one_draw_of_twenty_at_most(samples, shared):
    losses = _losses(np.random.default_rng(3), 1500, 400, samples, shared, 0.02)
    test = Betting.of(400, 0.02, 0.05)
    rejected = sum(test.p_value(row, 0.02) <= 0.05 for row in losses)
    assert rejected <= 92  # the 98 % quantile of the number of rejections at 5 %
    naive = binom.cdf(np.rint(losses.sum(axis=1) * samples), 400 * samples, 0.02) <= 0.05
    assert shared < 0.5 or naive.sum() > 150, "samples counted as problems"


def test_the_upper_limit_is_where_the_test_turns():
    (losses,) = _losses(np.random.default_rng(4), 1, 800, 4, 0.3, 0.01)
    test = Betting.of(800, 0.02, 0.05)
    upper = test.upper(losses, 0.05)
    assert test.p_value(losses, upper) == pytest.approx(0.05) and losses.mean() < upper < 0.04
    values = [test.p_value(losses, epsilon) for epsilon in np.linspace(0.001, 0.2, 40)]
    assert np.all(np.diff(values) <= 0)
    assert test.upper(np.ones(5), 0.05) == 1.0 and Betting.of(400, 0.02, 0.05).p_value(np.ones(400), 0.02) == 1.0


def test_bets_are_stronger_where_samples_differ_and_first_samples_where_they_agree():
    rng, strong = np.random.default_rng(5), {}
    for shared in (0.05, 0.95):
        losses = _losses(rng, 200, 3000, 8, shared, 0.006)
        betting, first = Betting.of(3000, 0.01, 0.05), binom.cdf(rng.binomial(1, losses).sum(axis=1), 3000, 0.01)
        strong[shared] = np.mean([betting.p_value(row, 0.01) <= 0.05 for row in losses]), np.mean(first <= 0.05)
    assert strong[0.05][0] > 0.9 > strong[0.05][1] and strong[0.95][1] > 0.6 > strong[0.95][0]
    units = Units.of(np.repeat(np.arange(600), 4).astype(str).tolist(), np.tile(np.arange(4), 600), ["a"] * 2400)
    assert isinstance(harm_test(units, 0.05, 0.05), Betting) and isinstance(
        harm_test(Units.single(9), 0.05, 0.05), Binomial
    )


@pytest.fixture
def short_paths(monkeypatch):
    monkeypatch.setattr(path, "STEPS", 24)
    monkeypatch.setattr(path, "OTHERS", 2)


def test_paths_chosen_and_walked_on_clustered_samples_keep_their_promise(short_paths):
    """60 problems of three tasks with eight correlated samples each: development and calibration are drawn again each
    time."""
    draws = partial(wrong_certificates, 100, 60, 8, 0.9, 0.1, 0.4)
    wrong, certified, tests = draws(clustered=True, seed=0)
    assert wrong <= 10 and certified > 80 and tests["binomial"] > 40  # 10: the 98 % quantile of their number at 5 %
    assert draws(clustered=False, seed=0)[0] > 14, "traces counted as problems"


@pytest.mark.slow
@pytest.mark.parametrize(("samples", "shared"), [(4, 0.9), (8, 0.9), (4, 0.3), (8, 0.05)])
def test_paths_on_clustered_samples_long(samples, shared):
    wrong, certified, _ = wrong_certificates(600, 400, samples, shared, 0.02, 0.1, True, seed=samples)
    assert wrong <= 41 and certified > 500  # 41: the 98 % quantile of the number at 5 %


def test_the_known_risk_is_what_is_drawn():
    seen = drawn(np.random.default_rng(6), 6000, 8, 0.0, 0.4)
    for outcomes in seen.values():
        for limits in ((0.2, 0.3, 1e6), (0.6, -1e6, 1e6)):
            found = score(outcomes, exit_boundaries(outcomes, np.array([limits]))).risk[0]
            assert found == pytest.approx(true_risk(limits, 0.4), abs=0.004)


def test_problems_needed_is_what_counting_up_gives():
    """On a grid of arguments; the test is not monotone, since one more problem can mean one more harmed problem."""
    rng = np.random.default_rng(7)
    cases = [(e, d, e * share) for e in (0.01, 0.0317, 0.2, 0.9) for d in (0.05, 0.5) for share in (0, 0.01, 0.3, 0.8)]
    cases += [(e, d, rng.uniform(0, 0.8) * e) for e in rng.uniform(0.02, 0.99, 20) for d in rng.uniform(0.01, 0.9, 2)]
    for epsilon, delta, observed in cases:
        needed = problems_needed(epsilon, delta, observed)
        counted = np.arange(1, needed + 1)
        harmed = [int(np.ceil(round(observed * int(n), 9))) for n in counted]
        assert np.flatnonzero(binom.cdf(harmed, counted, epsilon) <= delta).tolist() == [needed - 1]


def test_problems_needed_answers_at_once():
    start = time.process_time()
    found = [problems_needed(0.01, 0.05, observed) for observed in (0.0095, 0.0099, 0.00999)]
    assert found[:2] == [108103, 2683030] and found[2] > 10**8
    assert time.process_time() - start < 0.5
