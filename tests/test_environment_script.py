"""The scripts that make an environment."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


FAKE_PYTHON = """#!/usr/bin/env bash
case "$1 $2" in
  "-c "*) exec {python} "$@" ;;
  "-m venv") mkdir -p "${{@: -1}}/bin" && cp "$0" "${{@: -1}}/bin/python" ;;
  "-m pip") echo install >>{log}; exit "$(cat {code})" ;;
esac
"""


def test_the_environment_is_installed_once_and_again_when_its_list_changes(tmp_path):
    log, code, base = tmp_path / "log", tmp_path / "code", tmp_path / "python"
    base.write_text(FAKE_PYTHON.format(python=sys.executable, log=log, code=code))
    base.chmod(0o755)
    (tmp_path / "requirements.txt").write_text("a")
    script = f'root={tmp_path}; source {ROOT}/launch/environment.sh; prepare {tmp_path}/venv "$root/requirements.txt"'

    def prepare(exit_code: int) -> tuple[int, int]:
        code.write_text(str(exit_code))
        done = subprocess.run(["bash", "-euc", script], env={**os.environ, "PYTHON": str(base)}, capture_output=True)
        return done.returncode, len(log.read_text().splitlines())

    assert prepare(1) == (1, 1)  # a failed installation is not taken for a finished one
    assert prepare(0) == (0, 2)
    assert prepare(0) == (0, 2)
    (tmp_path / "requirements.txt").write_text("b")
    assert prepare(0) == (0, 3)


def test_a_missing_interpreter_is_named():
    done = subprocess.run(
        ["bash", str(ROOT / "launch" / "demo.sh")],
        env={**os.environ, "PYTHON": "python9"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no 'python9'")
