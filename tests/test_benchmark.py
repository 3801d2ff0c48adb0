"""launch.benchmark: what signals cost, as one line of JSON; wrong arguments as one sentence."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def benchmark(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "launch.benchmark", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_both_loops_run_in_turns(tmp_path):
    short = ("--config.tasks=('leg_counting',)", "--config.rollout.max_new_tokens=24")
    arguments = ("--config=configs/embedded.py", f"--workdir={tmp_path}", *short)
    done = benchmark(*arguments, "--rounds=50", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["decodes"] == 50 and told["iterations"] >= 6  # 24 tokens, at most 4 an iteration
    assert told["low"] <= told["cost"] <= told["high"]
    assert all(ms > 0 for ms in told["iteration_ms"].values())


def test_it_needs_to_know_what_to_measure():
    done = benchmark()
    assert done.returncode == 1
    assert "--config and --workdir" in done.stderr
