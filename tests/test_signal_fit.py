"""Signals solved: the optimum of the training's own losses at boundaries, where that is better than what was trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_ttt import D2T, TARGET_CONFIG, make_draft, target_params
from training_case import rows_of, write_split

from specexit_jax.annotation.features import extract
from specexit_jax.data.batches import RowsInMemory
from specexit_jax.evaluation.score_quality import auc
from specexit_jax.exits.signals import PAPER, activate
from specexit_jax.models.draft_layer import DraftBundle
from specexit_jax.models.target import Target
from specexit_jax.storage.jsonl import read_jsonl
from specexit_jax.training.features import TokenReader
from specexit_jax.training.losses import signal_losses
from specexit_jax.training.signal_fit import (
    chosen_columns,
    fit_signals,
    problem_folds,
    sentence,
    signal_inputs,
    solve_signals,
)
from specexit_jax.training.signal_positions import Positions, spread_positions


def positions(inputs, labels, mask, trace=None, problem=None):
    own = np.arange(len(inputs)) if trace is None else trace
    return Positions(inputs.astype(np.float32), labels, mask, own, own if problem is None else problem, 0)


def test_the_solution_is_where_the_losses_have_no_slope():
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(400, 6)) * [1, 10, 0.1, 5, 1, 100]).astype(np.float32)
    labels = np.stack([rng.random(400) < 0.7, rng.random(400), rng.integers(0, 200, 400)], 1).astype(np.float32)
    mask = rng.random((400, 3)) < 0.8

    def loss(columns):
        raw = jnp.asarray(features) @ columns
        return jnp.sum(signal_losses(raw[None], jnp.asarray(labels)[None], jnp.asarray(mask, jnp.float32)[None]))

    solved = solve_signals(positions(features, labels, mask), ridges=[1e-6]).columns
    slope = np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(solved))) / np.abs(features).max(axis=0)[:, None]
    assert np.abs(slope).max() < 1e-4
    strong = solve_signals(positions(features, labels, mask), ridges=[1e6]).columns
    assert np.abs(strong).max() < np.abs(solved).max() / 10


WIDTH, PLACES = 64, 40
WEIGHTS = np.random.default_rng(9).normal(size=WIDTH) * 2


def correlated(traces, seed):
    """(inputs [traces, PLACES, WIDTH], agreement [traces, PLACES]): a linear model; what tells traces apart outweighs by far what
    tells the boundaries of one apart, and which answer a trace holds on to also has a cause that the inputs do not show."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(traces, 1, WIDTH))
    inputs = own + 0.3 * rng.normal(size=(traces, PLACES, WIDTH))
    hidden = 4 * rng.normal(size=(traces, 1))
    agree = rng.random((traces, PLACES)) < 1 / (1 + np.exp(-inputs @ WEIGHTS - hidden))
    return inputs.astype(np.float32), agree


def as_rows(inputs, agree):
    """One trace a row, each with a prompt of its own."""
    traces = len(inputs)
    shape = (traces, PLACES + 1)
    ahead = lambda values: np.concatenate([np.zeros_like(values[:, :1]), values], axis=1)  # noqa: E731
    labels = ahead(np.repeat(agree[..., None], 3, axis=-1).astype(np.float32))
    return RowsInMemory(
        {"tokens": np.repeat(np.arange(traces, dtype=np.int32)[:, None], shape[1], axis=1),
         "segment_ids": np.ones(shape, np.int32), "positions": np.zeros(shape, np.int32),
         "loss_mask": ahead(np.ones_like(agree)), "boundary": ahead(np.ones_like(agree)), "labels": labels,
         "label_mask": ahead(np.ones_like(labels[:, 1:])), "features": ahead(inputs)}
    )  # fmt: skip


READER = TokenReader(lambda _, batch: batch["features"], None)
BUDGET = 800


@pytest.fixture(scope="module")
def population():
    return as_rows(*correlated(600, 0))


