"""launch.export: a draft written in every format is read back with the same outputs; a draft of another target is
refused."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import safe_open

from specexit_jax.engine.session import EMBEDDED
from specexit_jax.models.checkpoints.hf import load_draft, load_target, load_target_config
from specexit_jax.models.checkpoints.hf_draft import draft_tensors
from specexit_jax.models.checkpoints.hf_tensors import TensorSource

SPECULATORS = ("--format=speculators", "--dtype=float32")
ROOT = Path(__file__).resolve().parent.parent


def export(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "launch.export", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(("form", "layer_ids"), [("eagle", "outputs"), ("speculators", "inputs")])
def test_what_was_exported_is_imported_to_the_same_draft(tiny, tmp_path, form, layer_ids):
    out, draft = tmp_path / "out", shutil.copytree(tiny / "draft", tmp_path / "draft")
    config = json.loads((draft / "config.json").read_text()) | {"norm_before_residual": form == "eagle"}
    (draft / "config.json").write_text(json.dumps(config))
    arguments = (f"--draft={draft}", f"--out={out}", "--dtype=float32", f"--format={form}")
    done = export(*arguments, f"--target={tiny / 'target'}", f"--layer_ids={layer_ids}")
    assert done.returncode == 0, done.stderr
    assert ("SGLang does not" in done.stdout) == (form == "eagle")
    table = load_target(tiny / "target")[1]["embed"]["embedding"]
    before, after = load_draft(draft), load_draft(out, target_embedding=table)
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


def test_a_speculators_file_names_its_target(tiny, tmp_path):
    out = tmp_path / "out"
    arguments = (f"--draft={tiny / 'draft'}", f"--out={out}", "--format=speculators")
    done = export(*arguments)
    assert done.returncode == 1 and "add --target" in done.stderr and not out.exists()


@pytest.mark.slow
def test_the_speculators_library_loads_what_was_exported(tmp_path):
    """Every tensor of the bundled draft as the library holds it; its verifier's beside. It needs an environment of its own:

    python -m venv ENV && ENV/bin/pip install speculators==0.9.0
    SPECULATORS_PYTHON=ENV/bin/python bash launch/test.sh -m slow tests/test_export.py
    """
    python = os.environ.get("SPECULATORS_PYTHON") or (importlib.util.find_spec("speculators") and sys.executable)
    if not python:
        pytest.skip("SPECULATORS_PYTHON names no interpreter that has the library")
    target, out, loaded = EMBEDDED / "target", tmp_path / "out", tmp_path / "loaded.safetensors"
    done = export(f"--draft={EMBEDDED / 'draft'}", f"--target={target}", f"--out={out}", *SPECULATORS)
    assert done.returncode == 0, done.stderr
    command = [python, str(ROOT / "tests" / "speculators_case.py"), str(out), str(loaded)]
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=offline, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    with safe_open(loaded, "np") as file:
        about, theirs = json.loads(file.metadata()["config"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    before = load_draft(EMBEDDED / "draft")
    assert about["layer_ids"] == list(load_target_config(target).capture_layers)
    assert about["verifier"] == str(target.resolve()) and not about["norm_before_residual"]
    wanted = draft_tensors(before, "float32")
    wanted.pop("signal_head.weight")  # beside, where the library does not look
    verifier = TensorSource(target)
    wanted["embed_tokens.weight"] = verifier.read("model.embed_tokens.weight")
    wanted["verifier_norm.weight"] = verifier.read("model.norm.weight")
    head = "lm_head.weight" if "lm_head.weight" in verifier.names() else "model.embed_tokens.weight"
    wanted["verifier_lm_head.weight"] = verifier.read(head)[np.asarray(before.d2t)]
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(
            theirs.pop(name.replace("midlayer.", "layers.0.")), tensor.astype(np.float32), name
        )
    assert not theirs
