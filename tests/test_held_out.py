"""Held-out evaluation equals the training step's counts, and a slow count by phase and position."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_ttt import D2T, TARGET, TARGET_CONFIG, make_draft, target_params
from training_case import rows_of, write_split

from specexit_jax.annotation.documents import AFTER, BEFORE
from specexit_jax.evaluation.held_out import HeldOut, places
from specexit_jax.evaluation.score_quality import auc, brier
from specexit_jax.exits.signals import activate
from specexit_jax.parallel.sharding import make_mesh
from specexit_jax.training.draft import DraftTrainingConfig, draft_losses
from specexit_jax.training.teacher import run_teacher
from specexit_jax.training.ttt import chain_masks, run_steps

CONFIG = DraftTrainingConfig(steps=2, temperature=0.7)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    source = rows_of(write_split(tmp_path_factory.mktemp("split"), 14))
    return [source[number] for number in range(len(source))]


def look_at(rows, size, signals="fc", mesh=None):
    draft, _ = make_draft(signals)
    return HeldOut(TARGET_CONFIG, target_params(), draft.config, D2T, CONFIG, rows, size, mesh)


@pytest.fixture(scope="module")
def batch(rows):
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("signals", ["fc", "draft"])
def test_one_look_is_the_steps_own_metrics(rows, batch, signals):
    draft, params = make_draft(signals)

    @jax.jit
    def step(params, batch):
        taught = run_teacher(TARGET, target_params(), batch, jnp.asarray(D2T), CONFIG.temperature)
        return draft_losses(params, taught, batch, draft=draft, config=CONFIG)[1]

    wanted, found = step(params, batch), look_at(rows, 3, signals)(params)  # three at a time: the last batch is padded
    for name in (
        "token_loss",
        "accept_0",
        "accept_1",
        *(f"{k}_accept_length" for k in ("simulated", "expected", "trace")),
    ):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5)
    assert found["accept_0"] > 0


def test_signals_are_scored_at_boundaries_against_agreement(rows, batch):
    draft, params = make_draft()
    device = jax.tree.map(jnp.asarray, batch)
    taught = run_teacher(TARGET, target_params(), device, jnp.asarray(D2T), CONFIG.temperature)
    signals = np.asarray(activate(run_steps(draft, params, taught.features, taught.embedded, device, 1)[1]))
    agree, confidence, progress, remain = [], [], [], []
    for row, place in np.argwhere(batch["boundary"]):
        confident, going, left = signals[row, place]
        mask, label = batch["label_mask"][row, place], batch["labels"][row, place]
        if mask[0]:
            agree.append(batch["agree"][row, place])
            confidence.append(confident)
            remain.append(abs(np.log(max(left, 1)) - np.log(max(label[2], 1))))
        progress.append(abs(going - label[1]))
    found = look_at(rows, 4)(params)
    np.testing.assert_allclose(found["confidence_auc"], auc(np.array(agree), np.array(confidence)), rtol=1e-6)
    np.testing.assert_allclose(found["confidence_brier"], brier(np.array(agree), np.array(confidence)), rtol=1e-4)
    np.testing.assert_allclose(found["progress_mae"], np.mean(progress), rtol=1e-4)
    np.testing.assert_allclose(found["log_remain_mae"], np.mean(remain), rtol=1e-4)
    assert len(progress) > len(agree) > 10  # traces that never close have no confidence, but progress
    curve = look_at(rows, 4).report(params)["calibration"]
    assert sum(curve["count"]) == len(agree)


def test_acceptance_is_split_by_phase_quarter_and_position(rows, batch):
    """Token by token: the chain of index t is counted at the position of its root, token t + 1."""
    _, params = make_draft()
    look = look_at(rows, 4)
    hits = look._see(params).hits[2]
    whole = np.asarray(chain_masks(batch, 2)).all(axis=0)
    groups = {}
    for row, segments in enumerate(batch["segment_ids"]):
        for t in np.flatnonzero(whole[row]):
            own = np.flatnonzero((segments == segments[t]) & batch["loss_mask"][row])
            length = 1 + hits[0, row, t] * (1 + hits[1, row, t])
            place = int(np.flatnonzero(own == t + 1)[0])
            phase = {BEFORE: "before", AFTER: "after", 0: "neither"}[int(batch["phase"][row, t + 1])]
            for name in (phase, f"quarter_{1 + 4 * place // len(own)}"):
                groups.setdefault(name, []).append(length)
    found = look(params)
    for name in ("before", "after", *(f"quarter_{q}" for q in (1, 2, 3, 4))):
        np.testing.assert_allclose(found[f"trace_accept_length_{name}"], np.mean(groups[name]), rtol=1e-6)
    assert np.mean(groups["before"]) > 1
    (table,) = look.report(params)["positions"]
    assert table["from"] == 0 and table["chains"] == whole.sum()
    assert places(batch).index[~whole].min() == -1


def test_sharded_looks_see_the_same(rows):
    _, params = make_draft()
    one, eight = look_at(rows, 8)(params), look_at(rows, 8, mesh=make_mesh(2, 2, 2))(params)
    assert one.keys() == eight.keys()
    for name in one:
        np.testing.assert_allclose(eight[name], one[name], rtol=1e-4, err_msg=name)


def test_rows_without_labels_give_acceptance_alone(rows):
    _, params = make_draft()
    kept = ("tokens", "loss_mask", "segment_ids", "positions")
    look = look_at([{name: row[name] for name in kept} for row in rows], 4)
    found = look(params)
    assert "simulated_accept_length_quarter_4" in found
    assert not any("confidence" in name or "before" in name for name in found)
    bare = look_at([row | {"boundary": np.zeros_like(row["boundary"])} for row in rows], 4)
    bare._look = look._look  # the same program: boundaries are counted on the host
    report = bare.report(params)
    assert "calibration" not in report and report["metrics"]["trace_accept_length"] == found["trace_accept_length"]
    assert not any("confidence" in name or "progress" in name for name in report["metrics"])
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    with pytest.raises(ValueError, match="no held-out rows"):
        look_at([], 4)
