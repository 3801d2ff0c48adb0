"""Programs that try to leave the sandbox, exceed limits, outlive it or fake success: all fail inside, and each succeeds
outside."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest
from sandbox_case import ATTEMPTS, SECRET, Host, alive, in_threads, unconfined

from specexit_jax.sandbox import landlock, run, watch
from specexit_jax.sandbox.run import LAYERS, Limits, run_python, run_tests

WORLDS = {"both": LAYERS, "landlock": ("landlock",), "namespaces": ("namespaces",)}
# A process more than it may have can only be seen by looking: attempts are given room, so that nothing else stops them.
ROOM = Limits(wall=20, processes=32)


def _reason(layers):
    """Why this machine cannot keep a program inside with these layers; None where it can."""
    try:
        run_python("", layers=layers)
    except RuntimeError as error:
        return str(error)
    return None


ABLE = {name: _reason(layers) for name, layers in WORLDS.items()}
needs_a_sandbox = pytest.mark.skipif(ABLE["both"] is not None, reason=f"no sandbox on this machine: {ABLE['both']}")


@pytest.fixture(params=list(WORLDS))
def layers(request):
    """Every set of layers that this machine has. One that it lacks is skipped only where another one keeps programs inside."""
    if ABLE[request.param]:
        pytest.skip(ABLE[request.param])
    return WORLDS[request.param]


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    host = Host(tmp_path_factory.mktemp("host"))
    yield host
    host.close()


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Where runs make their folders."""
    made = tmp_path / "runs"
    made.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    return made


@pytest.fixture(scope="module")
def outside(host, tmp_path_factory):
    """What every attempt comes to without a sandbox."""
    target = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        return json.loads(unconfined(host.program(target.pid), tmp_path_factory.mktemp("own")))
    finally:
        target.kill()
        target.wait()
        host.forget()


@pytest.fixture(scope="module")
def inside(host):
    """What every attempt comes to with some layers, and what was done to the host meanwhile; each asked for once."""

    @functools.cache
    def come_to(layers):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SPECEXIT_TEST_SECRET", SECRET)
            outcome = run_python(host.program(), ROOM, layers=layers)
        assert outcome.passed, outcome
        reached = host.reached()
        host.forget()
        return json.loads(outcome.stdout), reached

    return come_to


@pytest.mark.parametrize("name", list(ATTEMPTS))
def test_every_attempt_works_outside(host, outside, name):
    if "{real_home}" in ATTEMPTS[name] and not host.real_home.exists():
        pytest.skip("the home folder cannot be written")
    if name in ("trace", "read_memory", "memory_of_another"):
        scope = Path("/proc/sys/kernel/yama/ptrace_scope")
        if scope.exists() and int(scope.read_text()) > 1:
            pytest.skip("tracing is off for everybody on this machine")
    assert outside[name] == "ESCAPED"


@needs_a_sandbox
@pytest.mark.parametrize("name", list(ATTEMPTS))
def test_no_attempt_works_inside(inside, layers, name):
    """Each fails for being refused, or for there being nothing to be found; not for a mistake of its own."""
    said = inside(layers)[0][name]
    assert said.partition(":")[0] in (
        "PermissionError", "FileNotFoundError", "ProcessLookupError", "OSError", "KeyError", "AssertionError", "ValueError",
    ), said  # fmt: skip


@needs_a_sandbox
def test_attempts_leave_no_trace(host, inside, layers):
    assert inside(layers)[1] == []
    assert host.victim.poll() is None
    assert (host.home / ".token").read_text() == SECRET
    assert (host.home / ".victim").read_text() == "x" and (host.home / ".moved").exists()


@needs_a_sandbox
def test_a_parent_cannot_be_killed(layers):
    outcome = run_python("import os\ntry: os.kill(os.getppid(), 9)\nexcept OSError: pass\nprint('on')", layers=layers)
    assert (outcome.status, outcome.stdout) == ("passed", "on\n")


