"""A stand-in for the sandbox where a test runs programs that we wrote ourselves: a plain child process."""

import dataclasses
import subprocess
import sys
import types


@dataclasses.dataclass(frozen=True)
class Outcome:
    status: str
    stdout: str
    stderr: str = ""
    seconds: float = 0.0


def run_python(program: str, limits: object = None, stdin: str = "") -> Outcome:
    command = [sys.executable, "-I", "-c", program]
    try:
        ended = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return Outcome("timeout", "")
    return Outcome("failed" if ended.returncode else "passed", ended.stdout, ended.stderr)


def unboxed(monkeypatch, run=run_python) -> None:
    """Programs run by `run` instead of in the sandbox."""
    module = types.ModuleType("specexit_jax.sandbox.run")
    module.run_python = run
    monkeypatch.setitem(sys.modules, "specexit_jax.sandbox", types.ModuleType("specexit_jax.sandbox"))
    monkeypatch.setitem(sys.modules, "specexit_jax.sandbox.run", module)
