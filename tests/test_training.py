"""The training loop learns, stops, resumes exactly, and computes the same on one device and on eight."""

import functools
import io
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sharded_case import shard_tree

from specexit_jax.data.batches import Batches, RowsInMemory
from specexit_jax.data.packing import pack
from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.models.draft import init_draft
from specexit_jax.models.target import Target, init_target
from specexit_jax.monitoring.metrics import MetricsWriter, read_metrics
from specexit_jax.monitoring.progress import Progress, format_seconds
from specexit_jax.parallel.sharding import make_mesh, matching_rules, shard_batch, spec_of
from specexit_jax.parallel.tree_paths import flatten
from specexit_jax.training.interruption import Interrupted
from specexit_jax.training.lm import lm_loss, make_train_step
from specexit_jax.training.loop import Hook, LoopConfig, fit
from specexit_jax.training.optimizer import OptimizerConfig, make_optimizer, make_schedule, muon_dimensions
from specexit_jax.training.state import init_state

CONFIG = TargetConfig(
    "qwen3", 32, 16, 32, 2, 4, 2, 8, qk_norm=True, qkv_bias=True, tie_embeddings=False, capture=(0, 1, 1)
)
MODEL = Target(CONFIG)
STEPS = 12


@functools.cache
def compiled(name="adamw"):
    optimizer = make_optimizer(OptimizerConfig(name, total_steps=STEPS, warmup_steps=2))
    return optimizer, make_train_step(MODEL, optimizer)


def fresh(name="adamw"):
    # Committed to a device, as a restored state is: the step function then compiles once for both.
    return jax.device_put(_initial(name), jax.devices()[0])


@functools.cache
def _initial(name):
    return jax.tree.map(np.asarray, init_state(init_target(CONFIG, jax.random.key(0)), compiled(name)[0]))


def repeats(count=60, seed=0):
    """Documents that repeat three tokens: learnable, with no loss on the first three."""
    rng = np.random.default_rng(seed)
    make = [np.tile(rng.integers(2, 32, 3), rng.integers(2, 5)) for _ in range(count)]
    return [(ids, np.arange(len(ids)) >= 3) for ids in make]


ROWS = pack(repeats(), row_length=32)
BATCHES = Batches(RowsInMemory(ROWS), batch_size=8)


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_loss_is_the_mean_over_trained_tokens_of_each_document_apart():
    """Against every document run by itself, unpadded."""
    documents = [(ids, mask | (i % 2 == 0)) for i, (ids, mask) in enumerate(repeats(6))]  # some trained from the start
    params = init_target(CONFIG, jax.random.key(1))
    run = jax.jit(functools.partial(MODEL.apply, {"params": params}))
    losses, hits = [], []
    for ids, mask in documents:
        tokens = jnp.zeros((1, 12), jnp.int32).at[0, : len(ids)].set(ids)
        logits = run(tokens, jnp.arange(12, dtype=jnp.int32)[None]).logits[0]
        logp = np.asarray(jax.nn.log_softmax(logits))
        losses += [-logp[t - 1, ids[t]] for t in range(1, len(ids)) if mask[t]]
        hits += [np.argmax(logp[t - 1]) == ids[t] for t in range(1, len(ids)) if mask[t]]
    rows = pack(documents, row_length=20)
    batches = [{k: v[i : i + 1] for k, v in rows.items()} for i in range(len(rows["tokens"]))]
    metrics = [jax.jit(functools.partial(lm_loss, model=MODEL))(params, batch)[1] for batch in batches]
    counts = [int(m["tokens"]) for m in metrics]
    np.testing.assert_allclose(np.average([m["loss"] for m in metrics], weights=counts), np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(np.average([m["accuracy"] for m in metrics], weights=counts), np.mean(hits), rtol=1e-6)


def test_no_gradient_crosses_documents_or_reaches_back_in_time():
    params = init_target(CONFIG, jax.random.key(1))
    segments = jnp.asarray([[1] * 6 + [2] * 6], jnp.int32)
    positions = jnp.asarray([[*range(6), *range(6)]], jnp.int32)
    table = params["embed"]["embedding"]

    def loss_at(table, index):
        tokens = jnp.arange(12, dtype=jnp.int32)[None]  # token i alone reads row i
        out = MODEL.apply(
            {"params": {**params, "embed": {"embedding": table}}}, tokens, positions, segment_ids=segments
        )
        return jnp.sum(jnp.square(out.logits[0, index]))

    gradient_at = jax.jit(jax.grad(loss_at))
    for index, reads in ((8, range(6, 9)), (4, range(5))):
        gradient = gradient_at(table, index)
        touched = {int(i) for i in np.flatnonzero(np.abs(np.asarray(gradient)).sum(axis=1))}
        assert touched == set(reads)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_run_learns_and_a_stopped_run_ends_in_the_same_bits(tmp_path, name):
    step_fn = compiled(name)[1]
    config = LoopConfig(STEPS, log_every=1, save_every=5)
    whole = fit(config, fresh(name), step_fn, BATCHES, tmp_path / "whole")
    fit(LoopConfig(7, log_every=1, save_every=5), fresh(name), step_fn, BATCHES, tmp_path / "parts")
    resumed = fit(config, fresh(name), step_fn, BATCHES, tmp_path / "parts")
    assert_same(whole, resumed)
    losses = [[m["loss"] for m in read_metrics(tmp_path / run / "metrics.jsonl")] for run in ("whole", "parts")]
    assert losses[0] == losses[1] and len(losses[0]) == STEPS
    assert losses[0][-1] < losses[0][0] - 0.2


def test_a_signal_saves_and_stops_and_the_run_goes_on_from_there(tmp_path):
    step_fn = compiled()[1]

    def kill_once(step, state):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"hooked": step}

    config = LoopConfig(STEPS, log_every=1)
    with pytest.raises(Interrupted) as stopped:
        fit(config, fresh(), step_fn, BATCHES, tmp_path, hooks=(Hook(4, kill_once),))
    assert stopped.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    resumed = fit(config, fresh(), step_fn, BATCHES, tmp_path)
    assert_same(resumed, fit(config, fresh(), step_fn, BATCHES, tmp_path / "whole"))
    assert [m["step"] for m in read_metrics(tmp_path / "metrics.jsonl") if "loss" in m] == list(range(1, STEPS + 1))


