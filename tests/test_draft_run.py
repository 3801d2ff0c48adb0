"""A draft's training run: scales are folded into the saved weights, held-out rows are evaluated, packing and devices change
nothing, and a run resumes only with its own data."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_ttt import D2T, TARGET, TARGET_CONFIG, example, make_draft, target_params, teacher
from training_case import rows_of, training, write_split

from specexit_jax.data.batches import RowsInMemory
from specexit_jax.models.checkpoints.hf import load_draft
from specexit_jax.monitoring.metrics import read_metrics
from specexit_jax.parallel.sharding import make_mesh
from specexit_jax.training.draft import DraftTrainingConfig, draft_losses
from specexit_jax.training.draft_run import DraftRun, feature_scale, first_state, folded, train_draft
from specexit_jax.training.loop import LoopConfig
from specexit_jax.training.optimizer import make_optimizer
from specexit_jax.training.signal_fit import signal_inputs, solve_signals
from specexit_jax.training.signal_positions import spread_positions
from specexit_jax.training.teacher import run_teacher


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("split"), 40)


@pytest.mark.parametrize("signals", ["fc", "draft"])
def test_the_saved_draft_is_the_one_that_was_trained(signals):
    """Losses on scaled features equal those of the folded parameters on plain features."""
    draft, params = make_draft(signals)
    rows = RowsInMemory(jax.tree.map(np.asarray, example()))
    scale = jnp.asarray(feature_scale(TARGET_CONFIG, target_params(), rows, 2))
    assert scale.shape == (48,) and (np.asarray(scale) > 0).all() and np.ptp(np.asarray(scale)) > 0
    scaled = teacher().replace(features=teacher().features * scale[None, None])
    losses = functools.partial(draft_losses, batch=example(), draft=draft, config=DraftTrainingConfig(steps=2))
    seen, saved = losses(params, scaled)[0], losses(folded(params, scale), teacher())[0]
    np.testing.assert_allclose(saved, seen, rtol=2e-5)
    assert (np.abs(np.asarray(losses(params, teacher())[0] - seen)) > 1e-4).any()


def test_the_scale_is_one_over_the_root_mean_square_of_real_tokens(split):
    rows = rows_of(split)
    batch = {name: np.stack([rows[i][name] for i in range(9)]) for name in rows[0]}
    out = jax.jit(functools.partial(TARGET.apply, {"params": target_params()}))(
        batch["tokens"], batch["positions"], segment_ids=batch["segment_ids"]
    )
    real = np.asarray(out.features)[batch["segment_ids"] > 0]
    found = feature_scale(TARGET_CONFIG, target_params(), rows, 3)  # whole batches of the first 8 rows
    np.testing.assert_allclose(found, 1 / np.sqrt(np.mean(np.square(real), axis=0)), rtol=1e-5)


@pytest.mark.parametrize("signals", ["fc", "draft"])
def test_training_writes_a_draft_and_looks_at_held_out_rows(split, tmp_path, signals):
    settings, model, optimizer = training(signals, steps=3, optimizer="muon", evaluate_every=2)
    rows, seen = rows_of(split), []

    def look(params):
        seen.append(jax.tree.map(np.asarray, params))
        return {"token_loss": 1.5}

    bundle = train_draft(settings, *model, rows, optimizer, LoopConfig(3, log_every=1), tmp_path, look)
    again = load_draft(tmp_path / "draft_model")
    jax.tree.map(np.testing.assert_array_equal, again.params, bundle.params)
    reader = signal_inputs(TARGET_CONFIG, target_params(), bundle.config, bundle.params)
    solved = solve_signals(spread_positions(reader, rows, 10**6, 10**9, 0)).columns
    own = bundle.params["fc"][:, -3:] if signals == "fc" else bundle.params["signal_head"]
    np.testing.assert_allclose(own, solved, rtol=1e-3, atol=1e-5)
    steps = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "loss" in line]
    assert [len(line.keys() & {"learning_rate", "muon_learning_rate", "accept_0", "accept_1"}) for line in steps] == [
        4
    ] * 3
    looks = [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl") if "held_out_token_loss" in line]
    assert looks == [2, 3]
    width = bundle.config.hidden_size
    np.testing.assert_array_equal(seen[-1]["fc"][:, :width], bundle.params["fc"][:, :width])  # folded, as it is saved
    if signals == "draft":
        assert np.abs(seen[-1]["signal_head"] - own).max() > 1e-3


def test_signals_that_are_better_as_trained_stay(split, tmp_path, capsys):
    """On rows of other traces; the report says so, and the rest of the draft is the same."""
    settings, model, optimizer = training("fc", steps=2)
    rows, other = rows_of(split), rows_of(write_split(tmp_path / "other", 20, seed=1))
    arguments = (*model, rows, optimizer, LoopConfig(2, log_every=1))
    bundle = train_draft(settings, *arguments, tmp_path / "run", held_out=other)
    told = json.loads((tmp_path / "run" / "signal_fit.json").read_text())
    assert "signals fitted on" in capsys.readouterr().out
    plain = train_draft(dataclasses.replace(settings, signal_positions=0), *arguments, tmp_path / "plain")
    assert not (tmp_path / "plain" / "signal_fit.json").exists()
    own, trained = bundle.params["fc"], plain.params["fc"]
    width = bundle.config.hidden_size
    np.testing.assert_array_equal(own[:, :width], trained[:, :width])
    for number, name in enumerate(bundle.config.signal_names):
        found = told["signals"][name]
        losses = found["held_out_loss"]
        assert found["kept"] == min(losses, key=losses.get)
        same = np.array_equal(own[:, width + number], trained[:, width + number])
        assert same == (found["kept"] == "trained")


def test_a_run_goes_on_with_its_own_data_alone(split, tmp_path):
    settings, model, optimizer = training()
    arguments = (optimizer, LoopConfig(1, log_every=1), tmp_path)
    train_draft(settings, *model, rows_of(split), *arguments)
    with pytest.raises(ValueError, match="batch_size was 2, is 4"):
        train_draft(dataclasses.replace(settings, batch_size=4), *model, rows_of(split), *arguments)
    with pytest.raises(ValueError, match="rows was"):
        train_draft(settings, *model, rows_of(split, together=False), *arguments)
    train_draft(settings, *model, rows_of(split), *arguments)


def test_a_draft_starts_from_the_targets_head():
    settings, model, optimizer = training(init="target")
    (state, _) = first_state(settings, *model, make_optimizer(optimizer), None)
    np.testing.assert_array_equal(state.params["lm_head"], target_params()["lm_head"][:, D2T])
    np.testing.assert_array_equal(state.params["norm"]["scale"], target_params()["final_norm"]["scale"])
    with pytest.raises(ValueError, match="choose 'random', 'target' or 'builtin'"):
        DraftRun(2, 0, DraftTrainingConfig(), init="zero")


@pytest.mark.parametrize("signals", ["fc", "draft"])
def test_packing_changes_no_loss_and_no_gradient(split, signals):
    """All documents in one batch, packed and each in a row of its own."""
    draft, params = make_draft(signals)
    config = DraftTrainingConfig(steps=2, temperature=0.7)

    @jax.jit
    def losses(params, batch):
        taught = run_teacher(TARGET, target_params(), batch, jnp.asarray(D2T), 0.7)
        run = functools.partial(draft_losses, teacher=taught, batch=batch, draft=draft, config=config)
        values, pull, metrics = jax.vjp(run, params, has_aux=True)
        return values, pull(jnp.ones(4))[0], metrics

    found = []
    for together in (True, False):
        rows = rows_of(split, together=together)
        found.append(losses(params, {name: np.stack([rows[i][name] for i in range(len(rows))]) for name in rows[0]}))
    assert (np.asarray(found[0][0]) > 0).all()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6), *found)


@pytest.mark.parametrize(
    "optimizer, meshes, steps",
    [
        ("muon", ((1, 1, 1), (1, 4, 2)), 12),
        pytest.param("adamw", ((1, 1, 1), (2, 2, 2), (2, 1, 1), (1, 2, 2), (1, 1, 4)), 50, marks=pytest.mark.slow),
        pytest.param("muon", ((1, 1, 1), (1, 4, 2)), 50, marks=pytest.mark.slow),
    ],
)
def test_the_loss_curve_does_not_depend_on_the_devices(split, tmp_path, optimizer, meshes, steps):
    """Steps on 1, 2, 4 and 8 devices have the same global batches, and equal losses up to rounding."""
    settings, model, schedule = training("draft", optimizer, steps=steps, batch_size=8)
    settings = dataclasses.replace(settings, losses=dataclasses.replace(settings.losses, weighting="gradnorm"))
    curves = []
    for sizes in meshes:
        folder, devices = tmp_path / "x".join(map(str, sizes)), jax.devices()[: int(np.prod(sizes))]
        mesh = make_mesh(*sizes, devices=devices)
        train_draft(
            settings, *model, rows_of(split), schedule, LoopConfig(steps, log_every=1), folder, mesh=mesh
        )  # fmt: skip
        curves.append([line["loss"] for line in read_metrics(folder / "metrics.jsonl")])
    assert len(curves[0]) == steps and curves[0][-1] < curves[0][0]
    for curve in curves[1:]:
        np.testing.assert_allclose(curve, curves[0], atol=1e-4)


def test_a_batch_that_does_not_split_is_refused(split, tmp_path):
    settings, model, optimizer = training(batch_size=3)
    with pytest.raises(ValueError, match="3 rows does not split over data x fsdp = 8"):
        train_draft(settings, *model, rows_of(split), optimizer, LoopConfig(1), tmp_path, mesh=make_mesh(8))
