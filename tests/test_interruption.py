"""Signals at awkward moments: before the first step, twice, during a save; a full disk and a bad loss while saves are under way."""

import os
import signal

import jax
import numpy as np
import pytest

from specexit_jax.data.batches import Batches, RowsInMemory
from specexit_jax.data.packing import pack
from specexit_jax.models.config import TargetConfig
from specexit_jax.models.target import Target, init_target
from specexit_jax.monitoring.metrics import read_metrics
from specexit_jax.storage.checkpoint import Checkpoints
from specexit_jax.training import loop
from specexit_jax.training.guard import BadLoss
from specexit_jax.training.interruption import Interrupted
from specexit_jax.training.lm import make_train_step
from specexit_jax.training.loop import Hook, LoopConfig, fit
from specexit_jax.training.optimizer import OptimizerConfig, make_optimizer
from specexit_jax.training.state import init_state

STEPS = 10
MODEL = TargetConfig("qwen3", 32, 16, 32, 1, 4, 2, 8, qk_norm=True, tie_embeddings=False, capture=(0, 0, 0))
SAVING = LoopConfig(STEPS, save_every=3)
OPTIMIZER = make_optimizer(OptimizerConfig("adamw", total_steps=STEPS, warmup_steps=2))
STEP = make_train_step(Target(MODEL), OPTIMIZER)


@pytest.fixture(scope="module")
def first():
    """Makes the same fresh state each time: a step consumes it."""
    made = jax.jit(lambda: init_state(init_target(MODEL, jax.random.key(0)), OPTIMIZER))()
    host = jax.tree.map(np.array, made)
    return lambda: jax.device_put(host, jax.devices()[0])


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(0)
    return Batches(RowsInMemory(pack([(rng.integers(2, 32, 12), np.arange(12) >= 3) for _ in range(40)], 24)), 4)


@pytest.fixture(scope="module")
def whole(first, batches, tmp_path_factory):
    """The run that nobody stopped."""
    return fit(LoopConfig(STEPS), first(), STEP, batches, tmp_path_factory.mktemp("whole"))


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def stopped(workdir, first, batches, hooks=(), config=SAVING):
    """(exit code, saved steps) of a run that a signal stops."""
    with pytest.raises(Interrupted) as raised:
        fit(config, first(), STEP, batches, workdir, hooks)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return raised.value.code, checkpoints.steps()


def term():
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_before_the_first_step_saves_the_first_step(tmp_path, first, batches, whole):
    def ready(step):  # the first batch is requested before the first step
        if step == 0:
            term()
        return batches(step)

    # The signal arrives before the first step is started, and is handled one step later.
    assert stopped(tmp_path, first, ready) == (143, [2])
    assert_same(fit(LoopConfig(STEPS), first(), STEP, batches, tmp_path), whole)


def test_a_second_signal_changes_nothing(tmp_path, first, batches, whole, monkeypatch):
    save = Checkpoints.save

    def interrupted(self, *arguments):
        term()  # while the state is being saved for the first one
        save(self, *arguments)
        term()

    monkeypatch.setattr(loop.Checkpoints, "save", interrupted)
    hooks = (Hook(4, lambda step, _: term()),)
    code, steps = stopped(tmp_path, first, batches, hooks, LoopConfig(STEPS))
    assert (code, steps) == (143, [5])
    monkeypatch.undo()
    assert_same(fit(LoopConfig(STEPS), first(), STEP, batches, tmp_path), whole)


def test_a_signal_during_a_save_waits_for_it_and_saves_once_more(tmp_path, first, batches, whole, monkeypatch):
    under_way = []

    def look(step, _):
        if step == 3:  # saved a moment ago, in the background
            term()

    save = Checkpoints.save

    def noted(self, step, *rest):
        under_way.append(self._saving is not None)
        save(self, step, *rest)

    monkeypatch.setattr(loop.Checkpoints, "save", noted)
    assert stopped(tmp_path, first, batches, (Hook(1, look),)) == (143, [3, 4])
    assert under_way == [False, True]  # the first save was not waited for
    monkeypatch.undo()
    assert_same(fit(LoopConfig(STEPS), first(), STEP, batches, tmp_path), whole)


def test_a_leap_stops_the_run_with_its_batch_and_a_resumed_run_decides_alike(tmp_path, first, batches, monkeypatch):
    """The average of the loss is restored: a run that resumes just before a spike still detects it."""
    monkeypatch.setattr("specexit_jax.training.guard._WARMUP", 4)

    def leaping(state, batch):
        state, metrics = STEP(state, batch)
        leap = jax.numpy.where(state.step == jax.numpy.int32(7), jax.numpy.float32(20), jax.numpy.float32(1))
        return state, {**metrics, "loss": metrics["loss"] * leap}

    for save_at in (6, 4):  # in one go, then again in the same folder from step 6
        with pytest.raises(
            BadLoss, match=r"the loss of step 6 is .* over 5 times its average .* its batch is saved in"
        ):
            fit(LoopConfig(STEPS, save_every=save_at), first(), leaping, batches, tmp_path)
        with Checkpoints(tmp_path / "checkpoints") as checkpoints:
            assert checkpoints.steps()[-1] == 6
    with np.load(tmp_path / "bad_batch_6.npz") as saved:
        np.testing.assert_array_equal(saved["tokens"], batches(6)["tokens"])


def test_a_save_that_fails_in_the_background_ends_the_run_at_the_next_step(tmp_path, first, batches, monkeypatch):
    reached = []

    def fail(self):
        if self._saving and self._saving[0] == 3:
            self._saving[1].cancel()
            raise OSError("no space left")

    monkeypatch.setattr(loop.Checkpoints, "check", fail)
    with pytest.raises(OSError, match="no space left"):
        fit(
            LoopConfig(STEPS, save_every=3),
            first(),
            STEP,
            batches,
            tmp_path,
            (Hook(1, lambda s, _: reached.append(s)),),
        )
    assert reached == [1, 2, 3]


class ReadAhead:
    """Batches that can be iterated, as a pipeline with threads can."""

    def __init__(self, batches):
        self._batches, self.started = batches, []

    def __call__(self, step):
        return self._batches(step)

    def iterate(self, start):
        self.started.append(start)
        step = start
        while True:
            yield self._batches(step)
            step += 1


def test_batches_are_iterated_from_the_step_that_a_run_resumes_at(tmp_path, first, batches, whole):
    ahead = ReadAhead(batches)
    fit(LoopConfig(4), first(), STEP, ahead, tmp_path)
    assert_same(fit(LoopConfig(STEPS, log_every=1), first(), STEP, ahead, tmp_path), whole)
    assert ahead.started == [0, 4]
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert "tokens_per_second" not in lines[1] and lines[-1]["tokens_per_second"] > 0  # the first step compiled
