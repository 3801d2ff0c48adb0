"""Drafts agree with the equations of EAGLE; every format is written and read back; bad files are refused with the
tensor's name."""

import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from random_params import random_params
from safetensors.numpy import load_file, save_file

from specexit_jax.models.checkpoints.hf import load_draft, save_draft
from specexit_jax.models.checkpoints.hf_draft_config import FORMATS, Verifier
from specexit_jax.models.checkpoints.torch_file import TorchFile
from specexit_jax.models.config import DraftConfig, TargetConfig, check_pair
from specexit_jax.models.draft import draft_of, init_draft
from specexit_jax.models.draft_layer import DraftBundle

VERIFIER = Verifier("some/target", ("Qwen3ForCausalLM",), np.zeros((48, 16), np.float32))


def edit_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def twice(tensors):
    """Draft id 3 stands for the same token as draft id 2, and the mask agrees with that."""
    tensors["t2d"][3 + tensors["d2t"][3]] = False
    tensors["d2t"][3] = tensors["d2t"][2] - 1


def make_bundle(**changes) -> DraftBundle:
    config = DraftConfig(16, 16, 24, 4, 2, 8, vocab_size=48, draft_vocab_size=20, capture=(2, 3, 4))
    config = dataclasses.replace(config, **changes)
    ids = np.sort(np.random.default_rng(1).permutation(48)[: config.draft_vocab_size])
    return DraftBundle(config=config, params=random_params(init_draft, config, 2), d2t=jnp.asarray(ids, jnp.int32))


def _without(config: dict, key: str) -> dict:
    """A config.json, and the layer's inside it, less one key."""
    return {name: _without(x, key) if isinstance(x, dict) else x for name, x in config.items() if name != key}


def test_a_sliding_window_is_kept_under_the_names_that_others_read(tmp_path):
    """vLLM reads layer_types of a draft's layer, readers of Qwen configs use_sliding_window. A window that is off is none."""
    bundle = make_bundle(sliding_window=512)
    for form in FORMATS:
        folder = tmp_path / form
        save_draft(folder, bundle, form=form, verifier=VERIFIER)
        assert load_draft(folder, target_embedding=VERIFIER.embedding).config == bundle.config
        whole = json.loads((folder / "config.json").read_text())
        layer = whole.get("transformer_layer_config", whole)
        assert layer["sliding_window"] == 512 and layer["use_sliding_window"]
        assert layer["layer_types"] == ["sliding_attention"]
        for silent in ("use_sliding_window", "layer_types"):
            (folder / "config.json").write_text(json.dumps(_without(whole, silent)))
            assert load_draft(folder).config.sliding_window == 512
    for off in ({"use_sliding_window": False}, {"layer_types": ["full_attention"]}, {"sliding_window": None}):
        save_draft(tmp_path, make_bundle())
        path = tmp_path / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"sliding_window": 64} | off))
        assert load_draft(tmp_path).config.sliding_window == 0


@pytest.mark.parametrize("signals", ["fc", "draft", "none"])
def test_draft_comes_back_as_it_went(signals, tmp_path):
    bundle = make_bundle(signals=signals, norm_before_residual=signals == "draft")
    save_draft(tmp_path, bundle)
    again = load_draft(tmp_path)
    assert again.config == bundle.config
    np.testing.assert_array_equal(again.d2t, bundle.d2t)
    jax.tree.map(np.testing.assert_array_equal, again.params, bundle.params)

    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors["fc.weight"].shape == (16 + 3 * (signals == "fc"), 48)
    assert tensors["midlayer.self_attn.q_proj.weight"].shape == (32, 32)
    assert tensors["d2t"].dtype == np.int64 and tensors["t2d"].dtype == np.bool_
    np.testing.assert_array_equal(tensors["d2t"] + np.arange(20), bundle.d2t)
    np.testing.assert_array_equal(np.flatnonzero(tensors["t2d"]), bundle.d2t)