@needs_a_sandbox
def test_ordinary_programs_run(layers):
    program = """
import concurrent.futures, dataclasses, json, pathlib, subprocess, sys, tempfile
import numpy
@dataclasses.dataclass
class Point: x: int
pathlib.Path("a.json").write_text(json.dumps({"n": input()}))
with tempfile.TemporaryFile() as file: file.write(b"x")
child = subprocess.run([sys.executable, "-c", "print(2)"], capture_output=True, text=True).stdout.strip()
with concurrent.futures.ThreadPoolExecutor(2) as pool: double = list(pool.map(lambda x: 2 * x, [1, 2]))
print(json.loads(open("a.json").read())["n"], child, double, numpy.arange(4).sum(), Point(1), __name__, "é")
print("said", file=sys.stderr)
sys.exit(0)
"""
    outcome = run_python(program, ROOM, stdin="one\n", layers=layers)
    assert outcome.status == "passed", outcome
    assert outcome.stdout == "one 2 [2, 4] 6 Point(x=1) __main__ é\n"
    assert outcome.stderr == "said\n"


@needs_a_sandbox
def test_failures_are_told_apart(layers):
    for program, code in [("1/0", 1), ("import sys; sys.exit(3)", 3), ("x = (", 1), ("import os; os.abort()", -6)]:
        outcome = run_python(program, layers=layers)
        assert outcome.status == "failed" and not outcome.passed
        assert outcome.returncode == code or (code < 0 and outcome.returncode < 0)
    assert "ZeroDivisionError" in run_python("1/0", layers=layers).stderr
    killed = run_python("import os; os.kill(os.getpid(), 9)", layers=layers)
    assert killed.status in ("killed", "failed")  # failed: where signals are refused


_EATERS = {  # (program, the same in moderation, limits, how it ends)
    "loop": ("while True: pass", "for _ in range(10**5): pass", Limits(wall=1), {"timeout"}),
    "sleep": ("import time; time.sleep(1e6)", "import time; time.sleep(0.05)", Limits(wall=1), {"timeout"}),
    "cpu": (
        "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)",
        Limits(wall=60, cpu=1), {"timeout"},
    ),
    "cpu_of_several": (
        "import os\nfor _ in range(3): os.fork()\nwhile True: pass", "import os\nfor _ in range(3): os.fork()",
        Limits(wall=60, cpu=2), {"timeout"},
    ),
    "ten_gigabytes": ("x = bytearray(10**10)", "x = bytearray(10**8)", Limits(wall=20), {"memory"}),
    "growing": ("x = []\nwhile True: x.append(bytearray(10**7))", "x = [bytearray(10**7)]", Limits(wall=20), {"memory"}),
    "memory_of_several": (
        "import os, time\nfor _ in range(3): os.fork()\nx = bytearray(b'1') * (150 << 20)\ntime.sleep(60)",
        "import os, time\nfor _ in range(3): os.fork()\nx = bytearray(b'1') * (1 << 20)\ntime.sleep(0.1)",
        Limits(wall=30, memory=512 << 20), {"memory"},
    ),
    "fork_bomb": (
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", "import os\nos.fork()",
        Limits(wall=10), {"killed", "timeout"},
    ),
    "threads": (
        "import threading, time\nfor _ in range(500): threading.Thread(target=time.sleep, args=(1,)).start()",
        "import threading, time\nfor _ in range(5): threading.Thread(target=time.sleep, args=(0.1,)).start()",
        Limits(wall=20), {"killed", "failed", "timeout"},
    ),
    "one_file": (
        "f = open('a', 'wb')\nfor _ in range(200): f.write(bytes(1 << 20))", "open('a', 'wb').write(bytes(1 << 20))",
        Limits(disk=20 << 20), {"failed", "killed"},
    ),
    "many_files": (
        "import time\nfor n in range(20): open(str(n), 'wb').write(bytes(8 << 20))\ntime.sleep(2)",
        "import time\nfor n in range(5): open(str(n), 'wb').write(bytes(1 << 20))\ntime.sleep(0.2)",
        Limits(disk=20 << 20), {"failed", "killed"},
    ),
    "removed_files": (
        "import os, time\nkept = []\nfor n in range(20):\n    kept.append(open('a', 'wb', 0)); kept[-1].write(bytes(8 << 20)); "
        "os.remove('a')\ntime.sleep(2)",
        "import os, time\nfor n in range(20):\n    f = open('a', 'wb', 0); f.write(bytes(8 << 20)); f.close(); os.remove('a')",
        Limits(disk=20 << 20), {"failed", "killed"},
    ),
    "countless_files": (
        "import time\nfor n in range(6000): open(str(n), 'w').close()\ntime.sleep(2)",
        "import time\nfor n in range(600): open(str(n), 'w').close()\ntime.sleep(0.2)",
        Limits(), {"failed", "killed"},
    ),
    "open_files": ("x = [open('a', 'w') for _ in range(100)]", "x = [open('a', 'w') for _ in range(20)]", Limits(), {"failed"}),
}  # fmt: skip