def test_a_run_stops_at_the_first_loss_that_is_not_finite_and_keeps_the_batch(tmp_path):
    step_fn = compiled()[1]

    def poisoned(state, batch):
        state, metrics = step_fn(state, batch)
        at_six = state.step == jnp.int32(7)
        return state, {**metrics, "loss": jnp.where(at_six, jnp.float32(jnp.nan), metrics["loss"])}

    with pytest.raises(ValueError, match="loss not finite at step 6"):
        fit(LoopConfig(STEPS, save_every=3), fresh(), poisoned, BATCHES, tmp_path)
    with np.load(tmp_path / "bad_batch_6.npz") as saved:
        np.testing.assert_array_equal(saved["tokens"], BATCHES(6)["tokens"])
    assert max(int(f.name) for f in (tmp_path / "checkpoints").iterdir()) == 6


def test_eight_devices_train_as_one(tmp_path):
    step_fn = compiled()[1]
    losses = []
    meshes = make_mesh(devices=jax.devices()[:1]), make_mesh(data=2, fsdp=2, tensor=2)
    for folder, mesh in zip(("one", "eight"), meshes, strict=True):
        state = fit(
            LoopConfig(6, log_every=1), shard_tree(fresh(), mesh), step_fn, BATCHES, tmp_path / folder, mesh=mesh
        )
        assert len(state.params["layers_0"]["mlp"]["down"].sharding.device_set) == mesh.size
        shard = shard_batch(BATCHES(0), mesh)["tokens"].addressable_shards[0].data
        assert len(shard) == 8 // (mesh.shape["data"] * mesh.shape["fsdp"])
        losses.append([m["loss"] for m in read_metrics(tmp_path / folder / "metrics.jsonl")])
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-5)


def draft_config(signals):
    return DraftConfig(16, 16, 32, 2, 1, 8, 32, 24, signals=signals)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_every_target_leaf_has_exactly_one_sharding_rule(architecture):
    bias, norm = architecture == "qwen2", architecture == "qwen3"
    config = TargetConfig(architecture, 32, 16, 32, 6, 2, 1, 8, qkv_bias=bias, qk_norm=norm)
    state = jax.eval_shape(lambda: init_state(init_target(config, jax.random.key(0)), compiled("muon")[0]))
    assert {path: len(matching_rules(path)) for path in flatten(state)} == dict.fromkeys(flatten(state), 1)


