"""The config.json of a draft in the dialects of its readers: EAGLE (AngelSlim reads it too) and vLLM's speculators.

Nothing is left to a default when writing, because defaults differ: `norm_before_residual` is False where an EAGLE file is
silent and True where a speculators file is. Layer ids count the layers' INPUTS in EAGLE, vLLM and speculators, which read
`eagle_aux_hidden_state_layer_ids`, and their OUTPUTS, one lower, in SGLang and SpecForge, which read the key of that name
inside `eagle_config` alone: a file may hold both. One that has only the latter is written by either camp, so its reader
must be told.

A sliding window is `sliding_window` tokens, a token's own included, and in force where `use_sliding_window` (Qwen's files) or
`layer_types` (Hugging Face's of today, which vLLM reads of a draft) says so; both are written. Engines let a draft's own
steps push verified pairs out of the window, ours and training-time test do not: at its far edge they see up to K - 1 fewer.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from specexit_jax.models.checkpoints.hf_rope import read_rope
from specexit_jax.models.checkpoints.hf_tensors import decoder_json, require
from specexit_jax.models.config import PAPER_SIGNALS, DraftConfig

CONVENTIONS = ("inputs", "outputs")
LAYER_IDS = ("both", *CONVENTIONS)
FORMATS = ("eagle", "angelslim", "speculators")
_FULL, _SLIDING = "full_attention", "sliding_attention"
_LAYERS, _NESTED, _CONVENTION = (
    "eagle_aux_hidden_state_layer_ids",
    "eagle_config",
    "eagle_aux_hidden_state_layer_convention",
)
_SIGNALS = "signal_order"
_UNSUPPORTED = {"attention_bias": False, "mlp_bias": False, "norm_before_fc": False, "hidden_act": "silu"}


class Verifier(NamedTuple):
    """The target of a draft's file: its name on the hub or its folder, what its config.json calls its classes, and its table
    and head [V, D], for files that hold them too (the speculators library 0.9.0 leaves a table that it does not find unset)."""

    name: str
    architectures: tuple[str, ...]
    embedding: np.ndarray
    head: np.ndarray | None = None


def is_speculators(config: dict) -> bool:
    return "transformer_layer_config" in config


def read_draft_config(
    config: dict, path: Path, dtype: str, signals: str, own_embedding: bool, layer_ids: str | None
) -> DraftConfig:
    """From the JSON of `path`. signals and own_embedding are what the tensors show; layer_ids: see CONVENTIONS, None
    where the file must say it itself."""
    if is_speculators(config):
        config = {"norm_before_residual": True} | config | config["transformer_layer_config"]
    for key, nothing in _UNSUPPORTED.items():
        if config.get(key, nothing) not in (nothing, None):
            raise ValueError(f"{path} sets {key} to {config[key]!r}, which this draft does not compute.")
    if (config.get("num_hidden_layers") or 1) != 1:
        raise ValueError(f"{path} has {config['num_hidden_layers']} layers; an EAGLE-3 draft has one.")
    heads, width = require(config, "num_attention_heads", path), require(config, "hidden_size", path)
    theta, scaling = read_rope(config, path)
    return DraftConfig(
        hidden_size=width,
        target_hidden_size=config.get("target_hidden_size") or width,
        intermediate_size=require(config, "intermediate_size", path),
        num_heads=heads,
        num_kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or width // heads,
        vocab_size=require(config, "vocab_size", path),
        draft_vocab_size=config.get("draft_vocab_size") or config["vocab_size"],
        rms_norm_eps=config.get("rms_norm_eps") or 1e-6,
        rope_theta=theta,
        rope_scaling=scaling,
        signals=signals,
        norm_before_residual=bool(config.get("norm_before_residual", False)),
        max_position=config.get("max_position_embeddings") or 4096,
        dtype=dtype,
        capture=_captured(config, path, layer_ids),
        own_embedding=own_embedding,
        sliding_window=_window(config, path),
        signal_names=signal_names(config, path),
    )


def signal_names(config: dict, path: Path) -> tuple[str, ...]:
    """Which signals the rows are: of AngelSlim's files, which do not say so, those of the paper."""
    names = config.get(_SIGNALS, list(PAPER_SIGNALS))
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} sets {_SIGNALS} to {names!r}; it is a list of the signals' names.")
    return tuple(names)


