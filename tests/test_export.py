"""launch.export: a draft goes out in every format and comes back with the same outputs; another target's is refused."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_folders import write_tiny

from specexit_jax.models.hf import load_draft

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"))


def export(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "launch.export", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(("form", "layer_ids"), [("eagle", "outputs"), ("speculators", "inputs")])
def test_what_was_exported_is_imported_to_the_same_draft(tiny, tmp_path, form, layer_ids):
    out = tmp_path / "out"
    arguments = (f"--draft={tiny / 'draft'}", f"--out={out}", "--dtype=float32", f"--format={form}")
    done = export(*arguments, f"--target={tiny / 'target'}", f"--layer_ids={layer_ids}")
    assert done.returncode == 0, done.stderr
    before, after = load_draft(tiny / "draft"), load_draft(out)
    assert after.config == before.with_capture((0, 1, 1)).config
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
    np.testing.assert_array_equal(after.d2t, before.d2t)
    again = export(*arguments)
    assert again.returncode == 1 and "is not empty" in again.stderr


def test_a_draft_of_another_target_is_refused(tiny, tmp_path):
    other = tmp_path / "target"
    other.mkdir()
    config = json.loads((tiny / "target" / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"vocab_size": 999}))
    out = tmp_path / "out"
    done = export(f"--draft={tiny / 'draft'}", f"--out={out}", f"--target={other}")
    assert done.returncode == 1 and "made for a target of vocabulary" in done.stderr
    assert not out.exists()
