"""The path that learn-then-test walks: a sweep of one threshold, chosen on the development split alone."""

import numpy as np
import pytest
from calibration_case import random_outcomes

from specexit_jax.exits.calibration import Outcomes, exit_boundaries, score, select
from specexit_jax.exits.path import choose_path, scored_paths, sweeps
from specexit_jax.exits.signals import PAPER, open_limits

OPEN = open_limits(PAPER)


@pytest.mark.parametrize("signals, swept, held", [
    (("confidence",), "confidence", 1), (("remain",), "remain", 1), (("progress", "remain"), "progress", 9),
    (("confidence", "progress", "remain"), "confidence", 81),
])  # fmt: skip
def test_a_sweep_goes_from_safe_to_open_along_one_signal(signals, swept, held):
    outcomes = random_outcomes(1, 500)
    name, paths = sweeps(outcomes, signals)
    column = ("confidence", "progress", "remain").index(swept)
    assert name == swept and min(held, 2) <= len(paths) <= held
    for path in paths:
        others = np.delete(path, column, axis=1)
        assert (others == others[0]).all() and path[-1, column] == OPEN[column]
        exits = exit_boundaries(outcomes, path)
        assert (np.diff(exits, axis=0) <= 0).all(), "a looser limit never exits later"
    unused = [i for i, n in enumerate(("confidence", "progress", "remain")) if n not in signals]
    assert all((path[:, i] == OPEN[i]).all() for path in paths for i in unused)


def test_the_path_is_the_cheapest_at_the_harms_that_matter():
    """Against a loop over all paths. A smoother that only adds noise is not chosen."""
    clear = random_outcomes(2, 1500)
    noise = np.random.default_rng(0).normal(0.0, 0.3, clear.smoothed.shape).astype(np.float32)
    noisy = Outcomes(**vars(clear) | {"smoothed": clear.smoothed + noise})
    chosen = choose_path(scored_paths({"noisy": noisy, "clear": clear}), 0.08)
    assert chosen.smoothing == "clear"
    full = float(clear.weights @ clear.full_tokens)

    def worth(path):
        found = score(clear, exit_boundaries(clear, path))
        harm = found.harmed / len(clear.full_tokens)
        levels = np.linspace(0.3 * 0.08, 0.08, 15)
        return np.mean([min([full, *found.tokens[harm <= level]]) for level in levels])

    best = min(worth(path) for path in sweeps(clear)[1])
    assert worth(chosen.thresholds) == pytest.approx(best)
    assert worth(sweeps(clear)[1][0]) > best


def test_a_budget_gives_up_at_the_first_boundary_past_it():
    outcomes = random_outcomes(3, 300)
    never = np.array([[2.0, 2.0, -1.0]])
    exits = exit_boundaries(outcomes, never, budget=60)[0]
    for n, place in enumerate(exits):
        late = np.flatnonzero(outcomes.present[n] & (outcomes.thinking[n] >= 60))
        assert place == (late[0] if len(late) else outcomes.present.shape[1])
    assert 0 < (exits < outcomes.present.shape[1]).sum() < 300


def test_selected_traces_weigh_one_in_all():
    outcomes = random_outcomes(4, 100)
    some = select(outcomes, np.arange(100) < 40)
    assert len(some.full_tokens) == 40 and some.weights.sum() == pytest.approx(1.0)
    np.testing.assert_array_equal(some.tokens, outcomes.tokens[:40])
