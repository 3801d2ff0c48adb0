"""launch.generate called in the process of a test."""

import sys
from pathlib import Path

import pytest
from absl import flags

from launch import door, generate

PROMPT = "--prompt=Count the legs of 3 dogs."


def call(capsys, monkeypatch, *arguments: str, main=generate.main) -> tuple[int, str, str]:
    """Runs launch.generate (or another main) in this process: (exit code, standard output, standard error)."""
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    monkeypatch.setattr(sys, "argv", ["generate", *arguments])
    with pytest.raises(SystemExit) as stop:
        door.run(main)
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


def folders(folder: Path) -> list[str]:
    names = ("target", "draft", "policy.json")
    return ["--draft_tokens=2", *(f"--{name.partition('.')[0]}={folder / name}" for name in names)]
