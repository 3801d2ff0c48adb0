"""Digests of weights: equal for equal values in any format, sharding and stored type, and different otherwise."""

import dataclasses
import json
import time
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from signals_case import save_signals

from specexit_jax.annotation.signal_file import load_signals
from specexit_jax.models.checkpoints import content
from specexit_jax.models.checkpoints.content import draft_digest, former_digest, target_digest
from specexit_jax.models.checkpoints.hf import load_draft, load_target_config, save_draft
from specexit_jax.models.checkpoints.hf_draft_config import Verifier
from specexit_jax.models.checkpoints.raw_tensors import raw_tensors
from specexit_jax.storage.identity import Identity, file_digest, same
from specexit_jax.storage.shards import require_settings, write_report


def _draft(folder):
    return draft_digest(folder, load_draft(folder).config)


def _sharded(source, folder, change=lambda name, values: values, parts=2):
    """The checkpoint in shards, of which the index says nothing about values."""
    folder.mkdir()
    (folder / "config.json").write_text((source / "config.json").read_text())
    tensors = load_file(source / "model.safetensors")
    names, weight_map = sorted(tensors), {}
    for part in range(parts):
        file = f"model-{part}.safetensors"
        own = {name: np.array(change(name, tensors[name])) for name in names[part::parts]}
        save_file(own, folder / file)
        weight_map |= dict.fromkeys(own, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_two_fine_tunes_in_shards_do_not_look_alike(tiny, tmp_path):
    target = tiny / "target"
    plain = _sharded(target, tmp_path / "plain")
    tuned = _sharded(target, tmp_path / "tuned", lambda name, v: v * 1.001 if "q_proj" in name else v)
    assert (plain / "model.safetensors.index.json").read_bytes() == (
        tuned / "model.safetensors.index.json"
    ).read_bytes()
    assert former_digest(plain) == former_digest(tuned), "which is what was compared before"
    assert target_digest(plain) == target_digest(target) != target_digest(tuned)


@pytest.mark.parametrize("whole", [content.WHOLE, 100])
def test_the_stored_type_counts_only_where_it_changes_values(tiny, tmp_path, monkeypatch, whole):
    """A large target is sampled; the samples detect changes by training."""
    monkeypatch.setattr(content, "WHOLE", whole)
    monkeypatch.setattr(content, "BLOCK", 7)
    target = tiny / "target"
    wide = _sharded(target, tmp_path / "wide", lambda _, v: v.astype(jnp.bfloat16).astype(np.float32))
    narrow = _sharded(target, tmp_path / "narrow", lambda _, v: v.astype(jnp.bfloat16), parts=3)
    assert target_digest(wide) == target_digest(narrow) != target_digest(target)
    assert target_digest(wide).startswith("values:" if whole > 100 else "samples:")
    moved = _sharded(target, tmp_path / "moved", lambda name, v: -v if name.endswith("norm.weight") else v)
    assert target_digest(moved) != target_digest(target)


def test_other_computing_with_the_same_weights_is_another_target(tiny):
    config = load_target_config(tiny / "target")
    digests = {target_digest(tiny / "target", one) for one in (
        config, dataclasses.replace(config, rope_theta=1e6), dataclasses.replace(config, num_heads=1, num_kv_heads=1),
    )}  # fmt: skip
    assert len(digests) == 3
    assert target_digest(tiny / "target", dataclasses.replace(config, dtype="bfloat16", max_position=7)) in digests


@pytest.mark.parametrize("signals", ["fc", "draft", "none"])
def test_a_draft_is_the_same_in_every_format(tiny, tmp_path, signals):
    bundle = load_draft(tiny / "draft")
    params = dict(bundle.params)
    if signals != "fc":
        params["fc"] = params["fc"][:, :16]
    if signals == "draft":
        params["signal_head"] = jnp.ones((16, 3), jnp.float32)
    bundle = dataclasses.replace(bundle, config=dataclasses.replace(bundle.config, signals=signals), params=params)
    table = np.asarray(np.random.default_rng(0).normal(size=(bundle.config.vocab_size, 16)), np.float32)
    found = {}
    for form in ("angelslim", "eagle", "speculators"):
        save_draft(tmp_path / form, bundle, "float32", form, verifier=Verifier("a/b", ("X",), table))
        found[form] = draft_digest(tmp_path / form, load_draft(tmp_path / form, target_embedding=table).config)
    _sharded(tmp_path / "angelslim", tmp_path / "shards")
    found["shards"] = _draft(tmp_path / "shards")
    assert len(set(found.values())) == 1, found
    save_draft(tmp_path / "rounded", bundle, "bfloat16")
    one = _sharded(tmp_path / "angelslim", tmp_path / "one", lambda name, v: v + (name == "norm.weight") * 1e-6)
    assert len({_draft(tmp_path / "rounded"), _draft(one), found["shards"]}) == 3


def test_torchs_files_are_read_where_they_lie(tiny, tmp_path):
    torch = pytest.importorskip("torch")
    target, folder = tiny / "target", tmp_path / "torch"
    folder.mkdir()
    (folder / "config.json").write_text((target / "config.json").read_text())
    tensors = {name: torch.tensor(values) for name, values in load_file(target / "model.safetensors").items()}
    strided = {name: v.T.contiguous().T if v.ndim == 2 else v for name, v in tensors.items()}
    for members in (tensors, strided):
        torch.save(members, folder / "pytorch_model.bin")
        assert target_digest(folder) == target_digest(target)
    assert {raw.start is None for raw in raw_tensors(folder).values()} == {True, False}
    with zipfile.ZipFile(folder / "pytorch_model.bin") as file:
        assert file.testzip() is None


def test_a_large_target_costs_little(tmp_path):
    """A sparse file with a tensor of 2 GB: only its samples are read."""
    size = 2**29
    header = json.dumps({"big": {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]}}).encode()
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 4 * size)
    raw, began = raw_tensors(tmp_path)["big"], time.process_time()
    content._hashed(raw, 0, size, False)
    assert time.process_time() - began < 0.5
    with pytest.raises(ValueError, match="ends inside tensor big"):
        list(raw._replace(shape=(size + 9,)).chunks([(size - 1, size + 9)]))
    with path.open("r+b") as file:
        file.truncate(40)
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        raw_tensors(tmp_path)


def test_what_earlier_versions_wrote_is_known(tiny, tmp_path):
    """Signals and settings of an older workdir are accepted; those of another model are not."""
    digest, former = _draft(tiny / "draft"), file_digest(tiny / "draft" / "model.safetensors")
    save_signals(tmp_path / "signals.npz", {"a": np.ones((2, 3), np.float32)}, former)
    assert list(load_signals(tmp_path / "signals.npz", digest)) == ["a"]
    with pytest.raises(ValueError, match="another draft"):
        load_signals(tmp_path / "signals.npz", Identity("values:1", lambda: "sha256:2"))
    (tmp_path / "traces.jsonl").write_text("{}\n")
    name = target_digest(tiny / "target").renamed(lambda text: f"target {text}")
    write_report(tmp_path / "rollout.json", {"target": f"target {former_digest(tiny / 'target')}"}, {})
    require_settings(tmp_path, "rollout", {"target": name})
    for other in ("target values:1", Identity("other values:1", lambda: "other sha256:2")):
        with pytest.raises(ValueError, match="was made with target"):
            require_settings(tmp_path, "rollout", {"target": other})
    assert not same(digest, None) and same(None, None) and not same(None, former)
    with pytest.raises(FileNotFoundError, match="no such weights file"):
        former_digest(tmp_path)
