"""What vLLM and SGLang do with a folder that holds an MTP layer, by their own rules of names and shapes.

The rules, as read in vllm/model_executor/models/{mimo_mtp,deepseek_mtp,qwen3_next_mtp}.py and sglang/srt/models/mimo_mtp.py
(2026). vLLM stops where a parameter is not filled; both skip what is of no MTP layer.
"""

import json
import re
from pathlib import Path

import numpy as np
from engines_case import tensors_of

_STACKED = {
    "q_proj": "qkv_proj",
    "k_proj": "qkv_proj",
    "v_proj": "qkv_proj",
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
}
_OUTSIDE = {
    "mimo": ("token_layernorm", "hidden_layernorm", "input_proj", "final_layernorm"),
    "deepseek_v3": ("embed_tokens", "enorm", "hnorm", "eh_proj", "shared_head"),
}


def block(config: dict, family: str) -> dict[str, tuple[int, ...]]:
    """The parameters of the decoder layer, a fused one by its parts."""
    width, inner, size = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    queries = heads * size * (2 if family == "qwen3_next" else 1)  # with the output gate
    rows = {"q": queries, "k": kv_heads * size, "v": kv_heads * size}
    found = {f"self_attn.qkv_proj:{x}_proj.weight": (count, width) for x, count in rows.items()}
    if family == "mimo":
        found |= {f"self_attn.qkv_proj:{x}_proj.bias": (count,) for x, count in rows.items()}
    if family == "qwen3_next":
        found |= {"self_attn.q_norm.weight": (size,), "self_attn.k_norm.weight": (size,)}
    found |= {f"mlp.gate_up_proj:{x}_proj.weight": (inner, width) for x in ("gate", "up")}
    found |= {"self_attn.o_proj.weight": (width, heads * size), "mlp.down_proj.weight": (width, inner)}
    return found | {f"{x}_layernorm.weight": (width,) for x in ("input", "post_attention")}


def parameters(config: dict, family: str, engine: str) -> dict[str, tuple[int, ...]]:
    """All parameters of the engine's module."""
    width, layers, tables = (
        config["hidden_size"],
        config["num_hidden_layers"],
        (config["vocab_size"], config["hidden_size"]),
    )
    norms = {
        "mimo": ("token_layernorm", "hidden_layernorm", "final_layernorm"),
        "deepseek_v3": ("enorm", "hnorm", "shared_head.norm"),
        "qwen3_next": ("pre_fc_norm_hidden", "pre_fc_norm_embedding", "norm"),
    }[family]
    projection = {"mimo": "input_proj", "deepseek_v3": "eh_proj", "qwen3_next": "fc"}[family]
    root, inside = {
        ("mimo", "vllm"): ("model.mtp_layers.0.", "model.mtp_layers.0.mtp_block."),  # num_hidden_layers is set to 0
        ("mimo", "sglang"): ("model.", "model.mtp_block."),
        ("deepseek_v3", "vllm"): (f"model.layers.{layers}.", f"model.layers.{layers}.mtp_block."),
        ("qwen3_next", "vllm"): ("model.", "model.layers.0."),
    }[family, engine]
    found = {f"{root}{name}.weight": (width,) for name in norms} | {f"{root}{projection}.weight": (width, 2 * width)}
    found |= {inside + name: shape for name, shape in block(config, family).items()}
    head = f"{root}shared_head.head.weight" if family == "deepseek_v3" else "lm_head.weight"
    return found | {"model.embed_tokens.weight": tables, head: tables}


def renamed(name: str, config: dict, family: str, engine: str) -> str | None:
    """The engine's name of a tensor; None for one that it skips."""
    if family == "qwen3_next":
        if name.startswith("mtp."):
            return name.replace("mtp.", "model.")
        return name if "embed_tokens" in name or "lm_head" in name else None
    outside = any(part in name for part in _OUTSIDE[family])
    if family == "mimo":
        found = re.match(r"model\.mtp_layers\.(\d+)\.", name)
        if not found:
            return name if name in ("model.embed_tokens.weight", "lm_head.weight") else None
        root = "model." if engine == "sglang" else found.group()
        return name.replace(found.group(), root if outside else f"{root}mtp_block.")
    root = f"model.layers.{config['num_hidden_layers']}."
    if not name.startswith(root):
        return None
    if "embed_tokens" in name:
        return name.replace(root, "model.")
    return name if outside else name.replace(root, f"{root}mtp_block.")


def load(folder: Path, family: str, engine: str) -> dict[str, np.ndarray]:
    """What it fills. Raises KeyError for a name that it does not know, AssertionError for a shape or an unfilled parameter."""
    config = json.loads((folder / "config.json").read_text())
    wanted, filled = parameters(config, family, engine), {}
    for name, tensor in tensors_of(folder):
        name = renamed(name, config, family, engine)
        if name is None:
            continue
        last = name.split(".")[-2]
        part = name.replace(last, f"{_STACKED[last]}:{last}") if last in _STACKED else name
        assert wanted[part] == tensor.shape, (part, tensor.shape, wanted[part])
        filled[part] = tensor
    assert set(filled) == set(wanted), set(wanted) - set(filled)
    return filled
