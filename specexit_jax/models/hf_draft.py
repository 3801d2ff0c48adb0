"""EAGLE-3 draft checkpoints, in and out, under the names of eagle3.md §1; the signals' rows are the last 3 of `fc`."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from specexit_jax.models.config import DraftConfig
from specexit_jax.models.draft import SIGNALS, DraftBundle
from specexit_jax.models.hf_rope import read_rope, write_rope
from specexit_jax.models.hf_tensors import (
    TensorSource,
    attention_shapes,
    mlp_shapes,
    read_attention,
    read_json,
    read_mlp,
    require,
    write_attention,
    write_checkpoint,
    write_mlp,
)

NORMS = {
    "midlayer.input_layernorm.weight": "input_norm",
    "midlayer.hidden_norm.weight": "hidden_norm",
    "midlayer.post_attention_layernorm.weight": "mlp_norm",
    "norm.weight": "norm",
}
MATRICES = {"fc.weight": "fc", "lm_head.weight": "lm_head", "signal_head.weight": "signal_head"}


def load_draft(folder: str | Path, dtype: str = "float32", target_embedding=None) -> DraftBundle:
    """A draft from its folder. A file with an embedding table of its own is read only beside `target_embedding`
    [V, D], which must be the same table: this project's drafts use the target's."""
    folder = Path(folder)
    with TensorSource(folder) as source:
        config = _read_config(folder / "config.json", source, dtype)
        shapes = draft_shapes(config)
        if config.draft_vocab_size == config.vocab_size and not source.names() & {"d2t", "t2d"}:
            del shapes["d2t"], shapes["t2d"]
        source.check(shapes, ["embed_tokens.weight"])
        if "embed_tokens.weight" in source.names():
            _check_embedding(source, target_embedding)
        params = {ours: {"scale": source.read(theirs)} for theirs, ours in NORMS.items()}
        params |= {ours: source.read(theirs).T for theirs, ours in MATRICES.items() if theirs in shapes}
        params["attention"] = read_attention(source.read, "midlayer.self_attn", config)
        params["mlp"] = read_mlp(source.read, "midlayer.mlp")
        params = jax.tree.map(lambda array: jnp.asarray(np.ascontiguousarray(array.astype(dtype))), params)
        d2t = _read_vocabulary(source, config)
    return DraftBundle(config=config, params=params, d2t=jnp.asarray(d2t))


def save_draft(folder: str | Path, bundle: DraftBundle, dtype: str = "float32") -> None:
    """Write config.json and model.safetensors; `d2t` becomes offsets."""
    write_checkpoint(folder, draft_json(bundle.config, dtype), draft_tensors(bundle, dtype))


def draft_tensors(bundle: DraftBundle, dtype: str) -> dict[str, np.ndarray]:
    """The tensors of a draft's file."""
    config = bundle.config
    params = jax.tree.map(lambda array: np.asarray(array).astype(dtype), bundle.params)
    tensors = {theirs: params[ours]["scale"] for theirs, ours in NORMS.items()}
    tensors |= {theirs: params[ours].T for theirs, ours in MATRICES.items() if ours in params}
    tensors |= write_attention("midlayer.self_attn", params["attention"])
    tensors |= write_mlp("midlayer.mlp", params["mlp"])
    absolute = np.asarray(bundle.d2t).astype(np.int64)
    tensors["d2t"] = absolute - np.arange(config.draft_vocab_size)
    tensors["t2d"] = np.isin(np.arange(config.vocab_size), absolute)
    return tensors


