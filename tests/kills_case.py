"""Kills the training of a draft with SIGKILL at random moments until it finishes, and repeats this: the program of test_kills.

python tests/kills_case.py FOLDER KILLS SEED STEPS    prints a line a run, then how many have the bits of the undisturbed one

Every run is a process of its own, forked from this one, which has imported everything and started no backend.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
from training_case import rows_of, training, write_split

from specexit_jax.monitoring.metrics import read_metrics
from specexit_jax.parallel.tree_paths import flatten
from specexit_jax.training.draft_run import train_draft
from specexit_jax.training.loop import LoopConfig

SAVE_EVERY = 3


def train(workdir, steps):
    """A real run on labelled traces for a tiny target, saving every few steps in the background; leaves workdir/result.json."""
    rows = rows_of(workdir.parent / "draft")
    run, model, optimizer = training(optimizer="muon", steps=steps, batch_size=4)
    config = LoopConfig(steps, log_every=1, save_every=SAVE_EVERY)
    bundle = train_draft(run, *model, rows, optimizer, config, workdir)
    digest = hashlib.sha256()
    for name, leaf in sorted(flatten(bundle.params).items()):
        digest.update(name.encode() + np.ascontiguousarray(leaf).tobytes())
    losses = [(line["step"], line["loss"]) for line in read_metrics(workdir / "metrics.jsonl")]
    (workdir / "result.json").write_text(json.dumps({"sha256": digest.hexdigest(), "losses": losses}))


def start(workdir, steps):
    """The id of a new process that trains in `workdir`; its output goes to workdir/log."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        log = os.open(workdir / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        train(workdir, steps)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def finish(workdir, steps):
    """Waits for a run that nobody kills."""
    _, status = os.waitpid(start(workdir, steps), 0)
    if status:
        raise SystemExit(f"the run in {workdir} failed:\n{(workdir / 'log').read_text()[-3000:]}")
    return json.loads((workdir / "result.json").read_text())


def lines(workdir):
    """Steps that a run has logged."""
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_once(workdir, steps, step, after):
    """Starts a run and kills it `after` seconds after a step. Returns the newest checkpoint, or None if the run ended before."""
    child = start(workdir, steps)
    while lines(workdir) < step and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.002)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        return None
    folders = workdir / "checkpoints"
    return max((int(f.name) for f in folders.iterdir() if f.name.isdecimal()), default=0) if folders.exists() else 0


def main(folder, kills, seed, steps):
    chance = random.Random(seed)
    write_split(folder / "draft", 60)
    wanted = finish(folder / "warm", steps)  # compiles
    began = time.monotonic()
    again = finish(folder / "undisturbed", steps)
    life, same, done, started = time.monotonic() - began, 0, 0, 0
    print(f"an undisturbed run of {steps} steps: {life:.1f} s, same bits twice: {wanted == again}", flush=True)
    while done < kills:
        workdir, started = folder / f"run_{started}", started + 1
        # at a random step, at a random moment of the step and of its save; one in ten during the start of a run
        step = 0 if chance.random() < 0.1 else chance.randrange(1, steps)
        at = kill_once(workdir, steps, step, chance.uniform(0, life if step == 0 else 4 * life / steps))
        if at is None:
            continue  # it had ended before
        done += 1
        killed_at = lines(workdir)
        equal = finish(workdir, steps) == wanted
        same += equal
        print(
            f"kill {done} at step {killed_at}, newest checkpoint {at}: {'same bits' if equal else 'OTHER BITS'}",
            flush=True,
        )
    print(f"{same} of {done} finishes bit-identical", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