@pytest.mark.parametrize("signals", ["fc", "draft", "none"])
def test_every_draft_leaf_has_exactly_one_sharding_rule(signals):
    state = jax.eval_shape(
        lambda: init_state(init_draft(draft_config(signals), jax.random.key(0)), compiled("muon")[0])
    )
    assert {path: len(matching_rules(path)) for path in flatten(state)} == dict.fromkeys(flatten(state), 1)


def test_an_unknown_leaf_and_an_impossible_mesh_are_refused():
    mesh = make_mesh(data=4, tensor=2)
    with pytest.raises(ValueError, match="0 sharding rules match parameter layers_0/adapter"):
        spec_of("layers_0/adapter", (4, 4), mesh)
    assert spec_of("layers_0/mlp/down", (5, 16), mesh)[0] is None  # 5 rows do not divide by 2
    with pytest.raises(ValueError, match="does not cover 8 devices"):
        make_mesh(data=3)


def test_muon_takes_the_kernels_and_leaves_the_rest_to_adam():
    params = jax.eval_shape(lambda: init_target(CONFIG, jax.random.key(0)))
    taken = jax.tree_util.tree_map_with_path(lambda path, leaf: muon_dimensions(path, leaf) is not None, params)
    names = {path.rsplit("/", 1)[-1] for path, muon in flatten(taken).items() if muon}
    assert names == {"qkv", "o", "gate_up", "down"}


def test_muon_moves_each_fused_matrix_by_an_orthogonal_step():
    """Gate and up are stored as one kernel, but updated as two: each update has singular values near the learning rate."""
    config = OptimizerConfig("muon", muon_learning_rate=1.0, warmup_steps=0, total_steps=10, weight_decay=0.0)
    optimizer = make_optimizer(config)
    params = {"mlp": {"gate_up": jnp.zeros((16, 2, 16))}}
    scales = jnp.asarray([1.0, 1e-2])[None, :, None]
    state = init_state(params, optimizer)
    gradients = {"mlp": {"gate_up": jax.random.normal(jax.random.key(0), (16, 2, 16)) * scales}}
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(gradients, state.opt_state, params)
    for part in range(2):
        singular = np.linalg.svd(np.asarray(updates["mlp"]["gate_up"][:, part]), compute_uv=False)
        assert 0.9 < np.median(singular) < 1.2 and singular.max() < 1.3


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_learning_rate_rises_and_falls_to_its_final_fraction(schedule):
    rate = make_schedule(OptimizerConfig(warmup_steps=10, total_steps=100, final_fraction=0.1, schedule=schedule), 2.0)
    values = [float(rate(jnp.int32(step))) for step in range(101)]
    np.testing.assert_allclose([values[0], values[9], values[100]], [0.2, 2.0, 0.2], rtol=1e-5)
    assert np.argmax(values) in (9, 10) and (np.diff(values[10:]) <= 0).all()


@pytest.mark.parametrize("wrong", [{"name": "sgd"}, {"schedule": "step"}, {"warmup_steps": 10, "total_steps": 10}])
def test_a_wrong_optimizer_config_is_refused(wrong):
    with pytest.raises(ValueError, match="optimizer|warmup"):
        OptimizerConfig(**wrong)


def test_metrics_drop_a_torn_line_and_name_a_corrupt_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": s, "loss": 0.5}) + "\n" for s in (1, 2, 3)) + '{"step": 4, "lo')
    MetricsWriter(path, step=2).write(3, {"loss": np.float32(0.25)})
    assert read_metrics(path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.25}]
    path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        read_metrics(path)


def test_the_time_left_leaves_compilation_out():
    now, stream = [0.0], io.StringIO()
    progress = Progress(101, "step ", every=0.0, stream=stream, clock=lambda: now[0])
    now[0] = 500.0  # compiling the first step
    progress.update(1)
    now[0] = 510.0
    progress.update(11)
    assert "step 11/101, 1 min 30 s left" in stream.getvalue()
    assert [format_seconds(s) for s in (42, 200, 7500)] == ["42 s", "3 min 20 s", "2 h 05 min"]
