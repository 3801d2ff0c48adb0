"""MTP layers in files: out of a target's own checkpoint, in folders of their own, and as the engines read them."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from mtp_case import FAMILIES, TARGETS, bundle_of
from mtp_engines_case import load
from random_params import random_params
from safetensors.numpy import load_file, save_file

from specexit_jax.engine.session import load_session, without_signals
from specexit_jax.models.checkpoints.content import draft_digest
from specexit_jax.models.checkpoints.drafts import load_draft, save_draft
from specexit_jax.models.checkpoints.hf import load_target, load_target_config, save_target, verifier_of
from specexit_jax.models.checkpoints.hf_layout import shapes, target_layout
from specexit_jax.models.checkpoints.hf_mtp import layout_of
from specexit_jax.models.mtp_config import mtp_config
from specexit_jax.models.target import init_target

PUBLISHED = Path(__file__).parent / "fixtures" / "published" / "mimo-7b-rl.json"


def write_target(folder: Path, family: str, bundle=None) -> dict[str, np.ndarray]:
    """A target's folder whose checkpoint holds the MTP layer too; returns the layer's tensors."""
    save_target(folder, TARGETS[family], random_params(init_target, TARGETS[family], 1), extra={"eos_token_id": 1})
    save_draft(folder.parent / "layer", bundle or bundle_of(family, signals="none"))
    layer = load_file(folder.parent / "layer" / "model.safetensors")
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | layer, folder / "model.safetensors")
    if family == "qwen3_next":
        edit(folder, partial_rotary_factor=0.5)
    return layer


def edit(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_every_tensor_of_mimo_7b_rl_is_known_by_name_and_shape(tmp_path):
    """Its published config; the checkpoint has 7,833,409,536 parameters."""
    (tmp_path / "config.json").write_text(PUBLISHED.read_text())
    target = load_target_config(tmp_path)
    draft = mtp_config(target, "mimo", signals="none")
    found = shapes(target_layout(target)) | shapes(layout_of(draft))
    assert sum(int(np.prod(shape)) for shape in found.values()) == 7_833_409_536
    root, width = "model.mtp_layers.0", 4096
    assert {name: shape for name, shape in found.items() if "mtp" in name} == {
        f"{root}.input_layernorm.weight": (width,),
        f"{root}.post_attention_layernorm.weight": (width,),
        f"{root}.token_layernorm.weight": (width,),
        f"{root}.hidden_layernorm.weight": (width,),
        f"{root}.final_layernorm.weight": (width,),
        f"{root}.input_proj.weight": (width, 2 * width),
        f"{root}.self_attn.q_proj.weight": (width, width),
        f"{root}.self_attn.q_proj.bias": (width,),
        f"{root}.self_attn.k_proj.weight": (1024, width),
        f"{root}.self_attn.k_proj.bias": (1024,),
        f"{root}.self_attn.v_proj.weight": (1024, width),
        f"{root}.self_attn.v_proj.bias": (1024,),
        f"{root}.self_attn.o_proj.weight": (width, width),
        f"{root}.mlp.gate_proj.weight": (11008, width),
        f"{root}.mlp.up_proj.weight": (11008, width),
        f"{root}.mlp.down_proj.weight": (width, 11008),
    }
    assert found["model.layers.35.self_attn.k_proj.bias"] == (1024,)
    assert found["lm_head.weight"] == found["model.embed_tokens.weight"] == (151680, width)
    assert draft.rope_theta == 640_000 and draft.rms_norm_eps == 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layer_of_a_checkpoint_is_its_builtin_draft(family, tmp_path, capsys):
    bundle = bundle_of(family, signals="none")
    write_target(tmp_path / "target", family)
    config, params = load_target(tmp_path / "target")  # without the draft, the layer is let be
    jax.tree.map(np.testing.assert_array_equal, params, random_params(init_target, TARGETS[family], 1))
    assert config == TARGETS[family]
    session = load_session(tmp_path / "target", "builtin")
    expected = dataclasses.replace(bundle.config, max_position=TARGETS[family].max_position)
    assert session.draft == expected
    assert session.target.capture == bundle.config.reads
    assert "lm_head" not in session.params.draft and "embed" not in session.params.draft  # the target's, stored once
    jax.tree.map(np.testing.assert_allclose, session.params.draft, bundle.params)
    assert session.draft_digest == draft_digest(tmp_path / "layer", session.draft)
    again = load_session(tmp_path / "target", tmp_path / "layer")
    assert again.draft == session.draft
    assert "makes no use" not in capsys.readouterr().err
    assert load_session(tmp_path / "target").draft is None
    assert "holds an MTP layer, of which plain decoding makes no use: the draft 'builtin'" in capsys.readouterr().err


@pytest.mark.parametrize("family", FAMILIES)
def test_folders_of_our_own_keep_signals_beside_the_layer(family, tmp_path):
    bundle = bundle_of(family)
    save_draft(tmp_path, bundle)
    assert list(load_file(tmp_path / "signals.specexit")) == ["signal_head.weight"]
    first = load_file(tmp_path / "model.safetensors")
    again = load_draft(tmp_path)
    assert again.config == bundle.config
    save_draft(tmp_path, again)
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        np.testing.assert_array_equal(tensor, first[name], err_msg=name)
    digest = draft_digest(tmp_path, again.config)
    save_draft(tmp_path, again.replace(params=again.params | {"signal_head": again.params["signal_head"] + 1}))
    assert draft_digest(tmp_path, again.config) != digest
    (tmp_path / "signals.specexit").unlink()
    with pytest.raises(ValueError, match="missing: signal_head.weight"):
        draft_digest(tmp_path, again.config)


@pytest.mark.parametrize(
    ("family", "engine"), [("mimo", "vllm"), ("mimo", "sglang"), ("deepseek_v3", "vllm"), ("qwen3_next", "vllm")]
)
def test_engines_fill_every_parameter_from_an_exported_folder(family, engine, tmp_path):
    layer = write_target(tmp_path / "target", family)
    verifier = verifier_of(str(tmp_path / "target"))
    save_draft(tmp_path / "out", bundle_of(family), form="checkpoint", verifier=verifier)
    filled = load(tmp_path / "out", family, engine)
    head = next(
        tensor
        for name, tensor in filled.items()
        if name.endswith("head.weight") and tensor.shape == verifier.head.shape
    )
    np.testing.assert_array_equal(head, verifier.head)
    q_proj = next(tensor for name, tensor in layer.items() if name.endswith("q_proj.weight"))
    np.testing.assert_array_equal(next(v for k, v in filled.items() if k.endswith("q_proj.weight")), q_proj)
    again = load_session(tmp_path / "target", tmp_path / "out")  # the tables are the target's: dropped
    assert "lm_head" not in again.params.draft and again.draft.signals == "draft"
    assert without_signals(again).draft.signals == "none"
    if engine == "vllm":  # a folder without tables is one that it stops at
        save_draft(tmp_path / "bare", bundle_of(family))
        with pytest.raises(AssertionError, match="embed_tokens"):
            load(tmp_path / "bare", family, engine)


def test_a_head_of_its_own_is_kept_and_the_targets_is_not(tmp_path):
    """DeepSeek's files hold a copy of head and table in the layer."""
    target = TARGETS["deepseek_v3"]
    own = bundle_of("deepseek_v3", signals="none", own_head=True)
    write_target(tmp_path / "target", "deepseek_v3", own)
    edit(tmp_path / "layer", specexit_draft=None)
    session = load_session(tmp_path / "target", "builtin")
    assert session.draft.own_head
    np.testing.assert_array_equal(session.params.draft["lm_head"], own.params["lm_head"])
    tensors = load_file(tmp_path / "target" / "model.safetensors")
    root = f"model.layers.{target.num_layers}"
    tensors[f"{root}.shared_head.head.weight"] = tensors["lm_head.weight"]
    tensors[f"{root}.embed_tokens.weight"] = tensors["model.embed_tokens.weight"]
    save_file(tensors, tmp_path / "target" / "model.safetensors")
    session = load_session(tmp_path / "target", "builtin")
    assert not session.draft.own_head and not session.draft.own_embedding
    tensors[f"{root}.embed_tokens.weight"] = tensors["model.embed_tokens.weight"] + 1
    save_file(tensors, tmp_path / "target" / "model.safetensors")
    assert load_session(tmp_path / "target", "builtin").draft.own_embedding


