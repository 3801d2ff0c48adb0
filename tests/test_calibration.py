"""Thresholds by grid against a loop over traces."""

import numpy as np
import pytest
from calibration_case import random_outcomes

from specexit_jax.exits import calibration
from specexit_jax.exits.calibration import (
    Outcomes,
    choose_thresholds,
    exit_boundaries,
    score,
    task_weights,
    threshold_grid,
)
from specexit_jax.exits.signals import PAPER, never_limits, open_limits

NEVER = never_limits(PAPER)
OPEN = open_limits(PAPER)


def test_task_weights_average_tasks_not_traces():
    assert task_weights(["a", "b", "b"]) @ np.array([1.0, 0.0, 0.5]) == pytest.approx((1.0 + 0.25) / 2)


@pytest.mark.parametrize("block", [1, 2**5, 2**17])
def test_exits_and_scores_follow_a_loop_over_traces(monkeypatch, block):
    """Whatever number of boundaries is compared at a time."""
    monkeypatch.setattr(calibration, "BLOCK", block)
    outcomes = random_outcomes(0)
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
    outcomes = random_outcomes(1)
    grid = threshold_grid(outcomes, (6, 4, 3))
    seen = outcomes.smoothed[outcomes.present]
    assert len(grid) == 7 * 5 * 4
    for signal in range(3):
        inner = grid[np.abs(grid[:, signal]) < 1e5, signal]
        assert len(inner) and not np.isin(inner.astype(np.float32), seen[:, signal]).any()


def test_signals_that_are_not_asked_for_stay_open():
    grid = threshold_grid(random_outcomes(1), (6, 4, 3), ("progress",))
    assert len(grid) == 5 and len(set(grid[:, 1])) == 5
    assert (grid[:, [0, 2]] == np.array(OPEN)[[0, 2]]).all()


def test_choice_is_the_cheapest_setting_within_the_bound():
    outcomes = random_outcomes(2, traces=1000)
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
    choice = choose_thresholds(random_outcomes(3), np.array([[0.0, 0.0, 1e5]]), bound=0.0)
    assert choice.thresholds == NEVER and choice.exit_rate == 0


def test_traces_without_boundaries():
    outcomes = random_outcomes(4, most=1)
    empty = Outcomes(**{**vars(outcomes), "present": np.zeros_like(outcomes.present)})
    assert choose_thresholds(empty, threshold_grid(empty), bound=0.01).exit_rate == 0


def test_a_signal_that_is_alone_has_a_fine_grid():
    """Between two thresholds of a coarse one, the exit may go from harmless to a loss of several points."""
    outcomes = random_outcomes(5, 400)
    alone = threshold_grid(outcomes, signals=("progress",))
    assert len(alone) > 400 and set(alone[:, 0]) == {open_limits(PAPER)[0]}
    assert len(threshold_grid(outcomes)) <= 65 * 7 * 7