# Limits are kept by what all sets of layers share; the waiting of three sets is for the slow proofs.
ONE_SET = ["both", *(pytest.param(name, marks=pytest.mark.slow) for name in WORLDS if name != "both")]


@needs_a_sandbox
@pytest.mark.parametrize("layers", ONE_SET, indirect=True)
@pytest.mark.parametrize("name", list(_EATERS))
def test_nothing_is_taken_beyond_its_limit(layers, folders, name):
    program, moderate, limits, ends = _EATERS[name]
    assert run_python(moderate, limits, layers=layers).status == "passed"
    start = time.monotonic()
    outcome = run_python(program, limits, layers=layers)
    assert outcome.status in ends, outcome
    assert time.monotonic() - start < limits.wall + 20  # for its own limit, not for ours
    assert list(folders.iterdir()) == []


@needs_a_sandbox
def test_output_is_cut(layers):
    program = "import sys\nfor _ in range(400): sys.stdout.write('x' * 99999); sys.stderr.write('y' * 99999)"
    outcome = run_python(program, Limits(output=1000), layers=layers)
    assert (outcome.status, outcome.stdout, outcome.stderr) == ("passed", "x" * 1000, "y" * 1000)


_DAEMON = """
import os, sys, time
if os.fork() == 0:
    try: os.setsid()
    except OSError: pass
    if os.fork() == 0:
        for handle in range(3): os.close(handle)
        os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", {marker!r}])
    os._exit(0)
os.wait()
time.sleep({seconds})
"""


def _end(marker):
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if marker.encode() in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)


def test_a_daemon_outlives_its_parent_outside(tmp_path):
    marker = f"specexit-{uuid.uuid4().hex}"
    try:
        unconfined(_DAEMON.format(marker=marker, seconds=0.5), tmp_path / "own")
        assert alive(marker)
    finally:
        _end(marker)


@needs_a_sandbox
def test_no_process_outlives_its_run(layers, folders):
    marker = f"specexit-{uuid.uuid4().hex}"
    seen = []

    def runs(place):
        if place == 0:
            return run_python(_DAEMON.format(marker=marker, seconds=2), ROOM, layers=layers)
        for _ in range(40):
            seen.append(alive(marker))
            time.sleep(0.05)
        return None

    outcome = in_threads(runs, 2)[0]
    assert outcome.status == "passed", outcome
    assert any(seen)  # it was there
    assert not alive(marker)
    assert list(folders.iterdir()) == []


@needs_a_sandbox
def test_nothing_outlives_the_asker(layers, folders):
    marker = f"specexit-{uuid.uuid4().hex}"
    program = _DAEMON.format(marker=marker, seconds=600)
    text = (
        f"import tempfile; tempfile.tempdir = {str(folders)!r}\n"
        "from specexit_jax.sandbox.run import Limits, run_python\n"
        f"run_python(input(), Limits(wall=600, processes=32), layers={layers!r})"
    )
    asker = subprocess.Popen([sys.executable, "-c", text], cwd=Path(__file__).parents[1], stdin=subprocess.PIPE)
    try:
        asker.stdin.write(f"exec({program!r})\n".encode())  # not among its arguments, where the marker would be found
        asker.stdin.close()
        _until(lambda: alive(marker) and list(folders.iterdir()))
        asker.send_signal(signal.SIGKILL)
        asker.wait()
        _until(lambda: not alive(marker) and not list(folders.iterdir()))
        assert asker.returncode == -signal.SIGKILL, "it had ended by itself"
    finally:
        asker.kill()
        asker.wait()
        _end(marker)


def _until(happened, seconds=60):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@needs_a_sandbox
def test_several_at_once(layers, folders):
    def runs(place):
        return run_python(
            f"open('a', 'w').write('{place}'); print(open('a').read(), input())", ROOM, f"{place}\n", layers
        )

    assert [outcome.stdout for outcome in in_threads(runs, 6)] == [f"{place} {place}\n" for place in range(6)]
    assert list(folders.iterdir()) == []


