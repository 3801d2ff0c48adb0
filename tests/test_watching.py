"""What a run shows: speed without compilation, utilisation, spikes of the loss, TensorBoard if it is installed."""

import importlib.util
import json
import sys
import types

import numpy as np
import pytest

from specexit_jax.monitoring import metrics
from specexit_jax.monitoring.metrics import MetricsWriter, read_metrics
from specexit_jax.monitoring.progress import Progress
from specexit_jax.parallel import distributed
from specexit_jax.training.guard import BadLoss, Guard, keep_batch
from specexit_jax.training.line import step_line
from specexit_jax.training.optimizer import OptimizerConfig, schedules
from specexit_jax.training.speed import Speed, peak_flops
from specexit_jax.training.watch import Watch


def test_speed_leaves_compilation_and_evaluation_out():
    now = [0.0]
    speed = Speed(flops=3e12, peak=100e12, clock=lambda: now[0])
    now[0] = 60.0  # the first step compiled
    speed.step(1000)
    assert speed.read() == {}
    for _ in range(4):
        now[0] += 0.5
        speed.step(1000)
    with speed.aside():
        now[0] += 30.0
    values = speed.read()
    assert values == pytest.approx({"seconds_per_step": 0.5, "tokens_per_second": 2000.0, "mfu": 0.06})
    now[0] += 1.0
    speed.step(0)  # a step that does not say its tokens
    assert speed.read() == pytest.approx({"seconds_per_step": 1.0, "mfu": 0.03})


