"""Thresholds by grid against a loop over traces, and the arithmetic of learn-then-test."""

import numpy as np
import pytest
from scipy.stats import binom

from specexit_jax.exits.calibration import (
    NEVER,
    Outcomes,
    choose_thresholds,
    exit_boundaries,
    score,
    task_weights,
    threshold_grid,
)
from specexit_jax.exits.risk import learn_then_test, p_value, problems_needed, safest_first, walk


def _outcomes(seed: int, traces: int = 200, most: int = 9) -> Outcomes:
    """Traces whose confidence rises once the answer is there: exits before are wrong, later ones cost tokens."""
    rng = np.random.default_rng(seed)
    present = np.arange(most)[None, :] < rng.integers(0, most + 1, traces)[:, None]
    known = np.arange(most)[None, :] >= rng.integers(0, most, traces)[:, None]
    confidence = np.clip(0.35 + 0.3 * known + 0.15 * rng.normal(size=(traces, most)), 0, 1)
    progress, remain = rng.random((traces, most)), 200 * rng.random((traces, most))
    full_correct = rng.random(traces) < 0.95
    return Outcomes(
        smoothed=np.stack([confidence, progress, remain], axis=-1).astype(np.float32),
        present=present,
        tokens=np.cumsum(rng.integers(5, 30, (traces, most)), axis=1),
        correct=known & full_correct[:, None],
        full_tokens=np.full(traces, 400),
        full_correct=full_correct,
        closed=rng.random(traces) < 0.97,
        weights=task_weights(["a"] * (traces // 4) + ["b"] * (traces - traces // 4)),
    )


def test_task_weights_average_tasks_not_traces():
    assert task_weights(["a", "b", "b"]) @ np.array([1.0, 0.0, 0.5]) == pytest.approx((1.0 + 0.25) / 2)


def test_exits_and_scores_follow_a_loop_over_traces():
    outcomes = _outcomes(0)
    settings = np.array([[0.5, 0.1, 150.0], [0.0, 0.0, 1e5], NEVER])
    exits = exit_boundaries(outcomes, settings)
    scores = score(outcomes, exits)
    for g, (c, p, r) in enumerate(settings.astype(np.float32)):
        tokens, correct, harmed = [], [], 0
        for n in range(len(outcomes.full_tokens)):
            granted = [
                m
                for m, (sc, sp, sr) in enumerate(outcomes.smoothed[n])
                if outcomes.present[n, m] and sc >= c and sp >= p and sr <= r
            ]
            assert exits[g, n] == (granted[0] if granted else 9)
            right = outcomes.correct[n, granted[0]] if granted else outcomes.full_correct[n]
            tokens.append(outcomes.tokens[n, granted[0]] if granted else outcomes.full_tokens[n])
            correct.append(right)
            harmed += not right if not outcomes.closed[n] else bool(outcomes.full_correct[n] and not right)
        assert scores.harmed[g] == harmed
        assert scores.tokens[g] == pytest.approx(outcomes.weights @ np.array(tokens))
        assert scores.accuracy[g] == pytest.approx(outcomes.weights @ np.array(correct))
    assert scores.drop[2] == 0 and scores.exit_rate[2] == 0 and scores.drop_error[2] == 0


def test_grid_keeps_clear_of_observed_values():
    outcomes = _outcomes(1)
    grid = threshold_grid(outcomes, (6, 4, 3))
    seen = outcomes.smoothed[outcomes.present]
    assert len(grid) == 7 * 5 * 4
    for signal in range(3):
        inner = grid[np.abs(grid[:, signal]) < 1e5, signal]
        assert len(inner) and not np.isin(inner.astype(np.float32), seen[:, signal]).any()


def test_choice_is_the_cheapest_setting_within_the_bound():
    outcomes = _outcomes(2, traces=1000)
    grid = threshold_grid(outcomes)
    assert len(grid) > 2000
    scores = score(outcomes, exit_boundaries(outcomes, grid))
    choice = choose_thresholds(outcomes, grid, bound=0.05)
    assert 0 < choice.drop <= 0.05
    assert choice.tokens == pytest.approx(scores.tokens[scores.drop <= 0.05].min())
    careful = choose_thresholds(outcomes, grid, bound=0.05, margin=0.02)
    assert careful == choose_thresholds(outcomes, grid, bound=0.03) and careful.tokens > choice.tokens
    wary = choose_thresholds(outcomes, grid, bound=0.05, standard_errors=2.0)
    allowed = scores.drop + 2.0 * scores.drop_error <= 0.05
    assert wary.tokens == pytest.approx(scores.tokens[allowed].min()) and wary.tokens > choice.tokens


def test_never_remains_where_nothing_qualifies():
    choice = choose_thresholds(_outcomes(3), np.array([[0.0, 0.0, 1e5]]), bound=0.0)
    assert choice.thresholds == NEVER and choice.exit_rate == 0


def test_traces_without_boundaries():
    outcomes = _outcomes(4, most=1)
    empty = Outcomes(**{**vars(outcomes), "present": np.zeros_like(outcomes.present)})
    assert choose_thresholds(empty, threshold_grid(empty), bound=0.01).exit_rate == 0


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


def test_walk_stops_at_the_first_failure():
    """0 and 2 harmed of 628 pass, 3 fails; what comes after a failure is never looked at."""
    assert walk([0, 2, 3, 0], 628, 0.01, 0.05) == 1
    assert walk([3, 0], 628, 0.01, 0.05) is None
    assert walk([], 628, 0.01, 0.05) is None


def test_certified_share_of_draws():
    """With a true risk of 0.5 %, 3,000 problems certify at least four draws of five, 6,000 at least 99 of 100."""
    harmed = np.arange(0, 80)
    for problems, least in ((3000, 0.8), (6000, 0.99)):
        passes = [walk([k], problems, 0.01, 0.05) == 0 for k in harmed]
        assert binom.pmf(harmed, problems, 0.005) @ passes >= least
    assert binom.pmf(harmed, 3000, 0.01) @ [walk([k], 3000, 0.01, 0.05) == 0 for k in harmed] <= 0.05


def test_path_is_safest_first_and_every_step_saves():
    outcomes = _outcomes(5, traces=600)
    grid = threshold_grid(outcomes, (10, 4, 4))
    scores = score(outcomes, exit_boundaries(outcomes, grid))
    path = safest_first(scores)
    assert len(path) > 3
    assert (np.diff(scores.harmed[path]) >= 0).all() and (np.diff(scores.tokens[path]) < 0).all()


def test_learn_then_test_certifies_on_another_split():
    development, calibration = _outcomes(6, 800), _outcomes(7, 2000)
    grid = threshold_grid(development, (16, 3, 3))
    path = grid[safest_first(score(development, exit_boundaries(development, grid)))]
    certificate = learn_then_test(path, calibration, epsilon=0.08, delta=0.05)
    assert certificate.step is not None and certificate.p_value <= 0.05
    harmed = score(calibration, exit_boundaries(calibration, np.array([certificate.thresholds]))).harmed[0]
    assert harmed == certificate.harmed and binom.cdf(harmed, 2000, 0.08) == pytest.approx(certificate.p_value)
    assert learn_then_test(path[-1:], calibration, 0.005, 0.05).thresholds is None


def test_too_few_problems_are_refused():
    with pytest.raises(ValueError, match="298 calibration problems can never certify.*at least 299"):
        learn_then_test(np.array([NEVER]), _outcomes(8, 298), 0.01, 0.05)
