"""Programs that a model wrote, run in the sandbox that this package makes; what they did, and whether they passed."""

import contextlib
import dataclasses
import functools
import json
import os
import secrets
import select
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any, Literal

from specexit_jax.sandbox import watch

LAYERS = ("namespaces", "landlock")  # either alone keeps files away; both are used where they can be had
_SYSTEM = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/nix/store",
           "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo")  # fmt: skip
_GRACE = 60  # seconds beyond its limit after which a supervisor that says nothing is given up
_absent: dict[str, str] = {}  # layers that this machine has refused, with its reason


@dataclasses.dataclass(frozen=True)
class Limits:
    """For all processes of a run together, where nothing else is said; bytes and seconds."""

    wall: float = 10.0
    cpu: int = 10
    memory: int = 1 << 30  # in use by all; also the address space of each
    processes: int = 16  # and threads
    disk: int = 64 << 20
    open_files: int = 64  # of each
    output: int = 64 << 10  # kept of stdout, and of stderr

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"a sandbox needs {field.name} above 0, not {getattr(self, field.name)}")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a program ended. returncode: as subprocess has it, negative for a signal; seconds: of wall time.

    passed: exit code 0 (and the end reached, for `run_tests`); timeout: of wall or CPU time; memory: more than allowed, or an
    uncaught MemoryError; killed: for too many processes or too much on disk, or by a SIGKILL; failed: all else.
    """

    status: Literal["passed", "failed", "timeout", "memory", "killed"]
    returncode: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def passed(self) -> bool:
        return self.status == "passed"


def run_python(program: str, limits: Limits = Limits(), stdin: str = "", layers: tuple[str, ...] = LAYERS) -> Outcome:
    """Runs a program as __main__ in a process, and folder, of its own; installed packages can be imported.

    layers: those to use where they can be had; seccomp always is. Safe to call from several threads. Raises RuntimeError where
    this machine cannot keep files and network away: then nothing was run.
    """
    return _run({"program": program, "tests": None, "stdin": stdin}, limits, layers)


def run_tests(
    program: str, tests: str, limits: Limits = Limits(), stdin: str = "", layers: tuple[str, ...] = LAYERS
) -> Outcome:
    """`run_python` of a program and then, in the same module, its tests; passed only if the last line of the tests was passed.

    After that line a random token, which is not in the process before, is read from a pipe and sent back. So sys.exit(0),
    os._exit(0) and anything printed are no success. It is no proof against a program that is written for this harness: in one
    interpreter it can find the descriptor, or change what `assert` compares.
    """
    return _run({"program": program, "tests": tests, "stdin": stdin}, limits, layers)


def _run(work: dict[str, Any], limits: Limits, layers: tuple[str, ...]) -> Outcome:
    while True:
        usable = [name for name in layers if name not in _absent]
        if sys.platform != "linux" or not usable:
            why = "; ".join(_absent[name] for name in layers if name in _absent) or f"layers {layers} on {sys.platform}"
            raise RuntimeError(f"Model code is run in a sandbox only, and none can be made here ({why}).")
        answer = _supervised(work | {"limits": dataclasses.asdict(limits), "layers": usable}, limits.wall + _GRACE)
        if "unavailable" not in answer:
            return Outcome(**answer)
        if answer["unavailable"] not in usable:
            raise RuntimeError(f"Model code is run in a sandbox only, and none can be made here ({answer['why']}).")
        _absent[answer["unavailable"]] = answer["why"]


def _supervised(request: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What the supervisor answers. Raises RuntimeError with its last words where it does not."""
    folder = os.path.join(os.path.realpath(tempfile.gettempdir()), f"sandbox-{secrets.token_hex(8)}")
    line = json.dumps(request | _interpreter() | {"folder": folder, "environment": _environment(folder)}) + "\n"
    process = subprocess.Popen(
        [_python(), "-I", "-S", "-B", "-c", _START],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
        env={"LC_ALL": "C.UTF-8"}, start_new_session=True,
    )  # fmt: skip
    answered = select.poll()
    answered.register(process.stdout, select.POLLIN)
    try:
        with contextlib.suppress(BrokenPipeError):  # its last words say why
            process.stdin.write(line.encode())
            process.stdin.flush()
        ready = answered.poll(1e3 * seconds)
        if not ready:
            process.kill()
        said = process.stdout.read()
        words = process.stderr.read().decode(errors="replace").strip()
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # it ends the program then, and itself
        process.wait()
        process.stdout.close()
        process.stderr.close()
        if os.path.isdir(folder):  # the supervisor was killed
            watch.remove(folder)
    if not said:
        raise RuntimeError(f"The sandbox's supervisor ended with code {process.returncode}: {words[-500:]}")
    return json.loads(said)


def _python() -> str:
    """The installation's interpreter: of a virtual environment only the packages are needed."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


_ROOT = str(Path(__file__).resolve().parents[2])
_START = f"import sys; sys.path.insert(0, {_ROOT!r}); from specexit_jax.sandbox.supervisor import main; main()"


@functools.cache
def _interpreter() -> dict[str, Any]:
    """How Python is started inside, and what it must be able to read."""
    paths = sysconfig.get_paths()
    packages = list(dict.fromkeys(os.path.realpath(paths[name]) for name in ("purelib", "platlib")))
    library = os.path.dirname(os.path.realpath(paths["stdlib"]))  # libpython and others lie beside it
    inside = (Path(__file__).parent / "inside.py").read_text()
    return {
        "python": _python(),
        "arguments": ["-I", "-S", "-B", "-X", "utf8", "-c", inside, *packages],
        "readable": [*_SYSTEM, library, os.path.realpath(paths["platstdlib"]), *packages, _python()],
    }


def _environment(folder: str) -> dict[str, str]:
    """All of it. One thread for linear algebra: threads count as processes."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {"HOME": folder, "TMPDIR": folder, "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"} | threads