@pytest.fixture(scope="module")
def whole_rows(population):
    """All boundaries of as few traces as fill the budget."""
    found = spread_positions(READER, population, 10**6, BUDGET // PLACES * (PLACES + 1), 0, 4)
    assert len(found.labels) == BUDGET
    return found


def quality(columns):
    """AUC of confidence on traces that were not seen."""
    inputs, agree = correlated(500, 1)
    return auc(agree.ravel(), (inputs @ columns[:, 0]).ravel())


def test_positions_spread_over_traces_tell_more(population, whole_rows):
    spread = spread_positions(READER, population, BUDGET, 10**9, 0, 4)
    assert len(spread.labels) == BUDGET and len(np.unique(spread.trace)) == 600 > 20 == len(np.unique(whole_rows.trace))
    best = quality(np.repeat(WEIGHTS[:, None], 3, axis=1))
    many, few = quality(solve_signals(spread).columns), quality(solve_signals(whole_rows).columns)
    plain = quality(solve_signals(whole_rows, ridges=[1.0]).columns)
    assert max(few, plain) < many - 0.05 and many > best - 0.02


def test_the_ridge_is_chosen_on_problems_left_out(whole_rows):
    """Folds by position have seen every trace, so they take a ridge that is too small."""
    names = ["confidence", "progress", "remain"]
    apart = solve_signals(whole_rows, names)
    leaking = solve_signals(whole_rows._replace(problem=np.arange(BUDGET)), names)
    assert apart.ridge["confidence"] > leaking.ridge["confidence"]
    inputs, agree = correlated(500, 1)
    losses = []
    for columns in (apart.columns, leaking.columns):
        raw = inputs @ columns[:, 0]
        losses.append(np.mean(np.logaddexp(0.0, raw) - raw * agree))
    assert losses[0] < losses[1] - 0.1
    path = apart.cross_validated["confidence"]
    assert apart.ridge["confidence"] == min(path, key=path.get) and len(path) > 3


def test_folds_hold_whole_problems():
    problem = np.random.default_rng(0).integers(0, 23, 500)
    folds = problem_folds(problem, 5)
    assert all(len(np.unique(folds[problem == number])) == 1 for number in range(23))
    assert sorted(np.unique(folds)) == list(range(5))
    assert len(np.unique(problem_folds(np.repeat([4, 9], 10), 5))) == 2


def test_each_signal_has_the_columns_that_are_better_held_out(whole_rows, capsys):
    """Trained columns that are right for one signal and wrong for another; without held-out rows the solution is taken."""
    held_out = as_rows(*correlated(200, 1))
    trained = np.stack([WEIGHTS / 3, -WEIGHTS, WEIGHTS], axis=1).astype(np.float32)
    names = ("confidence", "progress", "remain")
    asked = (trained, names, (BUDGET, BUDGET // PLACES * (PLACES + 1)), 0, 4)
    columns, told = fit_signals(READER, as_rows(*correlated(30, 0)), held_out, *asked)
    assert [told["signals"][name]["kept"] for name in names] == ["trained", "solved", "solved"]
    np.testing.assert_array_equal(columns[:, 0], trained[:, 0])
    losses = told["signals"]["confidence"]["held_out_loss"]
    assert losses["trained"] < losses["solved"] and "confidence trained (ridge" in sentence(told)
    alone, told = fit_signals(READER, as_rows(*correlated(30, 0)), None, *asked)
    assert {told["signals"][name]["kept"] for name in names} == {"solved"} and told["held_out"] is None
    np.testing.assert_array_equal(alone[:, 1:], columns[:, 1:])
    assert "no held-out traces" in sentence(told)


def test_a_signal_without_labels_stays_as_trained(whole_rows):
    mask = whole_rows.mask.copy()
    mask[:, 1] = False
    trained = np.ones((WIDTH, 3), np.float32)
    columns, told = chosen_columns(solve_signals(whole_rows._replace(mask=mask)), trained, None, PAPER)
    assert (
        told["progress"]["kept"] == "trained" and (columns[:, 1] == 1).all() and told["confidence"]["kept"] == "solved"
    )


def test_the_features_of_the_target_are_read(tmp_path):
    """At boundaries of packed rows, against one pass over all rows."""
    rows = rows_of(write_split(tmp_path, 12))
    draft, params = make_draft("fc")
    reader = signal_inputs(TARGET_CONFIG, target_params(), draft.config, params)
    found = spread_positions(reader, rows, 10**6, 10**9, 0, batch_size=5)
    order = np.random.default_rng(0).permutation(len(rows))  # in which rows are drawn
    whole = {name: np.stack([rows[int(i)][name] for i in order]) for name in rows[0]}
    places = tuple(np.argwhere(whole["boundary"] & (whole["label_mask"].max(axis=-1) > 0)).T)
    out = jax.jit(lambda t, p, s: Target(TARGET_CONFIG).apply({"params": target_params()}, t, p, segment_ids=s))(
        *(jnp.asarray(whole[name]) for name in ("tokens", "positions", "segment_ids"))
    )
    np.testing.assert_array_equal(found.labels, whole["labels"][places])
    np.testing.assert_allclose(found.inputs, np.asarray(out.features)[places], rtol=1e-4, atol=1e-5)
    assert len(found.labels) > 10 and 0 < found.mask[:, 0].sum() < len(found.mask)


@pytest.mark.parametrize("placed", ["fc", "draft"])
def test_the_inputs_are_what_signals_are_linear_in(tmp_path, placed):
    """Against the signals along whole traces, one in a row, as annotation extracts them."""
    folder = write_split(tmp_path, 12)
    draft, params = make_draft(placed)
    head = params["signal_head"] if placed == "draft" else params["fc"][:, -3:]
    reader = signal_inputs(TARGET_CONFIG, target_params(), draft.config, params)
    inputs = spread_positions(reader, rows_of(folder), 10**6, 10**9, 0).inputs
    traces, labels = (list(read_jsonl(folder / f"{name}.jsonl")) for name in ("traces", "labels"))
    along = extract(
        TARGET_CONFIG, target_params(), (), traces, DraftBundle(draft.config, params, jnp.asarray(D2T))
    ).signals
    wanted = np.concatenate([along[label["id"]][label["boundaries"], :3] for label in labels])
    found = np.asarray(activate(jnp.asarray(inputs @ np.asarray(head))))
    assert found.shape == wanted.shape
    order = lambda rows: rows[np.argsort(rows[:, 0])]  # noqa: E731
    np.testing.assert_allclose(order(found), order(wanted), rtol=1e-4, atol=1e-5)
