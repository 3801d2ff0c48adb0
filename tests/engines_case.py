"""What vLLM and SGLang do with a draft folder, by their own rules of files, names, shapes and layer ids.

The rules, as read in vllm/model_executor/model_loader/{default_loader,weight_utils}.py, vllm/model_executor/models/llama_eagle3.py,
vllm/transformers_utils/configs/speculators, and sglang/srt/{model_loader,models/llama_eagle3.py,model_executor} (early 2026):
files are every *.safetensors (else every *.bin) of the folder; where model.safetensors.index.json lies beside them, only those
that it names. vLLM looks every name up and stops at an unknown one; SGLang drops it without a word. Both check shapes.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

_FUSED = {
    "q_proj": "qkv_proj",
    "k_proj": "qkv_proj",
    "v_proj": "qkv_proj",
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
}
_IDS = "eagle_aux_hidden_state_layer_ids"


def globbed(folder: Path) -> list[Path]:
    """The weight files that either engine opens."""
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return files
    named = set(json.loads(index.read_text())["weight_map"].values())
    return [file for file in files if file.name in named]


def tensors_of(folder: Path) -> list[tuple[str, np.ndarray]]:
    return [pair for file in globbed(folder) for pair in load_file(file).items()]


def flat_config(folder: Path) -> dict:
    """The config as the engine's model sees it: vLLM lays a speculators layer flat, and lifts these keys beside it."""
    config = json.loads((folder / "config.json").read_text())
    if "speculators_model_type" not in config:
        assert config["architectures"] == ["LlamaForCausalLMEagle3"]
        return config
    assert config["speculators_model_type"] == "eagle3" and config["speculators_config"]["verifier"]["name_or_path"]
    lifted = {key: config[key] for key in ("draft_vocab_size", "target_hidden_size", "norm_before_residual")}
    return config["transformer_layer_config"] | lifted | ({_IDS: config[_IDS]} if _IDS in config else {})


def parameters(config: dict, layer: str) -> dict[str, tuple[int, ...]]:
    """The parts of an EAGLE-3 draft's parameters, a fused one by its parts, with the layer under that name."""
    width, inner, size = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    parts = {
        "self_attn.qkv_proj:q_proj": (heads * size, 2 * width),
        "self_attn.qkv_proj:k_proj": (kv_heads * size, 2 * width),
        "self_attn.qkv_proj:v_proj": (kv_heads * size, 2 * width),
        "self_attn.o_proj": (width, heads * size),
        "mlp.gate_up_proj:gate_proj": (inner, width),
        "mlp.gate_up_proj:up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
        "input_layernorm": (width,),
        "hidden_norm": (width,),
        "post_attention_layernorm": (width,),
    }
    return {f"model.{layer}.{name}": shape for name, shape in parts.items()} | {
        "model.fc": (width, 3 * config.get("target_hidden_size", width)),
        "model.norm": (width,),
        "model.embed_tokens": (config["vocab_size"], width),
        "lm_head": (config["draft_vocab_size"], width),
    }


def _part_of(name: str) -> str:
    name = name.removesuffix(".weight")
    stem, _, last = name.rpartition(".")
    return f"{stem}.{_FUSED[last]}:{last}" if last in _FUSED else name


def load_in_vllm(folder: Path) -> dict[str, np.ndarray]:
    """What it fills. Raises KeyError for a name that it does not know, AssertionError for another shape."""
    config = flat_config(folder)
    wanted = parameters(config, "layers.0") | {"draft_id_to_target_id": (config["draft_vocab_size"],)}
    filled = {}
    for name, tensor in tensors_of(folder):
        if "t2d" in name:
            continue
        if "d2t" in name:
            part = "draft_id_to_target_id"
        else:
            part = _part_of((name if "lm_head" in name else "model." + name).replace("midlayer.", "layers.0."))
        if wanted[part] != tensor.shape:
            raise AssertionError(f"{name}: {tensor.shape} for {wanted[part]}")
        filled[part] = tensor
    return filled


def load_in_sglang(folder: Path) -> tuple[dict[str, np.ndarray], set[str]]:
    """(what it fills, the names that it drops). Raises AssertionError for another shape."""
    wanted, filled, dropped = parameters(flat_config(folder), "midlayer"), {}, set()
    for name, tensor in tensors_of(folder):
        if "d2t" in name:
            filled["hot_token_id"] = tensor + np.arange(len(tensor))
        elif "t2d" not in name:
            part = _part_of(name)
            part = part if part in wanted else f"model.{part}"
            if part not in wanted:
                dropped.add(name)
            elif wanted[part] != tensor.shape:
                raise AssertionError(f"{name}: {tensor.shape} for {wanted[part]}")
            else:
                filled[part] = tensor
    return filled, dropped


def captured_by_vllm(folder: Path, layers: int) -> tuple[int, ...]:
    """The target layers whose inputs it hands to the draft."""
    return tuple(flat_config(folder).get(_IDS) or (2, layers // 2, layers - 3))


def captured_by_sglang(folder: Path, layers: int) -> tuple[int, ...]:
    """The same: SGLang reads `eagle_config` alone, and adds one to what stands there."""
    ids = (flat_config(folder).get("eagle_config") or {}).get(_IDS)
    return (2, layers // 2, layers - 3) if ids is None else tuple(layer + 1 for layer in ids)