def test_draft_equals_the_equations_of_eagle(tmp_path):
    """The file's tensors under docs/method.md §8, written out in numpy for one pair, without any code of the model."""
    bundle = make_bundle(num_heads=2, num_kv_heads=2)
    save_draft(tmp_path, bundle)
    w = load_file(tmp_path / "model.safetensors")
    rng = np.random.default_rng(3)
    features, embedded = rng.normal(size=48).astype(np.float32), rng.normal(size=16).astype(np.float32)

    def norm(x, name):
        return x / np.sqrt(np.mean(x * x) + bundle.config.rms_norm_eps) * w[name + ".weight"]

    fused = w["fc.weight"] @ features
    hidden, raw = fused[:16], fused[16:]
    x = np.concatenate([norm(embedded, "midlayer.input_layernorm"), norm(hidden, "midlayer.hidden_norm")])
    # A lone pair attends to itself: attention is its value.
    hidden = hidden + w["midlayer.self_attn.o_proj.weight"] @ (w["midlayer.self_attn.v_proj.weight"] @ x)
    x = norm(hidden, "midlayer.post_attention_layernorm")
    gate, up = (w[f"midlayer.mlp.{name}_proj.weight"] @ x for name in ("gate", "up"))
    hidden = hidden + w["midlayer.mlp.down_proj.weight"] @ (gate / (1 + np.exp(-gate)) * up)
    logits = w["lm_head.weight"] @ norm(hidden, "norm")

    model, variables = draft_of(bundle.config), {"params": bundle.params}
    ours, ours_raw = model.apply(variables, features[None, None], method="fuse")
    out = model.apply(variables, embedded[None, None], ours, jnp.zeros((1, 1), jnp.int32))
    np.testing.assert_allclose(ours_raw[0, 0], raw, atol=1e-5)
    np.testing.assert_allclose(out.hidden[0, 0], hidden, atol=1e-5)
    np.testing.assert_allclose(out.logits[0, 0], logits, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop("fc.weight"), "missing: fc.weight"),
        (lambda t: t.update({"midlayer.q_norm.weight": t["d2t"]}), "unknown: midlayer.q_norm.weight"),
        (lambda t: t.update({"norm.weight": t["norm.weight"][:8]}), r"misshapen: norm.weight \[8\] instead of \[16\]"),
        (lambda t: t.update({"d2t": t["d2t"] + np.arange(20)}), "d2t must hold offsets"),
        (lambda t: twice(t), "draft ids 2 and 3 both stand for token"),
        (
            lambda t: t.update({"embed_tokens.weight": t["lm_head.weight"]}),
            r"misshapen: embed_tokens.weight \[20, 16\]",
        ),
    ],
)
def test_drafts_that_do_not_fit_are_refused(change, sentence, tmp_path):
    save_draft(tmp_path, make_bundle())
    edit_tensors(tmp_path, change)
    with pytest.raises(ValueError, match=sentence):
        load_draft(tmp_path)


def test_draft_files_of_others(tmp_path):
    """Without `signals` and the number of key heads, shapes tell them. An embedding table like the target's is dropped."""
    bundle = make_bundle(num_kv_heads=4, capture=None)
    save_draft(tmp_path, bundle)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for key in ("signals", "signal_order", "norm_before_residual", "num_key_value_heads", "target_hidden_size"):
        del config[key]
    path.write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"]}))
    table = np.random.default_rng(5).normal(size=(48, 16)).astype(np.float32)
    edit_tensors(tmp_path, lambda tensors: tensors.update({"embed_tokens.weight": table}))
    again = load_draft(tmp_path, target_embedding=table)
    assert again.config == bundle.config and "embed" not in again.params
    own = load_draft(tmp_path, target_embedding=table + 1)
    assert own.config == dataclasses.replace(bundle.config, own_embedding=True)
    np.testing.assert_array_equal(own.params["embed"]["embedding"], table)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("signals", ["fc", "none"])
def test_every_format_comes_back_as_it_went(form, signals, tmp_path):
    bundle = make_bundle(signals=signals, own_embedding=form == "speculators", norm_before_residual=form == "eagle")
    if form == "speculators":
        table = jnp.asarray(np.random.default_rng(5).normal(size=(48, 16)), jnp.float32)
        bundle = bundle.replace(params=bundle.params | {"embed": {"embedding": table}})
    save_draft(tmp_path, bundle, form=form, verifier=VERIFIER)
    again = load_draft(tmp_path)
    assert again.config == bundle.config
    np.testing.assert_array_equal(again.d2t, bundle.d2t)
    jax.tree.map(np.testing.assert_array_equal, again.params, bundle.params)
    tensors, config = load_file(tmp_path / "model.safetensors"), json.loads((tmp_path / "config.json").read_text())
    assert tensors["fc.weight"].shape == (16 + 3 * (form == "angelslim" and signals == "fc"), 48)
    assert (tmp_path / "signals.specexit").exists() == (form != "angelslim" and signals == "fc")
    # The rules of other loaders (docs/formats.md): names, no tied head, nothing left to a default.
    layer = "layers.0." if form == "speculators" else "midlayer."
    assert sum(name.startswith(layer) for name in tensors) == 10
    assert config["tie_word_embeddings"] is False and config["norm_before_residual"] is (form == "eagle")
    assert config["eagle_aux_hidden_state_layer_ids"] == [2, 3, 4]
    if form == "speculators":
        assert config["architectures"] == ["Eagle3Speculator"] and "hidden_size" not in config
        assert config["transformer_layer_config"]["hidden_size"] == 16


def test_signals_of_the_draft_placement_lie_beside(tmp_path):
    bundle = make_bundle(signals="draft")
    save_draft(tmp_path, bundle, form="eagle")
    assert list(load_file(tmp_path / "signals.specexit")) == ["signal_head.weight"]
    jax.tree.map(np.testing.assert_array_equal, load_draft(tmp_path).params, bundle.params)


