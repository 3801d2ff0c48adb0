"""A second process on the same files is refused while the first one lives; the lock is released however it ends."""

import fcntl
import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from launch import door, stages
from specexit_jax.storage.jsonl import append_jsonl, drop_torn_line, read_jsonl
from specexit_jax.storage.shards import WHOLE, Shard, own_rows
from specexit_jax.storage.workdir_lock import locked

ROOT = Path(__file__).parents[1]
HOLDER = """
import sys, time
from pathlib import Path
from specexit_jax.storage.workdir_lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold():
    """Starts a process that holds a lock until its input ends."""
    started = []

    def start(path):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_holder_is_named_until_it_ends(tmp_path, hold):
    path = tmp_path / "deep" / ".evaluate.lock"
    holder = hold(path)
    sentence = (
        rf"\.evaluate\.lock is held by process {holder.pid} on {socket.gethostname()}, which writes the same files"
    )
    for _ in range(2):  # checking changes nothing
        with pytest.raises(ValueError, match=sentence), locked(path):
            pass
    with locked(tmp_path / "deep" / ".calibrate.lock"):
        pass
    holder.communicate("")
    with locked(path):
        assert path.read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
        with pytest.raises(ValueError, match=f"process {os.getpid()} "), locked(path):
            pass
        with locked(path, again=True):  # a block inside one of this process
            pass
        with pytest.raises(ValueError, match=f"process {os.getpid()} "), locked(path):
            pass
    with locked(path):
        pass


def test_a_kill_releases(tmp_path, hold):
    holder = hold(tmp_path / "lock")
    with pytest.raises(ValueError, match=f"held by process {holder.pid} "), locked(tmp_path / "lock"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} ")


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with (
        pytest.raises(OSError, match=r"lock cannot be locked \(No locks available\): use a workdir"),
        locked(tmp_path / "lock"),
    ):
        pass


def test_commands_refuse_a_second_process_before_any_work(tmp_path, hold):
    """While another process holds the files that each would write."""
    locks = {
        "evaluate": "test/.traces.lock",  # which launch.rollout --splits=test takes as well
        "rollout": "development/.traces-00001-of-00002.lock",
        "annotate": "development/.labels-00001-of-00002.lock",
    }
    shares = {name: ["--splits=development", "--shard=1/2"] for name in ("rollout", "annotate")}
    holders, runs = {stage: hold(tmp_path / lock) for stage, lock in locks.items()}, {}
    for stage in locks:
        command = [sys.executable, "-m", f"launch.{stage}", "--config=configs/embedded.py", f"--workdir={tmp_path}"]
        runs[stage] = subprocess.Popen(
            [*command, *shares.get(stage, ())], stderr=subprocess.PIPE, text=True, cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
    for stage, run in runs.items():
        said = run.communicate()[1]
        assert run.returncode == 1, said
        assert f"{locks[stage]} is held by process {holders[stage].pid} on" in said.splitlines()[-1], said
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize("stage", ["calibrate", "train"])
def test_stages_refuse_a_second_process(tmp_path, hold, monkeypatch, stage):
    main = importlib.import_module(f"launch.{stage}").main
    hold(tmp_path / f".{stage}.lock")
    monkeypatch.setattr(door.flags, "FLAGS", SimpleNamespace(workdir=str(tmp_path)))
    with pytest.raises(ValueError, match=rf"{stage}\.lock is held by"):
        main()


def test_shares_go_on_side_by_side(tmp_path, hold, monkeypatch):
    monkeypatch.setattr(stages.flags, "FLAGS", SimpleNamespace(workdir=str(tmp_path)))
    hold(Shard(0, 2).path(tmp_path / "draft", ".traces", ".lock"))
    with door._HELD:
        stages.claim_share("traces", ["draft", "development"], Shard(1, 2))
        stages.claim_share("labels", ["draft"], Shard(0, 2))
        stages.claim_share("traces", ["draft"], WHOLE)
        with pytest.raises(ValueError, match="traces-00000-of-00002.lock is held by"):
            stages.claim_share("traces", ["draft"], Shard(0, 2))


def test_a_claim_ends_with_main(tmp_path, monkeypatch):
    monkeypatch.setattr(door.flags, "FLAGS", SimpleNamespace(workdir=str(tmp_path)))
    path = tmp_path / ".evaluate.lock"
    with door._HELD:
        door.claim_stage("evaluate")
        with pytest.raises(ValueError, match="is held by"), locked(path):
            pass
    with locked(path):
        pass


def test_of_joined_processes_the_first_asks(tmp_path, hold, monkeypatch):
    hold(tmp_path / ".train.lock")
    monkeypatch.setattr(door.flags, "FLAGS", SimpleNamespace(workdir=str(tmp_path)))
    monkeypatch.setattr("specexit_jax.parallel.distributed._number", 1)
    door.claim_stage("train")
    monkeypatch.setattr("specexit_jax.parallel.distributed._number", 0)
    with pytest.raises(ValueError, match="is held by"):
        door.claim_stage("train")


@pytest.mark.parametrize("write", [drop_torn_line, lambda path: append_jsonl(path, [{"id": "b"}])])
def test_no_row_is_lost_between_a_read_and_a_cut(tmp_path, write):
    """A process that cuts a torn line or appends a row holds the file exclusively."""
    path = tmp_path / "traces.jsonl"
    path.write_text('{"id": "a"}\n{"id')
    thread = threading.Thread(target=write, args=(path,))
    with path.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        file.seek(0, os.SEEK_END)
        file.write(b'": "c"}\n')
    thread.join()
    assert [row["id"] for row in read_jsonl(path)][:2] == ["a", "c"]


def test_every_writer_of_rows_takes_their_lock(tmp_path, hold):
    for stem, report in [("traces", "rollout"), ("labels", "annotate")]:
        hold(WHOLE.path(tmp_path, f".{stem}", ".lock"))
        with pytest.raises(ValueError, match=rf"\.{stem}\.lock is held by"), own_rows(tmp_path, stem, report, {}):
            pass
    with own_rows(tmp_path, "traces", "rollout", {}, Shard(0, 2)):
        pass