@pytest.mark.parametrize("family", ["mimo", "deepseek_v3"])
def test_of_several_layers_the_first_makes_the_drafts(family, tmp_path, capsys):
    layer = write_target(tmp_path / "target", family)
    root, other = {
        "mimo": ("model.mtp_layers.0.", "model.mtp_layers.10."),
        "deepseek_v3": ("model.layers.1.", "model.layers.10."),
    }[family]
    tensors = load_file(tmp_path / "target" / "model.safetensors")
    more = {name.replace(root, other): tensor + 1 for name, tensor in layer.items()}
    save_file(tensors | more, tmp_path / "target" / "model.safetensors")
    session = load_session(tmp_path / "target", "builtin")
    jax.tree.map(np.testing.assert_array_equal, session.params.draft, bundle_of(family, signals="none").params)
    assert "has 2 MTP layers: the first of them makes all drafts" in capsys.readouterr().err


def experts(tensors: dict) -> None:
    tensors["mtp.layers.0.mlp.experts.0.gate_proj.weight"] = tensors.pop("mtp.layers.0.mlp.gate_proj.weight")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (experts, "experts and latent attention are not computed here"),
        (lambda t: t.pop("mtp.norm.weight"), "missing: mtp.norm.weight"),
        (lambda t: t.update({"mtp.layers.1.x": t["mtp.norm.weight"]}), "unknown: mtp.layers.1.x"),
        (lambda t: t.update({"mtp.norm.weight": t["mtp.norm.weight"][:3]}), r"misshapen: mtp.norm.weight \[3\]"),
    ],
)
def test_layers_that_ours_cannot_compute_are_refused(change, sentence, tmp_path):
    write_target(tmp_path / "target", "qwen3_next")
    tensors = load_file(tmp_path / "target" / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "target" / "model.safetensors")
    with pytest.raises(ValueError, match=sentence):
        load_session(tmp_path / "target", "builtin")


def test_a_checkpoint_without_a_layer_has_no_builtin_draft(tmp_path):
    save_target(tmp_path, TARGETS["mimo"], random_params(init_target, TARGETS["mimo"], 1), extra={"eos_token_id": 1})
    with pytest.raises(ValueError, match="holds no MTP layer, which the draft 'builtin' names"):
        load_session(tmp_path, "builtin")
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["MiMoForCausalLM"]
    with pytest.raises(ValueError, match="not written as 'eagle': choose among mtp, checkpoint"):
        save_draft(tmp_path / "out", bundle_of("mimo"), form="eagle")
    with pytest.raises(ValueError, match="written with its target's tables: give its target"):
        save_draft(tmp_path / "out", bundle_of("mimo"), form="checkpoint")
