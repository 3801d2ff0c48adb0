"""MTP layers in the names of the checkpoints that ship them: out of a target's own folder, and in folders of their own.

A folder of ours has a config.json of the target's kind (engines find the layer by it), the layer under the checkpoint's names,
and the signals beside it in signals.specexit, which no engine opens. It may hold the target's tables too, without which vLLM
loads no folder. Names and shapes: docs/mtp.md. Where a file lays a tensor out otherwise than we do: `mtp_forms.py`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from specexit_jax.models.checkpoints.hf_draft_config import Verifier, signal_names
from specexit_jax.models.checkpoints.hf_layout import (
    Layout,
    Place,
    as_is,
    feed_forward,
    on_device,
    read,
    shapes,
    transposed,
    written,
)
from specexit_jax.models.checkpoints.hf_layout import attention as attention_layout
from specexit_jax.models.checkpoints.hf_rope import read_rope
from specexit_jax.models.checkpoints.hf_tensors import TensorSource, decoder_json, require, write_checkpoint
from specexit_jax.models.checkpoints.mtp_forms import Form, layer_of, layers_in, names_of
from specexit_jax.models.checkpoints.raw_tensors import Raw, require_tensors
from specexit_jax.models.draft_layer import DraftBundle
from specexit_jax.models.mtp_config import FAMILIES, MtpConfig
from specexit_jax.notes import note

FORMATS = ("mtp", "checkpoint")
EXPORTED, WITH_TARGET = "checkpoint", ("checkpoint",)
OURS, SIGNAL_HEAD, HEAD, EMBEDDING = (
    "specexit_draft",
    "signal_head.weight",
    "lm_head.weight",
    "model.embed_tokens.weight",
)
_OWN = ("reads", "order", "feeds_back", "zeroes_first", "own_head", "qkv_bias", "qk_norm", "output_gate", "rotary_dim")
_TOLD = (*_OWN, "own_embedding")
# What a config.json calls the targets whose checkpoints hold such a layer.
_CLASSES = {
    "mimo": ("MiMoForCausalLM", "mimo"),
    "deepseek_v3": ("DeepseekV3ForCausalLM", "deepseek_v3"),
    "qwen3_next": ("Qwen3NextForCausalLM", "qwen3_next"),
    "qwen3_5": ("Qwen3_5ForCausalLM", "qwen3_5_text"),
}


def holds(names: set[str]) -> bool:
    """Whether a folder with these tensors has an MTP layer."""
    return layer_of(names) is not None


def load(
    source: TensorSource,
    config: dict,
    path: Path,
    dtype: str,
    target_embedding=None,
    target_head: Callable[[], np.ndarray] | None = None,
    place: Place = on_device,
    layer_ids: str | None = None,
) -> DraftBundle:
    """The MTP layer of a folder, the target's or ours; config: its config.json, at `path`.

    A table or head in the file is dropped where it is the target's (`target_embedding` [V, D], `target_head()` [V, D]).
    Raises ValueError on a layer that ours cannot compute, and naming every unknown, missing and misshapen tensor of it.
    """
    found = _read_config(source, config, path, dtype)
    if not config.get(OURS):  # which says itself what is the layer's own
        names = names_of(found)
        own_head = _differs(source, names.head, target_head)
        own_embedding = _differs(source, names.embedding, lambda: target_embedding)
        found = dataclasses.replace(found, own_embedding=own_embedding, own_head=own_head)
    if (count := layers_in(source.names())) > 1:
        note(f"{source.folder} has {count} MTP layers: the first of them makes all drafts.")
    form = Form(found)
    layout = layout_of(found)
    _check(source, form, layout)
    params = read(layout, lambda name: form.read(name, source.read), dtype, place)
    return DraftBundle(config=found, params=params, d2t=jnp.arange(found.vocab_size, dtype=jnp.int32))


def save(
    folder: str | Path,
    bundle: DraftBundle,
    dtype: str = "float32",
    form: str | None = None,
    layer_ids: str = "both",
    verifier: Verifier | None = None,
) -> None:
    """Writes a folder. form: "mtp" (default), the layer alone, or "checkpoint", with the tables of the target (`verifier`)."""
    if form not in (None, *FORMATS):
        raise ValueError(f"An MTP draft is not written as {form!r}: choose among {', '.join(FORMATS)}.")
    config = bundle.config
    tensors = Form(config).written(written(layout_of(config), bundle.params, dtype))
    beside = {name: tensors.pop(name) for name in (SIGNAL_HEAD,) if name in tensors}
    if form == "checkpoint":
        if verifier is None or verifier.head is None:
            raise ValueError("A checkpoint's MTP layer is written with its target's tables: give its target.")
        names = names_of(config)
        for name in (EMBEDDING, names.embedding):
            tensors.setdefault(name, verifier.embedding.astype(dtype))
        for name in (HEAD, names.head):
            tensors.setdefault(name, verifier.head.astype(dtype))
    write_checkpoint(folder, json_of(config, dtype), tensors, beside)


def json_of(config: MtpConfig, dtype: str) -> dict:
    """The config.json of a folder of ours."""
    name, model_type = _CLASSES[config.family]
    return {
        "architectures": [name],
        "model_type": model_type,
        **decoder_json(config, config.target_layers),
        "num_nextn_predict_layers": 1,
        "tie_word_embeddings": False,
        "attention_bias": config.qkv_bias,
        "torch_dtype": dtype,
        OURS: {"kind": config.kind, "family": config.family} | {name: getattr(config, name) for name in _TOLD},
        "signals": config.signals,
        "signal_order": list(config.signal_names),
        "draft_sliding_window": config.sliding_window,
    }


def layout_of(config: MtpConfig) -> Layout:
    """Every parameter, under names whose tensors lie as ours do (`Form` knows the file's)."""
    width, names = config.hidden_size, names_of(config)
    norms = {
        "hidden_norm": names.hidden_norm,
        "token_norm": names.token_norm,
        "input_norm": f"{names.layer}.input_layernorm",
        "mlp_norm": f"{names.layer}.post_attention_layernorm",
        "norm": names.norm,
    }
    layout = {f"{ours}/scale": as_is(f"{theirs}.weight", (width,)) for ours, theirs in norms.items()}
    layout["projection"] = transposed(f"{names.projection}.weight", width, 2 * width)
    block = f"{names.layer}.self_attn"
    layout |= attention_layout("attention", block, config, width, config.qkv_bias, config.qk_norm)
    if config.output_gate:
        layout["attention/gate"] = gate_layout(f"{block}.q_gate.weight", config)
    layout |= feed_forward("mlp", f"{names.layer}.mlp", width, config.intermediate_size)
    if config.own_head:
        layout["lm_head"] = transposed(names.head, config.draft_vocab_size, width)
    if config.own_embedding:
        layout["embed/embedding"] = as_is(names.embedding, (config.vocab_size, width))
    if config.signals == "draft":
        layout["signal_head"] = transposed(SIGNAL_HEAD, config.signal_rows, width)
    return layout


def gate_layout(name: str, config: MtpConfig):
    """The output gate [D, K, G, H], a tensor [N H, D]."""
    heads = (config.num_kv_heads, config.num_heads // config.num_kv_heads, config.head_dim)
    flat = transposed(name, config.num_heads * config.head_dim, config.hidden_size)
    return dataclasses.replace(
        flat,
        join=lambda tensors: tensors[0].T.reshape(-1, *heads),
        split=lambda parameter: [parameter.reshape(len(parameter), -1).T],
    )


def digested(
    folder: Path, config: MtpConfig, raws: Mapping[str, Raw]
) -> tuple[tuple[str, ...], dict[str, tuple[Raw, int, int]]]:
    """(config fields, ranges of tensors) that a draft's digest covers."""
    names = Form(config).shapes(shapes(layout_of(config)))
    require_tensors(folder, names, raws)
    return ("family", *_OWN), {name: (raws[name], 0, raws[name].size) for name in names}


def _read_config(source: TensorSource, config: dict, path: Path, dtype: str) -> MtpConfig:
    ours = config.get(OURS) or {}
    config = config | (config.get("text_config") or {})  # multimodal checkpoints
    names = source.names()
    family, prefix = layer_of(names)
    family = ours.get("family", family)
    heads, width = require(config, "num_attention_heads", path), require(config, "hidden_size", path)
    size = config.get("head_dim") or width // heads
    block = f"{prefix}.self_attn"
    refused = [name for name in names if name.startswith(f"{prefix}.") and (".experts." in name or "kv_a_proj" in name)]
    if refused:
        raise ValueError(
            f"The MTP layer in {source.folder} has {sorted(refused)[0]}: experts and latent attention are not computed here, only "
            "a dense feed-forward and grouped-query attention."
        )
    gate = source.shape(f"{block}.q_proj.weight")[0] == 2 * heads * size if f"{block}.q_proj.weight" in names else False
    seen = {
        "qkv_bias": f"{block}.q_proj.bias" in names,
        "qk_norm": f"{block}.q_norm.weight" in names,
        "output_gate": gate,
    }
    theta, scaling = read_rope(config, path)
    rope = config.get("rope_parameters") or {}
    part = rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0
    turned = {"rotary_dim": int(size * part) if part != 1 else None}
    signals = config.get("signals") or ("draft" if SIGNAL_HEAD in names else "none")
    return MtpConfig(
        hidden_size=width,
        target_hidden_size=width,
        intermediate_size=require(config, "intermediate_size", path),
        num_heads=heads,
        num_kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=size,
        vocab_size=require(config, "vocab_size", path),
        draft_vocab_size=config["vocab_size"],
        rms_norm_eps=config.get("rms_norm_eps") or 1e-6,
        rope_theta=theta,
        rope_scaling=scaling,
        signals=signals,
        max_position=config.get("max_position_embeddings") or 4096,
        dtype=dtype,
        sliding_window=config.get("draft_sliding_window") or 0,
        signal_names=signal_names(config, path),
        family=family,
        target_layers=config.get("num_hidden_layers") or 0,
        **FAMILIES[family] | seen | turned | {name: ours[name] for name in _TOLD if name in ours},
    )


def _differs(source: TensorSource, name: str, target: Callable[[], np.ndarray] | None) -> bool:
    """Whether the layer has a table of its own: one that is not the target's, up to how either was rounded."""
    if name not in source.names() or name in (HEAD, EMBEDDING):  # those are the target's in a checkpoint
        return False
    table = target and target()
    if table is None or tuple(table.shape) != source.shape(name):
        return True
    own = source.read(name).astype(np.float32)
    return not np.allclose(np.asarray(table).astype(np.float32), own, rtol=1e-2, atol=1e-4)


def _check(source: TensorSource, form: Form, layout: Layout) -> None:
    """Raises ValueError where the layer's tensors are not those of the layout; other tensors of a checkpoint are let be."""
    expected = form.shapes(shapes(layout))
    names = form.names
    prefixes = tuple(f"{name}." for name in (names.layer, names.root))
    others = {name for name in source.names() if not name.startswith(prefixes)} | {names.embedding, names.head}
    source.check(expected, others - set(expected))