def draft_shapes(config: DraftConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor a draft's file must hold."""
    width = config.hidden_size
    rows = width + len(SIGNALS) * (config.signals == "fc")
    shapes = dict.fromkeys(NORMS, (width,))
    shapes |= {"fc.weight": (rows, 3 * config.target_hidden_size), "lm_head.weight": (config.draft_vocab_size, width)}
    shapes |= attention_shapes("midlayer.self_attn", config, 2 * width, width)
    shapes |= mlp_shapes("midlayer.mlp", width, config.intermediate_size)
    shapes |= {"d2t": (config.draft_vocab_size,), "t2d": (config.vocab_size,)}
    return shapes | ({"signal_head.weight": (len(SIGNALS), width)} if config.signals == "draft" else {})


def draft_json(config: DraftConfig, dtype: str) -> dict:
    """The config.json of a draft. Nothing is left to a default, because defaults differ between engines."""
    fields = {
        "architectures": ["LlamaForCausalLMEagle3"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "draft_vocab_size": config.draft_vocab_size,
        "hidden_size": config.hidden_size,
        "target_hidden_size": config.target_hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": 1,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "max_position_embeddings": config.max_position,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
        "signals": config.signals,
        "signal_order": list(SIGNALS),
        "norm_before_residual": config.norm_before_residual,
        **write_rope(config.rope_theta, config.rope_scaling),
    }
    if config.capture is not None:
        # Inputs of these layers (EAGLE, vLLM); engines that count outputs call the same tensors one lower.
        fields["eagle_aux_hidden_state_layer_ids"] = list(config.capture)
        fields["eagle_aux_hidden_state_layer_convention"] = "inputs"
    return fields


def _read_config(path: Path, source: TensorSource, dtype: str) -> DraftConfig:
    config = read_json(path)
    heads, width = require(config, "num_attention_heads", path), require(config, "hidden_size", path)
    theta, scaling = read_rope(config, path)
    layers = config.get("eagle_aux_hidden_state_layer_ids")
    shift = config.get("eagle_aux_hidden_state_layer_convention", "inputs") == "outputs"
    return DraftConfig(
        hidden_size=width,
        target_hidden_size=config.get("target_hidden_size", width),
        intermediate_size=require(config, "intermediate_size", path),
        num_heads=heads,
        num_kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or width // heads,
        vocab_size=require(config, "vocab_size", path),
        draft_vocab_size=config.get("draft_vocab_size") or config["vocab_size"],
        rms_norm_eps=config.get("rms_norm_eps", 1e-6),
        rope_theta=theta,
        rope_scaling=scaling,
        signals=config.get("signals") or _placement(source, width),
        norm_before_residual=bool(config.get("norm_before_residual", False)),
        max_position=config.get("max_position_embeddings", 4096),
        dtype=dtype,
        capture=tuple(layer + shift for layer in layers) if layers else None,
    )


def _placement(source: TensorSource, width: int) -> str:
    """Where a file that does not say so keeps its signals."""
    if "signal_head.weight" in source.names():
        return "draft"
    fused = "fc.weight" in source.names() and source.shape("fc.weight")[0] == width + len(SIGNALS)
    return "fc" if fused else "none"


def _read_vocabulary(source: TensorSource, config: DraftConfig) -> np.ndarray:
    """Absolute target ids int32 [W] of the draft's vocabulary, checked against the mask the file keeps beside them."""
    own = np.arange(config.draft_vocab_size)
    if "d2t" not in source.names():
        return own.astype(np.int32)
    absolute = own + source.read("d2t")
    in_range = absolute.min() >= 0 and absolute.max() < config.vocab_size
    if not in_range or not np.array_equal(np.isin(np.arange(config.vocab_size), absolute), source.read("t2d")):
        raise ValueError(f"{source.folder}: d2t must hold offsets (target id - draft id) to the tokens marked in t2d.")
    return absolute.astype(np.int32)


def _check_embedding(source: TensorSource, target_embedding) -> None:
    table = source.read("embed_tokens.weight").astype(np.float32)
    ours = None if target_embedding is None else np.asarray(target_embedding).astype(np.float32)
    if ours is None or ours.shape != table.shape or not np.allclose(ours, table, rtol=1e-2, atol=1e-4):
        raise ValueError(
            f"{source.folder} holds an embedding table of its own; give its target, whose table must be the same."
        )