def _window(config: dict, path: Path) -> int:
    """Tokens of the sliding window, 0 where there is none or it is not in force."""
    window, used, types = (config.get(key) for key in ("sliding_window", "use_sliding_window", "layer_types"))
    if types not in (None, [_FULL], [_SLIDING]):
        raise ValueError(
            f"{path} sets layer_types to {types!r}; of a draft's one layer it is [{_FULL!r}] or [{_SLIDING!r}]."
        )
    if window is not None and (type(window) is not int or window < 1):
        raise ValueError(f"{path} sets sliding_window to {window!r}; it is a number of tokens, or null for none.")
    told = {used} if types is None else {used, types == [_SLIDING]}
    if {True, False} <= told:
        raise ValueError(f"{path} contradicts itself: use_sliding_window is {used!r} and layer_types {types!r}.")
    if window is None and True in told:
        raise ValueError(f"{path} has a sliding window in force but no sliding_window: give its number of tokens.")
    if window is not None and told == {None}:
        raise ValueError(
            f"{path} has a sliding_window of {window}: say with use_sliding_window whether it is in force."
        )
    return window if True in told else 0


def _captured(config: dict, path: Path, layer_ids: str | None) -> tuple[int, ...] | None:
    """The target layers whose inputs the draft reads; None where the file does not say."""
    outer, nested = config.get(_LAYERS), (config.get(_NESTED) or {}).get(_LAYERS)
    convention = layer_ids or config.get(_CONVENTION) or ("inputs" if outer else None)
    layers = (nested or outer) if convention == "outputs" else (outer or nested)
    if not layers:
        return None
    if convention not in CONVENTIONS:
        raise ValueError(
            f"{path} numbers its layers {layers} without saying what it counts: say inputs (EAGLE, vLLM) or outputs "
            "(SGLang, SpecForge) with the argument draft_layer_ids, which is --draft_layer_ids on the command line."
        )
    return tuple(layer + (convention == "outputs") for layer in layers)


def draft_json(
    config: DraftConfig,
    dtype: str,
    form: str = "angelslim",
    layer_ids: str = "both",
    verifier: Verifier | None = None,
) -> dict:
    """The config.json of a draft in one of FORMATS; see `save_draft`."""
    if form not in FORMATS:
        raise ValueError(f"Unknown draft format {form!r}: choose among {', '.join(FORMATS)}.")
    layer = {
        "model_type": "llama",
        **decoder_json(config, 1),
        "attention_bias": False,
        "mlp_bias": False,
    }
    if config.sliding_window:
        layer |= {"sliding_window": config.sliding_window, "use_sliding_window": True, "layer_types": [_SLIDING]}
    ours = {
        "draft_vocab_size": config.draft_vocab_size,
        "target_hidden_size": config.target_hidden_size,
        "norm_before_residual": config.norm_before_residual,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
        "signals": config.signals,
        _SIGNALS: list(config.signal_names),
    }
    if config.capture is not None:
        ours |= _capture_json(config.capture, form, layer_ids)
    if form != "speculators":
        return {"architectures": ["LlamaForCausalLMEagle3"], **layer, **ours}
    if verifier is None:
        raise ValueError("A speculators file names the model that verifies the draft: give its target.")
    proposal = {"proposal_type": "greedy", "speculative_tokens": 3, "verifier_accept_k": 1, "accept_tolerance": 0.0}
    return {
        "architectures": ["Eagle3Speculator"],
        "speculators_model_type": "eagle3",
        "speculators_version": "0.1.0",
        "has_no_defaults_at_init": False,
        **ours,
        "transformer_layer_config": layer,
        "speculators_config": {
            "algorithm": "eagle3",
            "default_proposal_method": "greedy",
            "proposal_methods": [proposal],
            "verifier": {"name_or_path": verifier.name, "architectures": list(verifier.architectures)},
        },
    }


def _capture_json(capture: tuple[int, ...], form: str, layer_ids: str) -> dict:
    """The captured layers under the keys of LAYER_IDS' readers; in both, the convention named is the outer key's."""
    inputs = {_LAYERS: list(capture), _CONVENTION: "inputs"}
    if form == "speculators":
        if layer_ids == "outputs":
            raise ValueError("speculators files count the layers' inputs: leave layer_ids (--layer_ids) out.")
        return inputs
    outputs = {
        _NESTED: {"use_aux_hidden_state": True, _LAYERS: [layer - 1 for layer in capture]},
        _CONVENTION: "outputs",
    }
    return {"inputs": inputs, "outputs": outputs, "both": outputs | inputs}[layer_ids]
