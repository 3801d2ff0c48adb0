"""The container of the server: its files are there, and the script that builds it says what is wrong. Nothing is built here."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "launch" / "container"


def built(folder: Path, *arguments: str, tools: str = "") -> subprocess.CompletedProcess:
    """build.sh with `podman` as this script, or with neither tool."""
    for name in ("bash", "dirname"):
        (folder / name).symlink_to(shutil.which(name))
    if tools:
        (folder / "podman").write_text(tools)
        (folder / "podman").chmod(0o755)
    command = [shutil.which("bash"), str(FOLDER / "build.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PATH": str(folder)})


def test_what_it_copies_and_installs_is_there():
    text = (FOLDER / "Containerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (.*) \S+$", text, re.M) for name in line.split()]
    assert {"specexit_jax", "launch", "configs", "pyproject.toml"} <= set(copied) and all(
        (ROOT / name).exists() for name in copied
    )
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = re.findall(r"extras=(\S+) ;;", (FOLDER / "build.sh").read_text())
    assert asked == ["serve", "serve,cuda13"] and {name for one in asked for name in one.split(",")} <= set(extras)


def test_the_script_builds_a_variant_from_the_root(tmp_path):
    done = built(tmp_path, "cuda", "mine", tools='#!/bin/sh\necho "$PWD" "$@"\n')
    words = done.stdout.split()
    assert (done.returncode, words[0], words[-1]) == (0, str(ROOT), ".")
    assert "EXTRAS=serve,cuda13" in words and words[words.index("--tag") + 1] == "mine"


def test_a_wrong_variant_and_a_lack_of_tools_are_told(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder, arguments, told in (
        ("a", ["tpu"], "the variants are cpu and cuda, not tpu"),
        ("b", [], "neither podman nor docker"),
    ):
        done = built(tmp_path / folder, *arguments)
        assert done.returncode == 1 and told in done.stderr
