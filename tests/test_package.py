"""`pip install .`: the library and the bundled model, usable from any folder without the clone."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Ten lines of somebody who has installed it; the last ones say where it lies and what it answered.
LINES = """
from specexit_jax import SpecExit
model = SpecExit.load()
question = "State the final answer to the following arithmetic problem: 34 + 63 - 87 ="
answer = model.generate(question, temperature=0.8, max_new_tokens=880, method=None, seed=0)
assert answer.text == "10" and answer.exit.certificate.epsilon == 0.01, answer
assert answer.exit.signals["score"] > 0.98 and answer.usage.thinking_tokens > 0
print(model.session.target.vocab_size, answer.policy.path)
import specexit_jax
print(specexit_jax.__file__)
"""


def source(folder: Path) -> Path:
    """What a build reads, apart from the clone: a build leaves folders behind."""
    shutil.copytree(ROOT / "specexit_jax", folder / "specexit_jax", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def installed(python: str, *arguments: str) -> None:
    done = subprocess.run(
        [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def run_the_lines(python: str, folder: Path, packages: Path, **environment: str) -> None:
    """Runs LINES in `folder`; what they use lies in `packages`."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"JAX_PLATFORMS": "cpu"}
    clean["TF_CPP_MIN_LOG_LEVEL"] = "3"  # on a loaded machine XLA says that it compiles slowly
    done = subprocess.run(
        [python, "-W", "error", "-c", LINES], capture_output=True, text=True, cwd=folder, env=clean | environment
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    told = done.stdout.split()
    assert told[-1] == str(packages / "specexit_jax" / "__init__.py")
    assert told[-2] == str(packages / "specexit_jax" / "assets" / "embedded" / "policy.json")


def test_the_wheel_holds_the_library_and_answers_from_another_folder(tmp_path):
    packages, elsewhere = tmp_path / "packages", tmp_path / "elsewhere"
    elsewhere.mkdir()
    options = ("--no-deps", "--no-build-isolation", "--no-compile", f"--target={packages}")
    installed(sys.executable, *options, str(source(tmp_path / "source")))
    built = {str(path.relative_to(packages)) for path in (packages / "specexit_jax").rglob("*") if path.is_file()}
    tracked = subprocess.run(["git", "-C", str(ROOT), "ls-files", "specexit_jax"], capture_output=True, text=True)
    if tracked.returncode == 0:
        assert built >= {name for name in tracked.stdout.split() if (ROOT / name).is_file()}
    assert sorted(path.name for path in packages.iterdir() if "-" not in path.name) == ["specexit_jax"]
    assert len(list(packages.glob("*.dist-info/licenses/LICENSE"))) == 1
    run_the_lines(sys.executable, elsewhere, packages, PYTHONPATH=str(packages))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_fresh_environment_needs_nothing_else(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    installed(python, str(source(tmp_path / "source")))
    shutil.rmtree(tmp_path / "source")
    where = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
    )
    run_the_lines(python, tmp_path, Path(where.stdout.strip()), PYTHONPATH="")


def test_extras_have_the_bounds_of_the_requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = (ROOT / "requirements.txt").read_text() + (ROOT / "requirements-dev.txt").read_text()
    bounds = dict(re.findall(r"^([\w-]+)([<>=][^\s#]*)", lists, re.M))
    extras = project["optional-dependencies"]
    assert sorted(extras) == ["cuda13", "lm-eval", "serve", "tpu"]
    for wanted in (wanted for extra in extras.values() for wanted in extra):
        name, bound = re.fullmatch(r"([\w-]+)(?:\[\w+\])?(.*)", wanted).groups()
        assert bound == bounds[name]


def test_the_licence_is_the_standard_text():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text and len(text) == 11358
