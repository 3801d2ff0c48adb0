"""The training loop: dispatches a step, reads the metrics of the step before it, saves in the background, and stops on
a signal or a bad loss."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from specexit_jax.data.batches import Batches
from specexit_jax.data.packing import Rows
from specexit_jax.parallel.distributed import Agreement, barrier, is_first
from specexit_jax.parallel.sharding import shard_batch
from specexit_jax.storage.checkpoint import Checkpoints
from specexit_jax.training.guard import Guard
from specexit_jax.training.interruption import Interrupted, caught_signals
from specexit_jax.training.state import TrainState
from specexit_jax.training.watch import Metrics, Watch

StepFn = Callable[[TrainState, Any], tuple[TrainState, Metrics]]


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """When to log, save and stop. Steps count from 0; save_seconds is wall time. keep: checkpoints kept.

    spike_factor: a loss above this multiple of its average ends the run; 0: no limit. flops_per_step: model FLOPs over
    all devices; 0: not known.
    """

    total_steps: int
    log_every: int = 20
    save_seconds: float = 600.0
    save_every: int = 0
    keep: int = 2
    spike_factor: float = 5.0
    flops_per_step: float = 0.0


@dataclasses.dataclass(frozen=True)
class Hook:
    """run(step, state), called every `every` steps and at the end; its result is added to the metrics. It must not keep
    `state`."""

    every: int
    run: Callable[[int, TrainState], Mapping[str, float] | None]


def fit(
    config: LoopConfig,
    state: TrainState,
    step_fn: StepFn,
    batches: Batches,
    workdir: Path,
    hooks: tuple[Hook, ...] = (),
    mesh: Mesh | None = None,
    rates: Mapping[str, Callable[[int], Any]] | None = None,
) -> TrainState:
    """Trains to `total_steps`, resuming from workdir/checkpoints; appends workdir/metrics.jsonl.

    `batches(step)` must depend on the step alone. If it has `iterate(start)`, an iterator over the same batches, that
    is read instead. rates: learning rates by name, shown and logged. With a mesh, batches are split over it by row;
    every process passes its own rows of the global batch. `step_fn` may consume its state, and its metrics are the same
    in every process. Raises BadLoss (the batch saved), OSError (a checkpoint cannot be written), Interrupted after
    SIGTERM or SIGINT to any process (state saved).
    """
    workdir = Path(workdir)
    with caught_signals() as signals, Checkpoints(workdir / "checkpoints", config.keep) as checkpoints:
        state, start, notes = _resume(state, checkpoints)
        guard, agreement = Guard(config.spike_factor, notes), Agreement()
        done, signal = start, 0
        rows, asked, saved_at = _rows(batches, start), agreement.ask(state, 0, 0), time.monotonic()
        with _watch(config, start, workdir, batches, guard, mesh, rates) as watch:
            for done in range(start + 1, config.total_steps + 1):
                batch = next(rows)
                state, metrics = step_fn(state, batch if mesh is None else shard_batch(batch, mesh))
                watch.dispatched(done - 1, metrics)  # the device works while the host reads the previous step
                checkpoints.check()
                # The answer to the previous step's request: a signal to any process stops all of them here.
                signal, due = (int(value) for value in np.asarray(asked))
                last = done == config.total_steps or bool(signal)
                if last or due or (config.save_every and done % config.save_every == 0):
                    watch.settle(log=last)  # never save a state whose last step was bad
                    with watch.aside():
                        checkpoints.save(done, state, guard.notes())
                    saved_at = time.monotonic()
                for hook in hooks:
                    if done % hook.every == 0 or done == config.total_steps:
                        with watch.aside():
                            watch.write(done, hook.run(done, state))
                if last:
                    break
                due = time.monotonic() - saved_at >= config.save_seconds
                asked = agreement.ask(metrics, max(signals, default=0), due)
        checkpoints.wait()
        barrier("saved")  # when the first process exits, the others may be ended
        if done < config.total_steps and signal:
            if is_first():
                print(f"stopped by signal {signal} at step {done}, saved; run the same command to go on", flush=True)
            raise Interrupted(128 + signal)
    return state


def _resume(state: TrainState, checkpoints: Checkpoints) -> tuple[TrainState, int, Mapping[str, float]]:
    """The newest saved state with its step and notes, or the given state."""
    found = checkpoints.restore_latest(state)
    if found is None:
        return state, int(state.step), {}
    if is_first():
        print(f"resumed from step {found[1]} in {checkpoints.folder}", flush=True)
    return found


def _rows(batches: Batches, start: int) -> Iterator[Rows]:
    """Batches from `start` on, prefetched if `batches` can iterate."""
    iterate = getattr(batches, "iterate", None)
    return iterate(start) if iterate else map(batches, itertools.count(start))


def _watch(
    config: LoopConfig, start: int, workdir: Path, batches: Batches, guard: Guard, mesh: Mesh | None, rates
) -> Watch:
    devices, flops = mesh.size if mesh else 1, config.flops_per_step
    return Watch(config.total_steps, start, config.log_every, workdir, batches, guard, flops, devices, rates)