@needs_a_sandbox
@pytest.mark.parametrize(
    "program",
    [
        "def f(): return 2",
        "import sys; print('1 passed'); sys.exit(0)",
        "import os; print('ok', flush=True); os._exit(0)",
        "def f(): raise SystemExit(0)",
        "import os\ndef f(): os._exit(0)",
        "open('tests.py', 'w').close()\ndef f(): return 2",
        "import os; os.close(3)\nf = lambda: 1",
        "import os; os.write(3, b'0' * 32); os.close(3); os._exit(0)",
        "import atexit, os; atexit.register(os._exit, 5)\ndef f(): return 1",
        "def f(): return 1\nraise ValueError",
    ],
)
def test_success_is_the_end_of_the_tests(layers, program):
    assert run_tests(program, "assert f() == 1", layers=layers).status == "failed"


@needs_a_sandbox
def test_tests_that_end_are_passed(layers):
    assert run_tests("def f(): return 1", "assert f() == 1", layers=layers).passed


@needs_a_sandbox
def test_without_tests_an_early_end_is_an_end(layers):
    assert run_python("import os; os._exit(0)", layers=layers).passed  # what run_tests is for


@needs_a_sandbox
def test_folders_are_removed_however_deep_and_closed(layers, folders):
    program = (
        "import os\nos.mkdir('closed', 0)\nfor _ in range(1100): os.mkdir('d'); os.chdir('d')\nopen('f', 'w').close()"
    )
    assert run_python(program, layers=layers).status in ("passed", "killed")
    assert list(folders.iterdir()) == []


def test_a_folder_deeper_than_any_path_is_removed(tmp_path):
    top, here = tmp_path / "top", os.getcwd()
    top.mkdir()
    (top / "other").mkdir()
    (top / "other" / "link").symlink_to(tmp_path)
    try:
        os.chdir(top)
        for _ in range(1100):  # deeper than functions may call each other, too
            os.mkdir("deeper")
            os.chdir("deeper")
    finally:
        os.chdir(here)
    assert watch.disk(str(top), ()) == float("inf")
    watch.remove(str(top))
    assert not top.exists() and tmp_path.exists()


def test_without_isolation_nothing_is_run(monkeypatch, tmp_path):
    program = f"open({str(tmp_path / 'ran')!r}, 'w')"
    with pytest.raises(RuntimeError, match="Model code is run in a sandbox only, and none can be made here"):
        run_python(program, layers=())
    monkeypatch.setattr(
        run, "_absent", {"namespaces": "namespaces: not permitted", "landlock": "landlock: no such call"}
    )
    with pytest.raises(RuntimeError, match=r"\(namespaces: not permitted; landlock: no such call\)"):
        run_python(program)
    monkeypatch.setattr(run, "_absent", {})
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(RuntimeError, match="none can be made here .*darwin"):
        run_python(program)
    assert not (tmp_path / "ran").exists()


def test_a_layer_that_is_refused_is_named_and_not_asked_for_again(monkeypatch):
    asked = []

    def answers(request, seconds):
        asked.append(tuple(request["layers"]))
        if "namespaces" in request["layers"]:
            return {"unavailable": "namespaces", "why": "namespaces: not permitted"}
        if len(asked) == 2:
            return {"status": "passed", "returncode": 0, "stdout": "", "stderr": "", "seconds": 0.1}
        return {"unavailable": "seccomp", "why": "seccomp: no such call"}

    monkeypatch.setattr(run, "_absent", {})
    monkeypatch.setattr(run, "_supervised", answers)
    assert run_python("").passed
    with pytest.raises(RuntimeError, match=r"seccomp: no such call"):
        run_python("")
    assert asked == [LAYERS, ("landlock",), ("landlock",)]


def test_where_signals_are_not_confined_they_are_not_sent():
    """As Landlock before its sixth version has it: only its own group can be signalled."""
    text = (
        "import os\nfrom specexit_jax.sandbox import seccomp, syscalls\nos.setsid()\n"
        "os.kill(os.getppid(), 0)\nsyscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)\nseccomp.restrict(signals=False)\n"
        "os.kill(0, 0)\n"
        "for process in (os.getppid(), os.getpid(), -1):\n"
        "    try: os.kill(process, 0)\n"
        "    except PermissionError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert (done.stdout, done.stderr) == ("refused\n" * 3, "")


def test_limits_are_positive():
    with pytest.raises(ValueError, match="a sandbox needs processes above 0, not 0"):
        Limits(processes=0)


@needs_a_sandbox
def test_what_this_machine_has_is_said(capsys):
    with capsys.disabled():
        missing = {name: why for name, why in ABLE.items() if why}
        version = None if ABLE["landlock"] else landlock.version()
        print(f"\nsandbox layers: Landlock {version}, missing {missing or 'none'}")
    assert ABLE["both"] is None
