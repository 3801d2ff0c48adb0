"""Targets agree with transformers (torch); checkpoints are written and read back; bad ones are refused with the
tensor's name."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from random_params import random_params
from safetensors.numpy import load_file, save_file

from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.generate import generate
from specexit_jax.engine.methods import make_method
from specexit_jax.engine.placement import Placement
from specexit_jax.engine.requests import DecodeSettings, Request
from specexit_jax.engine.session import load_session
from specexit_jax.models.checkpoints.hf import load_target, save_target
from specexit_jax.models.checkpoints.hf_tensors import weight_files
from specexit_jax.models.config import RopeScaling, TargetConfig
from specexit_jax.models.target import Target, init_target, init_target_cache

SIZES = {
    "vocab_size": 48, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "head_dim": 8, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
FAMILIES = {
    "llama": (transformers.LlamaConfig, {"rope_parameters": LLAMA3}),
    "qwen2": (transformers.Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (transformers.Qwen3Config, {}),
}


def make_torch_model(family: str, seed=0):
    torch.manual_seed(seed)
    make_config, changes = FAMILIES[family]
    model = transformers.AutoModelForCausalLM.from_config(make_config(**(SIZES | changes)), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms start as constants: noise makes a forgotten one show
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def torch_logits(model, tokens):
    with torch.no_grad():
        return model(torch.from_numpy(np.asarray(tokens, np.int64))).logits.numpy()


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).integers(0, SIZES["vocab_size"], (2, 40)).astype(np.int32)


def tiny(config):
    return dataclasses.replace(config, capture=(1, 2, 3))


@pytest.mark.parametrize("family", list(FAMILIES))
def test_logits_equal_torch_in_one_pass_and_with_a_ragged_cache(family, tokens, tmp_path):
    model = make_torch_model(family)
    model.save_pretrained(tmp_path)
    expected = torch_logits(model, tokens)
    config, params = load_target(tmp_path)
    config = tiny(config)
    assert (config.architecture, config.qk_norm, config.qkv_bias) == (family, family == "qwen3", family == "qwen2")
    positions = jnp.broadcast_to(jnp.arange(40, dtype=jnp.int32)[None], (2, 40))
    step = jax.jit(lambda *args: Target(config).apply({"params": params}, *args))
    np.testing.assert_allclose(step(tokens, positions).logits, expected, atol=1e-4)

    prefill = step(tokens[:, :20], positions[:, :20], init_target_cache(config, 2, 40))
    length = jnp.asarray([20, 13], jnp.int32)  # the second row's prompt was shorter: its last 7 positions hold rubbish
    columns = np.asarray(length)[:, None] + np.arange(5)[None]
    fed = np.take_along_axis(tokens, columns, axis=1)
    out = step(fed, columns.astype(np.int32), prefill.cache.replace(length=length))
    np.testing.assert_allclose(prefill.logits, expected[:, :20], atol=1e-4)
    np.testing.assert_allclose(out.logits, np.take_along_axis(expected, columns[:, :, None], axis=1), atol=1e-4)


def test_positions_beyond_8192(tokens, tmp_path):
    """Long RoPE positions, llama3 scaling among them: where float32 angles would differ first."""
    for family in FAMILIES:
        model = make_torch_model(family)
        model.save_pretrained(tmp_path / family)
        config, params = load_target(tmp_path / family)
        positions = np.broadcast_to(np.arange(40, dtype=np.int32)[None] + 12_000, (2, 40))
        with torch.no_grad():
            ids, places = torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(positions.astype(np.int64))
            expected = model(ids, position_ids=places).logits.numpy()
        ours = jax.jit(lambda *args, c=config, p=params: Target(tiny(c)).apply({"params": p}, *args))(tokens, positions)
        np.testing.assert_allclose(ours.logits, expected, atol=2e-4)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_greedy_ids_equal_those_of_transformers(family, tmp_path):
    """A bare checkpoint, as save_pretrained leaves it, decoded by the loop with cache for 64 tokens."""
    model = make_torch_model(family, seed=1)
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    model.config.max_position_embeddings = 256
    model.save_pretrained(tmp_path)
    session = load_session(tmp_path)
    assert session.tokenizer is None and session.thinking is None and session.stop_ids == ()
    prompts = np.random.default_rng(2).integers(0, SIZES["vocab_size"], (3, 9))
    requests = [Request(str(row), tuple(int(token) for token in prompt)) for row, prompt in enumerate(prompts)]
    found = generate(session, requests, make_method(session, "think"), DecodeSettings(Sampling(), 64), Placement(3))
    with torch.no_grad():
        expected = model.generate(torch.from_numpy(prompts), do_sample=False, max_new_tokens=64, pad_token_id=0)
    assert [list(outcome.ids) for outcome in found] == expected[:, 9:].tolist()


CONFIGS = {
    "llama": TargetConfig("llama", 48, 16, 24, 4, 4, 2, 8, rope_scaling=RopeScaling(4.0, 1.0, 4.0, 16)),
    "qwen2": TargetConfig("qwen2", 48, 16, 24, 4, 4, 2, 8, qkv_bias=True, rope_theta=5e5, capture=(0, 1, 2)),
    "qwen3": TargetConfig("qwen3", 48, 16, 24, 4, 4, 2, 8, qk_norm=True, tie_embeddings=True, rms_norm_eps=1e-5),
}


@pytest.mark.parametrize("family", list(CONFIGS))
def test_saved_target_loads_in_transformers_to_the_same_logits(family, tokens, tmp_path):
    config = CONFIGS[family]
    params = random_params(init_target, config, 1)
    save_target(tmp_path, config, params, extra={"eos_token_id": 3})
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()) and model.config.eos_token_id == 3
    positions = jnp.broadcast_to(jnp.arange(40, dtype=jnp.int32)[None], (2, 40))
    ours = jax.jit(lambda *args: Target(tiny(config)).apply({"params": params}, *args).logits)(tokens, positions)
    np.testing.assert_allclose(ours, torch_logits(model.eval(), tokens), atol=1e-4)

    again, restored = load_target(tmp_path)
    assert again == config and list(tmp_path.glob("*.partial")) == []
    jax.tree.map(np.testing.assert_array_equal, restored, params)


def test_bfloat16_and_shards(tmp_path):
    config = CONFIGS["qwen3"]
    params = random_params(init_target, config, 1)
    save_target(tmp_path, config, params, dtype="bfloat16")
    tensors = load_file(tmp_path / "model.safetensors")
    assert {t.dtype for t in tensors.values()} == {np.dtype(ml_dtypes.bfloat16)}
    names = sorted(tensors)
    shards = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for shard, members in shards.items():
        save_file({name: tensors[name] for name in members}, tmp_path / shard)
    index = {"weight_map": {name: shard for shard, members in shards.items() for name in members}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model.safetensors").unlink()
    _, restored = load_target(tmp_path)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=8e-3), restored, params)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"b.safetensors is missing"):
        load_target(tmp_path)


def edit_json(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architectures": ["MixtralForCausalLM"]}, "architecture 'MixtralForCausalLM'; this project runs Llama"),
        ({"use_sliding_window": True}, "use_sliding_window to True"),
        ({"attention_bias": True}, "attention_bias to True"),
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "RoPE scaling .*yarn"),
        ({"intermediate_size": 32}, r"misshapen: model.layers.0.mlp.down_proj.weight \[16, 24\] instead of \[16, 32\]"),
        ({"num_hidden_layers": 3}, "unknown: model.layers.3.input_layernorm.weight"),
        ({"num_hidden_layers": 5}, "missing: model.layers.4.input_layernorm.weight"),
    ],
)
def test_targets_that_do_not_fit_are_refused(changes, sentence, tmp_path):
    save_target(tmp_path, CONFIGS["qwen3"], random_params(init_target, CONFIGS["qwen3"], 1))
    edit_json(tmp_path, **changes)
    with pytest.raises(ValueError, match=sentence):
        load_target(tmp_path)


def test_missing_and_corrupt_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config.json is missing"):
        load_target(tmp_path)
    save_target(tmp_path, CONFIGS["qwen3"], random_params(init_target, CONFIGS["qwen3"], 1))
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0rubbish!")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_target(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not valid JSON"):
        load_target(tmp_path)


def test_one_whole_file_comes_before_shards_as_in_transformers(tmp_path):
    """An index left over beside it, of shards that are gone, counts for nothing; safetensors come before torch."""
    params = random_params(init_target, CONFIGS["qwen3"], 1)
    save_target(tmp_path, CONFIGS["qwen3"], params)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    jax.tree.map(np.testing.assert_array_equal, load_target(tmp_path)[1], params)
    (tmp_path / "part.bin").touch()
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "part.bin"}}))
    (tmp_path / "pytorch_model.bin").touch()
    order = ["model.safetensors", "gone.safetensors", "pytorch_model.bin", "part.bin"]
    (tmp_path / "gone.safetensors").touch()
    for left, unreachable in enumerate(
        (None, "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    ):
        if unreachable:
            (tmp_path / unreachable).unlink()
        assert [path.name for path in weight_files(tmp_path)] == [order[left]]
