"""Runs killed with SIGKILL at random moments end with the same bits as an undisturbed run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def killed(folder, kills, seed, steps=60):
    """The last line of kills_case."""
    cache = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "kills_case.py"), str(folder), str(kills), str(seed), str(steps)],
        env=os.environ | cache | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert "same bits twice: True" in done.stdout
    return done.stdout.splitlines()[-1]


def test_a_killed_run_ends_in_the_same_bits(tmp_path):
    assert killed(tmp_path, 1, 1, steps=24) == "1 of 1 finishes bit-identical"


@pytest.mark.slow
def test_a_hundred_killed_runs_end_in_the_same_bits(tmp_path):
    assert killed(tmp_path, 100, 2) == "100 of 100 finishes bit-identical"