def test_layer_ids_are_named(tmp_path):
    save_draft(tmp_path, make_bundle(), layer_ids="outputs")
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    ids = "eagle_aux_hidden_state_layer_ids"
    assert ids not in config and config["eagle_config"][ids] == [1, 2, 3]
    assert load_draft(tmp_path).config.capture == (2, 3, 4)
    nested = config.pop("eagle_config")
    path.write_text(json.dumps(config | {ids: [1, 2, 3]}))  # as this project wrote it once
    assert load_draft(tmp_path).config.capture == (2, 3, 4)
    del config["eagle_aux_hidden_state_layer_convention"]
    path.write_text(json.dumps(config | {"eagle_config": nested}))
    with pytest.raises(
        ValueError, match=r"without saying what .* the argument draft_layer_ids, which is --draft_layer_ids on"
    ):
        load_draft(tmp_path)
    assert load_draft(tmp_path, layer_ids="outputs").config.capture == (2, 3, 4)
    assert load_draft(tmp_path, layer_ids="inputs").config.capture == (1, 2, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_torch_file_is_read_without_torch(dtype, tmp_path):
    bundle = make_bundle()
    save_draft(tmp_path, bundle)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    cast = {
        n: torch.from_numpy(t) if n in ("d2t", "t2d") else torch.from_numpy(t).to(dtype) for n, t in tensors.items()
    }
    cast["fc.weight"] = cast["fc.weight"].T.contiguous().T  # strides of its own, a view into its storage
    cast["lm_head.weight"] = torch.nn.Parameter(torch.cat([cast["lm_head.weight"]] * 2)[20:])
    torch.save(cast, tmp_path / "pytorch_model.bin")
    again = load_draft(tmp_path)
    rounded = jax.tree.map(lambda leaf: torch.from_numpy(np.array(leaf)).to(dtype).float().numpy(), bundle.params)
    jax.tree.map(np.testing.assert_array_equal, again.params, rounded)


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"fc.weight": Evil()}, "names posix.system"),
        ([torch.zeros(2)], "does not hold a dict of tensors"),
        ({"a": 3}, "does not hold a dict of tensors"),
        (b"\x80\x02rubbish", "not a torch file"),
    ],
)
def test_torch_files_that_hold_more_than_weights_are_refused(content, sentence, tmp_path):
    path = tmp_path / "pytorch_model.bin"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=sentence):
        TorchFile(path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"norm_before_fc": True}, "norm_before_fc to True"),
        ({"num_hidden_layers": 2}, "has 2 layers"),
        ({"mlp_bias": True}, "mlp_bias to True"),
        ({"sliding_window": 0, "use_sliding_window": True}, "sliding_window to 0"),
        ({"sliding_window": 2.5, "use_sliding_window": True}, "sliding_window to 2.5"),
        ({"sliding_window": 64}, "say with use_sliding_window"),
        ({"use_sliding_window": True}, "no sliding_window"),
        ({"layer_types": ["sliding_attention"]}, "no sliding_window"),
        ({"layer_types": ["sliding_attention"] * 2, "sliding_window": 64}, "layer_types to"),
        ({"layer_types": ["full_attention"], "use_sliding_window": True, "sliding_window": 64}, "contradicts itself"),
    ],
)
def test_configs_beyond_this_draft_are_refused(changes, sentence, tmp_path):
    save_draft(tmp_path, make_bundle())
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=sentence):
        load_draft(tmp_path)


def test_a_draft_may_be_narrower_than_its_target_with_a_table_of_its_own(tmp_path):
    bundle = make_bundle(target_hidden_size=24, own_embedding=True)
    table = jnp.asarray(np.random.default_rng(5).normal(size=(48, 16)), jnp.float32)
    bundle = bundle.replace(params=bundle.params | {"embed": {"embedding": table}})
    save_draft(tmp_path, bundle, form="eagle")
    assert load_draft(tmp_path, target_embedding=np.zeros((48, 24), np.float32)).config == bundle.config
    with pytest.raises(ValueError, match="no embedding table of its own"):
        make_bundle(target_hidden_size=24)


def test_pairs_are_checked():
    draft = make_bundle().config
    target = TargetConfig("qwen3", 48, 16, 24, 7, 4, 2, 8, capture=(2, 3, 4))
    check_pair(draft, target)
    for change, sentence in (
        ({"hidden_size": 32}, "hidden size 16, but this one has 32"),
        ({"vocab_size": 49}, "vocabulary 48, but this one has 49"),
        ({"capture": None}, r"captured layers \(2, 3, 4\)"),
    ):
        other = dataclasses.replace(target, **change)
        if change == {"capture": None}:
            other = dataclasses.replace(other, num_layers=9)
        with pytest.raises(ValueError, match=sentence):
            check_pair(draft, other)