def test_utilisation_is_told_only_where_arithmetic_and_peak_are_known():
    assert [peak_flops(kind) for kind in ("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "TPU v5 lite", "TPU v5p")] == [
        989e12,
        756e12,
        197e12,
        459e12,
    ]
    assert peak_flops("cpu") is None and peak_flops("NVIDIA GeForce RTX 4090") is None
    for flops, peak in ((0.0, 1e12), (1e12, 0.0)):
        now = [0.0]
        speed = Speed(flops, peak, clock=lambda now=now: now[0])
        speed.step(10)
        now[0] = 1.0
        speed.step(10)
        assert "mfu" not in speed.read()


def losses_of_a_start(steps=400):
    """Falls from 8 to 0.1, with the noise of small batches."""
    rng = np.random.default_rng(0)
    return (8 * np.exp(-np.arange(steps) / 40) + 0.1) * np.exp(0.35 * rng.standard_normal(steps))


def test_a_normal_start_is_let_pass_and_a_leap_is_not():
    guard = Guard(5.0, {})
    for step, loss in enumerate(losses_of_a_start()):
        guard.look(step, {"loss": float(loss)})
    before = guard.notes()
    with pytest.raises(BadLoss, match=r"the loss of step 400 is 3, over 5 times its average of 0\.1"):
        guard.look(400, {"loss": 3.0})
    assert guard.notes() == before
    average = {"loss_average": 1.0, "losses_seen": 50}
    Guard(5.0, average).look(50, {"loss": 4.9})
    with pytest.raises(BadLoss, match="step 50"):
        Guard(5.0, average).look(50, {"loss": 5.1})
    Guard(0.0, before).look(400, {"loss": 1e9})  # 0: any loss
    Guard(5.0, {}).look(0, {"loss": 1e9})  # there is no average yet
    with pytest.raises(ValueError, match="spike_factor is 0.5: it must be above 1, or 0"):
        Guard(0.5, {})


@pytest.mark.parametrize("values, names", [
    ({"loss": float("nan")}, "loss"),
    ({"loss": 1.0, "grad_norm": float("inf")}, "grad_norm"),
])  # fmt: skip
def test_what_is_not_finite_is_named(values, names):
    with pytest.raises(BadLoss, match=f"^{names} not finite at step 7$"):
        Guard(0.0, {}).look(7, values)


def test_a_guard_goes_on_from_its_notes_through_json_as_if_never_stopped():
    losses = losses_of_a_start(120)
    whole = Guard(5.0, {})
    parts = Guard(5.0, {})
    for step, loss in enumerate(losses):
        whole.look(step, {"loss": float(loss)})
        parts.look(step, {"loss": float(loss)})
        parts = Guard(5.0, json.loads(json.dumps(parts.notes())))
    assert whole.notes() == parts.notes() and whole.notes()["losses_seen"] == 120


def test_every_process_keeps_its_own_rows_of_a_bad_batch(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr("jax.process_index", lambda: 1)
    path = keep_batch(tmp_path, 6, {"tokens": np.arange(4)})
    assert path.name == "bad_batch_6_process_1.npz" and list(np.load(path)["tokens"]) == [0, 1, 2, 3]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_only_the_first_process_writes_and_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(distributed, "_number", 1)
    writer = MetricsWriter(tmp_path / "run" / "metrics.jsonl")
    writer.write(1, {"loss": 1.0})
    writer.close()
    Progress(1).update(1)
    assert not (tmp_path / "run").exists() and capsys.readouterr() == ("", "")


def write_two(path):
    writer = MetricsWriter(path)
    writer.write(1, {"loss": np.float32(0.5), "note": "text"})
    writer.write(2, {"loss": 0.25})
    writer.close()
    return read_metrics(path)


def test_metrics_are_the_same_without_tensorboard(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    assert write_two(tmp_path / "metrics.jsonl") == [
        {"step": 1, "loss": 0.5, "note": "text"},
        {"step": 2, "loss": 0.25},
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_numbers_go_to_tensorboard_through_its_own_writer(tmp_path, monkeypatch):
    """With a stand-in for the package, of its interface; the next test reads real event files where it is installed."""
    seen = []

    class Writer:
        def __init__(self, folder):
            seen.append(folder)

        def add_scalar(self, tag, data, step):
            seen.append((tag, data, step))

        def flush(self):
            seen.append("flush")

        def close(self):
            seen.append("close")

    summary = types.ModuleType("tensorboard.summary")
    summary.Writer = Writer
    package = types.ModuleType("tensorboard")
    package.__spec__ = importlib.util.spec_from_loader("tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard", package)
    monkeypatch.setitem(sys.modules, "tensorboard.summary", summary)
    assert len(write_two(tmp_path / "metrics.jsonl")) == 2
    scalars = [("loss", 0.5, 1), "flush", ("loss", 0.25, 2), "flush"]
    assert seen == [str(tmp_path / "tensorboard"), *scalars, "close"]


def test_event_files_hold_what_metrics_hold(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write_two(tmp_path / "metrics.jsonl")
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.tensor_proto.float_val[0]) for event in events.Tensors("loss")] == [(1, 0.5), (2, 0.25)]


METRICS = {
    "loss": 1.23456, "accept_0": 0.71, "accept_1": 0.621, "accept_2": 0.5, "trace_accept_length": 2.345, "tokens": 1000,
    "confidence_loss": 0.4,
}  # fmt: skip


def test_the_line_of_a_step_tells_what_trainers_look_at():
    line = step_line(
        METRICS, {"learning_rate": 3e-3}, {"tokens_per_second": 5210.4}, (200, {"held_out_confidence_auc": 0.9481})
    )
    assert line == (
        "loss 1.2346, accept 0.71 0.62 0.50, 2.35 tokens a step, AUC 0.948 (held out, step 200), lr 3.00e-03, 5,210 tokens/s"
    )
    target = step_line({"loss": 1.0, "accuracy": 0.5}, {"learning_rate": 1e-3, "muon_learning_rate": 1.6e-2}, {}, None)
    assert target == "loss 1.0000, accuracy 0.500, lr 1.00e-03, muon lr 1.60e-02"
    assert step_line({"loss": 1.0}, {}, {}, (2, {"held_out_token_loss": 3.2})) == "loss 1.0000"


def test_a_watched_run_shows_and_writes_them(tmp_path, capsys):
    rates = schedules(
        OptimizerConfig("muon", learning_rate=1e-3, muon_learning_rate=1e-2, warmup_steps=2, total_steps=4)
    )
    with Watch(3, 0, 1, tmp_path, None, Guard(0.0, {}), rates=rates) as watch:
        watch.dispatched(0, METRICS)
        watch.dispatched(1, METRICS)
        watch.write(1, {"held_out_confidence_auc": 0.9})
        watch.dispatched(2, METRICS)
        watch.settle(log=True)
    first, last = capsys.readouterr().err.splitlines()
    assert "accept 0.71 0.62 0.50" in first and "lr 5.00e-04, muon lr 5.00e-03" in first and "AUC" not in first
    assert "AUC 0.900 (held out, step 1)" in last and "lr 1.00e-03, muon lr 1.00e-02" in last and "tokens/s" in last
    written = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "loss" in line]
    assert [line["learning_rate"] for line in written] == pytest.approx([5e-4, 1e-3, 1e-3])
    assert written[-1]["muon_learning_rate"] == pytest.approx(1e-2) and written[-1]["tokens_per_second"] > 0
