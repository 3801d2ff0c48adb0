"""launch.benchmark: an iteration at a preset's shapes, what signals cost, as one line of JSON; mistakes as one sentence."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def benchmark(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "launch.benchmark", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_both_loops_run_in_turns(tmp_path):
    short = ("--config.tasks=('leg_counting',)", "--config.rollout.max_new_tokens=12")
    arguments = ("--config=configs/embedded.py", f"--workdir={tmp_path}", *short)
    done = benchmark(*arguments, "--rounds=50", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["decodes"] == 50 and told["iterations"] >= 3  # 12 tokens, at most 4 an iteration
    assert told["low"] <= told["cost"] <= told["high"]
    assert all(ms > 0 for ms in told["iteration_ms"].values())


def test_a_preset_is_timed_against_its_floor():
    arguments = ("--preset=tiny", "--context=64", "--draft_tokens=2", "--simulate_accept_length=2.25")
    done = benchmark(*arguments, "--iterations=20", "--repeats=2", "--json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert (told["preset"], told["dtype"], told["batch_size"], told["context"]) == ("tiny", "float32", 1, 64)
    assert told["tokens_per_iteration"] == 2.25
    assert told["whole"]["bytes"] == told["verify"]["bytes"] + told["draft"]["bytes"]
    for part in ("verify", "draft", "whole"):
        row = told[part]
        assert told["compile_seconds"][part] > 0
        assert abs(row["floor_ms"] - 1e3 * row["bytes"] / told["copy_bytes_per_second"]) < 1e-9
        assert abs(row["ratio"] - row["ms"] / row["floor_ms"]) < 1e-6
    expected = 2.25 / (1e-3 * told["whole"]["ms"])
    assert abs(told["tokens_per_second"] - expected) < 1e-3 * expected


def test_mistakes_get_one_sentence():
    """One call per mistake, so that the sentence belongs to it; mistakes in sizes are in test_loop_timing.py."""
    done = benchmark("--preset=tiny", "--simulate_accept_length=9")
    assert done.returncode == 1 and not done.stdout
    assert "with 3 drafts it is between 1 and 4, not 9.0" in done.stderr and len(done.stderr.splitlines()) == 1
    done = benchmark("--workdir=nowhere")
    assert done.returncode == 1
    assert "--config and --workdir" in done.stderr
