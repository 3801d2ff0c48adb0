"""A tiny model trained on a mesh by one process or several: the program that test_multiprocess launches."""

import functools
import os
import time
from pathlib import Path

import jax
import numpy as np
from absl import flags

from launch import door
from specexit_jax.data.batches import Batches, RowsInMemory
from specexit_jax.data.packing import pack
from specexit_jax.models.config import TargetConfig
from specexit_jax.models.target import Target, init_target
from specexit_jax.parallel.sharding import make_mesh, rows_of_process, tree_shardings
from specexit_jax.parallel.tree_paths import flatten
from specexit_jax.storage.checksum import checksum
from specexit_jax.training.lm import make_train_step
from specexit_jax.training.loop import Hook, LoopConfig, fit
from specexit_jax.training.optimizer import OptimizerConfig, make_optimizer
from specexit_jax.training.state import init_state

MODEL = TargetConfig("llama", 32, 16, 32, 1, 4, 2, 8, tie_embeddings=False, capture=(0, 0, 0))
ROWS = 8  # of the global batch


def documents():
    rng = np.random.default_rng(0)
    make = [np.tile(rng.integers(2, 32, 3), 4) for _ in range(40)]
    return [(ids, np.arange(12) >= 3) for ids in make]


@functools.cache
def programs():
    """(mesh, makes the first state on it, makes a step): compiled once a process."""
    optimizer = make_optimizer(OptimizerConfig("adamw", total_steps=1000, warmup_steps=2))
    mesh = make_mesh(data=2, fsdp=2, tensor=2)

    def first():
        return init_state(init_target(MODEL, jax.random.key(0)), optimizer)

    placed = jax.jit(first, out_shardings=tree_shardings(jax.eval_shape(first), mesh))
    return mesh, placed, make_train_step(Target(MODEL), optimizer)


def train(workdir, steps, hooks=(), save_every=2):
    """Trains `workdir` to `steps` on 8 devices, resuming there; the state and its checksum."""
    mesh, first, step = programs()
    config = LoopConfig(steps, log_every=1, save_every=save_every)
    batches = Batches(RowsInMemory(pack(documents(), 24)), ROWS, share=rows_of_process(mesh, ROWS))
    state = fit(config, first(), step, batches, Path(workdir), hooks, mesh)
    return state, checksum(flatten(state))


def main():
    number, workdir = jax.process_index(), Path(flags.FLAGS.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / f"pid_{number}").write_text(str(os.getpid()))

    def fail(step, _):
        (workdir / f"step_{number}").write_text(str(step))
        time.sleep(flags.FLAGS.pause)
        if number == 1 and step == flags.FLAGS.fail_at:
            raise ValueError("the second process has had enough")
        if number == 1 and step == flags.FLAGS.die_at:
            os.kill(os.getpid(), 9)

    hooks = (Hook(1, fail),)
    total = train(workdir, flags.FLAGS.steps, hooks, flags.FLAGS.save_every)[1]
    door.say(f"{jax.process_count()} processes, {jax.device_count()} devices, checksum {total}")


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "")
    flags.DEFINE_integer("steps", 4, "")
    flags.DEFINE_integer("save_every", 2, "")
    flags.DEFINE_integer("fail_at", -1, "")
    flags.DEFINE_integer("die_at", -1, "")
    flags.DEFINE_float("pause", 0.0, "")
    door.run(main)
