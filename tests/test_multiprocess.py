"""Runs of two processes with four devices each, started by local_cluster.sh: stopped together, ended together, restored
on another mesh."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from multiprocess_case import train
from tiny_folders import write_tiny
from training_case import write_split

from specexit_jax.data.tokenizer import load_tokenizer
from specexit_jax.models.checkpoints.hf import load_draft
from specexit_jax.monitoring.metrics import read_metrics

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def environment():
    """All launches of this file share the compilation cache of the run, which also keeps programs that compile quickly."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(ROOT / "tests"),
        "PYTHON": sys.executable,
        "DEVICES": "4",
    }


def launched(environment, workdir, *options, module="multiprocess_case"):
    return subprocess.Popen(
        ["bash", str(ROOT / "launch" / "local_cluster.sh"), "2", module, f"--workdir={workdir}", *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process, timeout=500):
    """(exit code, standard output, standard error)"""
    out, error = process.communicate(timeout=timeout)
    return process.returncode, out, error


def saved_steps(workdir):
    return sorted(int(folder.name) for folder in (workdir / "checkpoints").iterdir() if folder.name.isdecimal())


def wait_for_step(workdir, step, process):
    """Until both processes have made `step` steps."""
    while not all(_read(workdir / f"step_{number}") >= step for number in (0, 1)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def _read(path):
    return int(path.read_text() or 0) if path.exists() else 0


def alive(workdir):
    """Which of the two processes still run."""
    return [n for n in (0, 1) if Path(f"/proc/{(workdir / f'pid_{n}').read_text()}/cmdline").exists()]


def test_checkpoints_go_from_two_processes_to_one_and_back(tmp_path, environment):
    code, out, error = ended(launched(environment, tmp_path, "--steps=4"))
    assert code == 0, error
    assert error.count("step 4/4") == 1  # only process 0 prints
    _, here = train(tmp_path, 4)  # one process of eight devices: nothing left to train
    assert f"2 processes, 8 devices, checksum {here}\n" in out
    _, here = train(tmp_path, 6)
    code, out, error = ended(launched(environment, tmp_path, "--steps=6"))
    assert code == 0, error
    assert f"2 processes, 8 devices, checksum {here}\n" in out and "resumed from step 6" in out
    whole = tmp_path / "whole"
    train(whole, 6)
    both = [[line["loss"] for line in read_metrics(folder / "metrics.jsonl")] for folder in (tmp_path, whole)]
    assert both[0] == pytest.approx(both[1], abs=1e-5) and len(both[0]) == 6


def test_a_signal_to_one_process_stops_all_at_the_same_step(tmp_path, environment):
    process = launched(environment, tmp_path, "--steps=1000", "--save_every=0", "--pause=0.1")
    wait_for_step(tmp_path, 2, process)
    os.kill(int((tmp_path / "pid_1").read_text()), signal.SIGTERM)
    code, out, error = ended(process)
    assert code == 143, error
    (step,) = saved_steps(tmp_path)
    assert f"stopped by signal 15 at step {step}, saved" in out
    assert [_read(tmp_path / f"step_{number}") for number in (0, 1)] == [step, step]
    assert not alive(tmp_path)


def test_a_signal_to_the_launcher_goes_to_all(tmp_path, environment):
    process = launched(environment, tmp_path, "wait", module="cluster_case")
    while not all((tmp_path / f"pid_{number}").exists() for number in (0, 1)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.terminate()
    code, _, error = ended(process, 60)
    assert code == 143 and error == "" and not alive(tmp_path)


@pytest.mark.slow
def test_a_run_that_the_launcher_stopped_goes_on_from_there(tmp_path, environment):
    step = 0
    for told in ("", "resumed from step {}"):
        process = launched(environment, tmp_path, "--steps=1000", "--save_every=0", "--pause=0.1")
        wait_for_step(tmp_path, step + 2, process)
        process.terminate()
        code, out, error = ended(process)
        assert code == 143, error
        assert told.format(step) in out and not alive(tmp_path)
        step = saved_steps(tmp_path)[-1]


ENDS = {
    "fail": (1, "process 1: error: the second process has had enough"),
    "die": (137, "error: process 1 was ended by signal 9"),
}


@pytest.mark.parametrize("end", ENDS)
def test_one_that_fails_ends_all_with_its_reason(tmp_path, environment, end):
    (code, reason), process = ENDS[end], launched(environment, tmp_path, end, module="cluster_case")
    returned, _, error = ended(process, 60)
    assert returned == code and reason in error.splitlines()
    assert not alive(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_a_run_of_which_one_fails_has_its_checkpoints(tmp_path, environment, end):
    (code, reason), end = ENDS[end], f"--{end}_at=8"
    process = launched(environment, tmp_path, "--steps=100000", end)
    wait_for_step(tmp_path, 2, process)
    returned, _, error = ended(process)
    assert returned == code and reason in error
    assert not alive(tmp_path)
    assert saved_steps(tmp_path)[-1] in (4, 6, 8)  # one of them was under way


def test_a_wrong_call_is_refused_before_anything_starts(environment):
    for arguments in (["0", "launch.train"], ["2"], ["two", "launch.train"]):
        done = subprocess.run(
            ["bash", str(ROOT / "launch" / "local_cluster.sh"), *arguments],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1 and done.stderr.startswith("error: usage:") and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_draft_trains_alike_on_one_process_and_on_two(tmp_path, environment):
    """launch.train for 12 steps: one device, and two processes of four that share batch, target, draft, optimizer and the
    features, which they keep on disk."""
    tiny = write_tiny(tmp_path / "tiny")
    tokenizer = load_tokenizer(tiny / "target")
    ends = [token for token in range(len(tokenizer)) if tokenizer.decode([token]).endswith("\n\n")]
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    for workdir in (alone, shared):
        write_split(workdir / "draft", 40, ends=ends)
        write_split(workdir / "development", 10, seed=1, ends=ends)
    values = {
        "target": tiny / "target", "train.steps": 12, "train.batch_size": 8, "train.row_length": 32, "train.log_every": 1,
        "train.draft_vocab_size": 200, "train.intermediate_size": 24, "train.ttt_steps": 2, "train.evaluate_every": 6,
        "train.optimizer.warmup_steps": 5,
    }  # fmt: skip
    options = [f"--config={ROOT / 'configs' / 'embedded.py'}", *(f"--config.{k}={v}" for k, v in values.items())]
    meshed = ["--config.train.mesh.data=2", "--config.train.mesh.fsdp=2", "--config.train.mesh.tensor=2"]
    meshed.append("--config.train.features=offline")
    runs = (("1", alone, [], "1"), ("2", shared, meshed, "4"))
    for count, workdir, more, devices in runs:
        command = ["bash", str(ROOT / "launch" / "local_cluster.sh"), count, "launch.train", f"--workdir={workdir}"]
        found = subprocess.run(
            [*command, *options, *more],
            env=environment | {"DEVICES": devices},
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert found.returncode == 0, found.stderr
        assert found.stdout.count("trained: ") == 1
    lines = [read_metrics(workdir / "metrics.jsonl") for workdir in (alone, shared)]
    for name, count in (("loss", 12), ("held_out_token_loss", 2), ("held_out_confidence_auc", 2)):
        curves = [[line[name] for line in of_run if name in line] for of_run in lines]
        assert len(curves[0]) == count
        assert curves[1] == pytest.approx(curves[0], abs=1e-4)
    weights = [load_draft(workdir / "draft_model").params for workdir in (alone, shared)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, atol=2e-3), *weights)
