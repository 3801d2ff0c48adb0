"""Exported folders in vLLM and SGLang, by the rules of their loaders (engines_case.py)."""

import json

import numpy as np
import pytest
from engines_case import captured_by_sglang, captured_by_vllm, globbed, load_in_sglang, load_in_vllm, parameters
from safetensors.numpy import load_file, save_file
from test_hf_draft import VERIFIER, make_bundle

from specexit_jax.models.checkpoints.hf import load_draft, save_draft
from specexit_jax.models.checkpoints.hf_draft import draft_tensors
from specexit_jax.models.checkpoints.hf_draft_config import FORMATS

LAYERS = 9  # whose default layers are (2, 4, 6)


@pytest.mark.parametrize("signals", ["fc", "draft", "none"])
@pytest.mark.parametrize("form", FORMATS)
def test_the_engines_fill_every_parameter_and_meet_no_other(form, signals, tmp_path):
    bundle = make_bundle(signals=signals)
    save_draft(tmp_path, bundle, form=form, verifier=VERIFIER)
    assert load_draft(tmp_path, target_embedding=VERIFIER.embedding).config == bundle.config
    wanted = draft_tensors(make_bundle(signals="none"), "float32")
    wanted |= {name: tensor for name, tensor in draft_tensors(bundle, "float32", apart=True).items() if name in wanted}
    if form == "angelslim" and signals != "none":  # one tensor, or one more: for AngelSlim and this project alone
        with pytest.raises(AssertionError if signals == "fc" else KeyError, match="fc.weight|signal_head"):
            load_in_vllm(tmp_path)
        return
    filled = load_in_vllm(tmp_path)
    assert [path.name for path in globbed(tmp_path)] == ["model.safetensors"]
    config = json.loads((tmp_path / "config.json").read_text())
    layer = config.get("transformer_layer_config", config) | {"draft_vocab_size": 20}
    table = set() if form == "speculators" else {"model.embed_tokens"}  # without it the target's is shared
    assert set(filled) == set(parameters(layer, "layers.0")) - table | {"draft_id_to_target_id"}
    np.testing.assert_array_equal(filled["model.fc"], wanted["fc.weight"])
    np.testing.assert_array_equal(
        filled["model.layers.0.mlp.gate_up_proj:up_proj"], wanted["midlayer.mlp.up_proj.weight"]
    )
    np.testing.assert_array_equal(filled["draft_id_to_target_id"] + np.arange(20), bundle.d2t)
    if form == "speculators":  # vLLM's own; SGLang would drop the layer
        return
    filled, dropped = load_in_sglang(tmp_path)
    assert set(filled) == set(parameters(layer, "midlayer")) - {"model.embed_tokens"} | {"hot_token_id"} and not dropped
    np.testing.assert_array_equal(filled["model.fc"], wanted["fc.weight"])
    np.testing.assert_array_equal(filled["hot_token_id"], bundle.d2t)


@pytest.mark.parametrize("signals", ["fc", "draft"])
def test_folders_of_before_are_still_read(signals, tmp_path):
    """Older folders hold signals in signals.safetensors; rewriting a folder removes other weight files."""
    bundle = make_bundle(signals=signals)
    save_draft(tmp_path, bundle, form="eagle")
    save_file(load_file(tmp_path / "signals.specexit"), tmp_path / "signals.safetensors")
    (tmp_path / "signals.specexit").unlink()
    again = load_draft(tmp_path)
    assert again.config == bundle.config
    for leaf, name in ((again.params["fc"], "fc"), (again.params.get("signal_head"), "signal_head")):
        np.testing.assert_array_equal(leaf, bundle.params.get(name))
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    save_draft(tmp_path, bundle, form="eagle")
    assert [path.name for path in globbed(tmp_path)] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("form", "layer_ids", "vllm", "sglang"),
    [
        ("eagle", "both", (2, 3, 5), (2, 3, 5)),
        ("angelslim", "both", (2, 3, 5), (2, 3, 5)),
        ("eagle", "inputs", (2, 3, 5), None),
        ("eagle", "outputs", None, (2, 3, 5)),
        ("speculators", "both", (2, 3, 5), None),
        ("speculators", "inputs", (2, 3, 5), None),
    ],
)
def test_each_engine_captures_the_layers_that_the_draft_was_trained_on(form, layer_ids, vllm, sglang, tmp_path):
    """None: the engine's key is missing, so the engine uses its default."""
    save_draft(
        tmp_path, make_bundle(signals="none", capture=(2, 3, 5)), form=form, layer_ids=layer_ids, verifier=VERIFIER
    )
    assert captured_by_vllm(tmp_path, LAYERS) == (vllm or (2, 4, 6))
    assert captured_by_sglang(tmp_path, LAYERS) == (sglang or (2, 4, 6))
    assert load_draft(tmp_path).config.capture == (2, 3, 5)


def test_speculators_count_inputs():
    with pytest.raises(ValueError, match="speculators files count the layers' inputs"):
        save_draft("unused", make_bundle(), form="speculators", layer_ids="outputs", verifier=VERIFIER)
