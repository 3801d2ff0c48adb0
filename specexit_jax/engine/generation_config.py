"""generation_config.json: a model's sampling defaults, and its options that this engine does not compute.

Names and neutral values are those of transformers' GenerationConfig; for penalties that only vLLM has, vLLM's.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from specexit_jax.decoding.sampling import Sampling
from specexit_jax.models.checkpoints.hf_tensors import read_json
from specexit_jax.notes import note

NAME = "generation_config.json"
NEW_TOKENS = 4096  # the default limit where neither the caller nor the file has one
# Options that change the tokens of any decoding (_ALWAYS) or of sampled decoding (_SAMPLED), each with its neutral values.
# An empty list, an empty dict and False are neutral for all.
_ALWAYS = {
    "bad_words_ids": (),
    "begin_suppress_tokens": (),
    "constraints": (),
    "diversity_penalty": (0,),
    "dola_layers": (),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "exponential_decay_length_penalty": (),
    "force_words_ids": (),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "frequency_penalty": (0,),
    "guidance_scale": (1,),
    "max_time": (),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "no_repeat_ngram_size": (0,),
    "num_beam_groups": (1,),
    "num_beams": (1,),
    "penalty_alpha": (0,),
    "presence_penalty": (0,),
    "sequence_bias": (),
    "stop_strings": (),
    "suppress_tokens": (),
    "token_healing": (),
    "watermarking_config": (),
}
_SAMPLED = {"epsilon_cutoff": (0,), "eta_cutoff": (0,), "top_h": (1,), "typical_p": (1,)}


def read_defaults(folder: Path) -> dict[str, Any]:
    """The options in the folder's file, without those that are null; {} without a file."""
    path = folder / NAME
    found = read_json(path) if path.is_file() else {}
    return {name: value for name, value in found.items() if value is not None}


def sampling_of(defaults: dict[str, Any], folder: Path = Path()) -> Sampling:
    """The model's default sampling: greedy unless the file asks for sampling. A filter that it does not name is off.

    Raises ValueError on a value that is not a number or is out of range.
    """
    penalty = {"repetition_penalty": _number(defaults, "repetition_penalty", 1.0, float, folder)}
    filters = {
        "temperature": _number(defaults, "temperature", 1.0, float, folder),
        "top_k": max(_number(defaults, "top_k", 0, int, folder), 0),  # -1 is off, as in vLLM
        "top_p": _number(defaults, "top_p", 1.0, float, folder) or 1.0,
        "min_p": _number(defaults, "min_p", 0.0, float, folder),
    }
    try:
        return Sampling(**penalty | (filters if _samples(defaults) else {}))
    except ValueError as error:
        raise ValueError(f"{folder / NAME}: {error}") from None


def max_new_tokens_of(defaults: dict[str, Any], folder: Path = Path()) -> int:
    """The model's default limit of generated tokens. Raises ValueError on a limit below 1."""
    number = _number(defaults, "max_new_tokens", NEW_TOKENS, int, folder) or NEW_TOKENS
    if number < 1:
        raise ValueError(f"{folder / NAME} sets max_new_tokens to {number}; it is at least 1.")
    return number


def not_computed(defaults: dict[str, Any]) -> list[str]:
    """The options in the file that this engine does not compute, as "name=value", sorted by name."""
    looked_at = _ALWAYS | (_SAMPLED if _samples(defaults) else {})
    asked = {name: defaults[name] for name in looked_at if name in defaults}
    if "max_new_tokens" not in defaults and _below(defaults.get("max_length"), NEW_TOKENS):
        asked["max_length"] = defaults["max_length"]
    return [
        f"{name}={_short(value)}"
        for name, value in sorted(asked.items())
        if value is not False and value not in ([], {}, "") and value not in looked_at.get(name, ())
    ]


def tell_what_is_not_computed(folder: Path, defaults: dict[str, Any]) -> None:
    """Reports the file's options that are not computed, in one line on standard error."""
    asked = not_computed(defaults)
    if asked:
        note(f"{folder / NAME} asks for {', '.join(asked)}, which this engine does not compute: ignored.")


def _samples(defaults: dict[str, Any]) -> bool:
    return bool(defaults.get("do_sample", "temperature" in defaults))


def _below(value: Any, most: int) -> bool:
    return isinstance(value, int) and value < most and value != 20  # 20 is transformers' own default


def _short(value: Any) -> str:
    text = str(value).replace(" ", "")
    return text if len(text) <= 40 else f"{text[:37]}..."


def _number(defaults: dict[str, Any], name: str, default: float, kind: Callable[[Any], Any], folder: Path) -> Any:
    value = defaults.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or kind(value) != value:
        raise ValueError(
            f"{folder / NAME} sets {name} to {value!r}; it is {'a whole ' if kind is int else 'a '}number."
        )
    return kind(value)
