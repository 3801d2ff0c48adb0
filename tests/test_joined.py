"""Two joined processes, each decoding on a mesh of its own devices, together write the same rows as one process."""

import socket
import subprocess
import sys
from pathlib import Path

import jax
import joined_case
import pytest
from tiny_folders import write_tiny

from specexit_jax.storage.shards import read_shards

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_joined_processes_share_the_work(tmp_path, monkeypatch):
    models = write_tiny(tmp_path / "models")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    command = [sys.executable, str(ROOT / "tests" / "joined_case.py"), str(models), str(tmp_path / "both"), address]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"}
    both = [subprocess.Popen([*command, str(number), "2"], env=environment) for number in range(2)]
    assert [process.wait(400) for process in both] == [0, 0]
    assert len(list((tmp_path / "both").glob("labels-0000?-of-00002.jsonl"))) == 2

    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:2])
    joined_case.work(models, tmp_path / "one", 2)
    for stem in ("traces", "labels"):
        one, two = ({row["id"]: row for row in read_shards(tmp_path / name, stem)} for name in ("one", "both"))
        assert len(one) == len(joined_case.PROBLEMS)
        for name, row in one.items():
            assert row.pop("logprob", []) == pytest.approx(two[name].pop("logprob", []), abs=1e-4)
            assert row == two[name]
