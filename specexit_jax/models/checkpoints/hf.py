"""Target checkpoints of Hugging Face transformers, in and out: Llama 3, Qwen2, Qwen3, MiMo (drafts: drafts.py)."""

from pathlib import Path

import numpy as np

from specexit_jax.models.checkpoints.drafts import load_draft, save_draft
from specexit_jax.models.checkpoints.hf_draft_config import Verifier
from specexit_jax.models.checkpoints.hf_layout import Place, on_device, read, shapes, target_layout, written
from specexit_jax.models.checkpoints.hf_rope import read_rope
from specexit_jax.models.checkpoints.hf_tensors import (
    TensorSource,
    decoder_json,
    local_folder,
    read_json,
    require,
    write_checkpoint,
)
from specexit_jax.models.checkpoints.mtp_forms import extra_tensors
from specexit_jax.models.config import TargetConfig

__all__ = ["load_draft", "load_target", "load_target_config", "save_draft", "save_target", "verifier_of"]

CLASSES = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "MiMoForCausalLM": "mimo",
}
QKV_BIAS = ("qwen2", "mimo")
# Config keys of these architectures that this decoder does not compute, each with the value that switches it off.
UNSUPPORTED = {"use_sliding_window": False, "mlp_bias": False, "quantization_config": None, "attention_bias": False}


def load_target(folder: str | Path, dtype: str = "float32", place: Place = on_device) -> tuple[TargetConfig, dict]:
    """Config and parameters of a checkpoint folder, both in `dtype`.

    `place` puts one parameter on its devices (`sharding.placer` shards it). Each is placed before the next is read, so
    the host holds one at a time.
    """
    folder = Path(folder)
    config = load_target_config(folder, dtype)
    layout = target_layout(config)
    source = TensorSource(folder)
    ignored = extra_tensors(source.names(), config.num_layers)  # --draft=builtin reads those
    ignored |= {f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(config.num_layers)}
    if config.tie_embeddings:
        ignored.add("lm_head.weight")
    source.check(shapes(layout), ignored)
    if config.tie_embeddings and "lm_head.weight" in source.names():
        if not np.array_equal(source.read("lm_head.weight"), source.read("model.embed_tokens.weight")):
            raise ValueError(f"{folder} says its embeddings are tied, but its lm_head.weight differs from them.")
    return config, read(layout, source.read, dtype, place)


def save_target(
    folder: str | Path, config: TargetConfig, params: dict, dtype: str = "float32", extra: dict | None = None
) -> None:
    """Writes a folder that transformers loads with the same logits; `extra` is added to config.json (token ids, for
    example)."""
    tensors = written(target_layout(config), params, dtype)
    write_checkpoint(folder, target_json(config, dtype) | (extra or {}), tensors)


def load_target_config(folder: str | Path, dtype: str = "float32") -> TargetConfig:
    """The TargetConfig of a config.json. Raises ValueError for features that this decoder does not compute."""
    path = Path(folder) / "config.json"
    config = read_json(path)
    (name, *_) = config.get("architectures") or [None]
    if name not in CLASSES:
        raise ValueError(f"{path} asks for architecture {name!r}; this project runs {', '.join(CLASSES)}.")
    biased = CLASSES[name] in QKV_BIAS
    for key, nothing in UNSUPPORTED.items():
        if key == "attention_bias" and biased:  # of queries, keys and values, which it has in any case
            continue
        if config.get(key, nothing) not in (nothing, None):
            raise ValueError(f"{path} sets {key} to {config[key]!r}, which this decoder does not compute.")
    if (config.get("hidden_act") or "silu") != "silu":
        raise ValueError(f"{path} asks for the activation {config['hidden_act']!r}; this decoder computes 'silu'.")
    heads, width = require(config, "num_attention_heads", path), require(config, "hidden_size", path)
    theta, scaling = read_rope(config, path)
    return TargetConfig(
        architecture=CLASSES[name],
        vocab_size=require(config, "vocab_size", path),
        hidden_size=width,
        intermediate_size=require(config, "intermediate_size", path),
        num_layers=require(config, "num_hidden_layers", path),
        num_heads=heads,
        num_kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or width // heads,
        rms_norm_eps=config.get("rms_norm_eps") or 1e-6,
        rope_theta=theta,
        rope_scaling=scaling,
        qk_norm=CLASSES[name] == "qwen3",
        qkv_bias=biased,
        tie_embeddings=bool(config.get("tie_word_embeddings", False)),
        max_position=config.get("max_position_embeddings") or 4096,
        dtype=dtype,
        capture=tuple(config["specexit_capture"]) if config.get("specexit_capture") else None,
    )


def verifier_of(name: str) -> Verifier:
    """The entry for the target `name` in a draft's file (a folder by its full path), and what the file holds of that
    target."""
    folder = local_folder(name, "target")
    classes = read_json(folder / "config.json").get("architectures") or []
    name = str(folder.resolve()) if folder == Path(name) else name
    source = TensorSource(folder)
    table = source.read("model.embed_tokens.weight")
    head = source.read("lm_head.weight") if "lm_head.weight" in source.names() else table
    return Verifier(name, tuple(classes), table, head)


def target_json(config: TargetConfig, dtype: str) -> dict:
    """The config.json of a target."""
    (name,) = (name for name, architecture in CLASSES.items() if architecture == config.architecture)
    if (config.qk_norm, config.qkv_bias) != (config.architecture == "qwen3", config.architecture in QKV_BIAS):
        raise ValueError(f"transformers has no {name} with qk_norm={config.qk_norm}, qkv_bias={config.qkv_bias}.")
    fields = {
        "architectures": [name],
        "model_type": config.architecture,
        **decoder_json(config, config.num_layers),
        "tie_word_embeddings": config.tie_embeddings,
        "attention_dropout": 0.0,
        "torch_dtype": dtype,
    }
    if config.architecture != "qwen2":
        fields["attention_bias"] = config.architecture == "mimo"
    return fields | ({"specexit_capture": list(config.capture)} if isinstance(config.capture, tuple) else {})
