"""A stand-in for the sandbox where a test runs programs that we wrote ourselves: a plain child process, tests and all."""

import dataclasses
import json
import subprocess
import sys
import sysconfig
import types
from pathlib import Path

from specexit_jax.sandbox.run import Trial

_TRIAL = """
import json, random, sys
sys.path += {paths!r}
from specexit_jax.sandbox.judged.program import load, public
trial, held = json.load(sys.stdin), {{}}
if trial["seed"] is not None: random.seed(trial["seed"])
for text in trial["programs"]: held |= load("solution", text, public(held))
given, subject = public(load("given", trial["given"], {{}})), trial["subject"]
tests = load("tests", trial["tests"], public(held) | given | {{subject: held[subject]}})
told = load("verdict", trial["verdict"], {{"tests": tests, "program": held[subject]}}).get("told", "")
sys.__stdout__.write("\\nreached " + told + "\\n")
"""


@dataclasses.dataclass(frozen=True)
class ProgramResult:
    status: str
    stdout: str
    stderr: str = ""
    seconds: float = 0.0
    told: str | None = None


def run_python(program: str, limits: object = None, stdin: str = "", more: tuple[str, ...] = ()) -> ProgramResult:
    command = [sys.executable, "-I", *more, "-c", program]
    try:
        ended = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return ProgramResult("timeout", "")
    return ProgramResult("failed" if ended.returncode else "passed", ended.stdout, ended.stderr)


def run_trial(trial: Trial, limits: object = None, stdin: str = "") -> ProgramResult:
    text = _TRIAL.format(paths=[str(Path(__file__).parents[1]), sysconfig.get_path("purelib")])
    found = run_python(text, limits, json.dumps(dataclasses.asdict(trial)), more=("-S",))  # it starts in half the time
    ends = [line for line in found.stdout.splitlines() if line.startswith("reached ")]
    if found.status != "passed" or not ends:
        return dataclasses.replace(found, status="failed" if found.status == "passed" else found.status)
    return dataclasses.replace(found, told=ends[-1].removeprefix("reached "))


def unboxed(monkeypatch, run=run_python, trial=run_trial) -> None:
    """Programs run by `run`, and with their tests by `trial`, instead of in the sandbox."""
    module = types.ModuleType("specexit_jax.sandbox.run")
    module.run_python, module.run_trial, module.Trial = run, trial, Trial
    monkeypatch.setitem(sys.modules, "specexit_jax.sandbox", types.ModuleType("specexit_jax.sandbox"))
    monkeypatch.setitem(sys.modules, "specexit_jax.sandbox.run", module)
