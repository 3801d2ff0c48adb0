"""The training loop: dispatch a step, log the one before it, save now and then, stop on a signal or on a NaN."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from specexit_jax.checkpoint import Checkpoints
from specexit_jax.data.batches import Batches
from specexit_jax.data.packing import Rows
from specexit_jax.metrics import MetricsWriter
from specexit_jax.progress import Progress
from specexit_jax.sharding import shard_batch
from specexit_jax.training.state import TrainState

Metrics = Mapping[str, jax.Array]
StepFn = Callable[[TrainState, Any], tuple[TrainState, Metrics]]


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """When to log, save and stop; steps counted from 0, save_seconds on the wall clock. keep: checkpoints kept."""

    total_steps: int
    log_every: int = 20
    save_seconds: float = 600.0
    save_every: int = 0
    keep: int = 2


@dataclasses.dataclass(frozen=True)
class Hook:
    """run(step, state) every `every` steps and at the end; what it returns joins the metrics. It must not keep `state`."""

    every: int
    run: Callable[[int, TrainState], Mapping[str, float] | None]


class Interrupted(SystemExit):
    """A signal stopped the run after its state was saved; the exit code is 128 + signal, as the shell expects."""


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """A list that SIGTERM and SIGINT append themselves to, instead of killing the process mid-step."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous = {s: signal.signal(s, lambda number, _: received.append(number)) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _check_finite(step: int, values: Mapping[str, float], batches: Batches, workdir: Path) -> None:
    bad = [name for name in ("loss", "grad_norm") if not math.isfinite(values.get(name, 0.0))]
    if not bad:
        return
    path = workdir / f"nan_batch_{step}.npz"
    temporary = path.with_name("nan_batch.tmp.npz")
    np.savez(temporary, **batches(step))
    os.replace(temporary, path)
    raise ValueError(
        f"{' and '.join(bad)} not finite at step {step}; its batch is saved in {path}, the last checkpoint is intact"
    )


def _host(metrics: Metrics) -> dict[str, float]:
    return {name: float(value) for name, value in jax.device_get(metrics).items()}


def resume(state: TrainState, checkpoints: Checkpoints) -> tuple[TrainState, int]:
    """The newest saved state and its step, or the given one."""
    found = checkpoints.restore_latest(state)
    if found is None:
        return state, int(state.step)
    print(f"resumed from step {found[1]} in {checkpoints.folder}")
    return found


def fit(
    config: LoopConfig,
    state: TrainState,
    step_fn: StepFn,
    batches: Batches,
    workdir: Path,
    hooks: tuple[Hook, ...] = (),
    mesh: Mesh | None = None,
) -> TrainState:
    """Trains to `total_steps`, resuming from workdir/checkpoints; appends workdir/metrics.jsonl.

    `batches(step)` must depend on the step alone. With a mesh, batches are split over it by row. `step_fn` may consume
    its state. Raises ValueError on a non-finite loss (the batch saved), Interrupted after SIGTERM or SIGINT (state saved).
    """
    workdir = Path(workdir)
    with Checkpoints(workdir / "checkpoints", config.keep) as checkpoints, caught_signals() as signals:
        state, start = resume(state, checkpoints)
        writer = MetricsWriter(workdir / "metrics.jsonl", start)
        progress = Progress(config.total_steps, "step ")
        pending: tuple[int, Metrics] | None = None
        saved_at, saved_step = time.monotonic(), start
        for step in range(start, config.total_steps):
            batch: Rows = batches(step)
            state, metrics = step_fn(state, batch if mesh is None else shard_batch(batch, mesh))
            if pending is None:  # the first call has compiled: the clock of seconds_per_step starts after it
                logged_at = (time.monotonic(), start)
            else:  # the device works on `step` while the host reads the step before it
                logged_at = _log(pending, logged_at, config, batches, workdir, writer, progress)
            pending = (step, metrics)
            done = step + 1
            due = bool(config.save_every) and done % config.save_every == 0
            due |= time.monotonic() - saved_at >= config.save_seconds
            last = done == config.total_steps or bool(signals)
            if due or last:  # never save a state whose last step was not finite
                _check_finite(step, _host(metrics), batches, workdir)
                checkpoints.save(done, state)
                saved_at, saved_step = time.monotonic(), done
            for hook in hooks:
                if done % hook.every == 0 or done == config.total_steps:
                    writer.write(done, hook.run(done, state) or {})
            if signals:
                break
        if pending is not None:
            _log(pending, logged_at, dataclasses.replace(config, log_every=1), batches, workdir, writer, progress)
        if signals and saved_step < config.total_steps:
            print(f"stopped by signal {signals[0]} at step {saved_step}, saved; run the same command to go on")
            raise Interrupted(128 + signals[0])
    return state


def _log(
    pending: tuple[int, Metrics],
    logged_at: tuple[float, int],
    config: LoopConfig,
    batches: Batches,
    workdir: Path,
    writer: MetricsWriter,
    progress: Progress,
) -> tuple[float, int]:
    """Checks the finished step; writes it every log_every steps. Returns (time, steps done) of the last line written."""
    step, metrics = pending
    values = _host(metrics)
    _check_finite(step, values, batches, workdir)
    done = step + 1
    progress.update(done, f"loss {values['loss']:.4f}")
    if done % config.log_every:
        return logged_at
    now = time.monotonic()
    if done > logged_at[1]:
        values["seconds_per_step"] = (now - logged_at[0]) / (done - logged_at[1])
    writer.write(done, values)
    return now, done
