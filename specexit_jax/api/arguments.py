"""Checks of the public API's arguments. An error is one sentence that says what is wrong and what is allowed."""

import difflib
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import jax
import numpy as np
from jax.sharding import Mesh

from specexit_jax.decoding.trees import TreeShape
from specexit_jax.engine.methods import DECODED
from specexit_jax.models.config import ATTENTIONS
from specexit_jax.parallel.sharding import AXES, make_mesh

Prompt = str | Sequence[Mapping[str, str]] | Sequence[int]
DTYPES = ("float32", "bfloat16", "float16")
_FORMS = "a text, a list of messages such as {'role': 'user', 'content': '…'}, or a list of token ids"


class Settings(TypedDict, total=False):
    """How a request is decoded. A setting that is missing or None is the target's default (generation_config.json).

    temperature: 0 is greedy. top_k: keeps the k likeliest tokens; 0 keeps all. top_p: keeps the likeliest tokens that together
    reach this probability, in (0, 1]. min_p: keeps tokens of at least this share of the likeliest one's probability, in
    [0, 1]. repetition_penalty: of tokens that occurred before, above 0; 1 is none. rule: how sampled drafts are accepted,
    "keyed" (reproducible, the default) or "rejection". max_new_tokens: the most generated tokens, of thinking and answer
    together. method: one of `SpecExit.METHODS`; by default `specexit` if the draft has a policy, else `eagle3`; `think`
    without a draft. seed: of the sampling, a whole number (0). exits: False takes no exit: the text is that of the method
    without its policy, decoded by the same program, and `strict_policy` asks for nothing (True). epsilon: the risk that exits may
    have, of those that the policy is certified for (policy.json, and frontier.json beside it); by default the policy's own.
    thinking_budget: the most thinking tokens; `</think>` follows the last of them. By default there is no such limit.
    """

    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    rule: str | None
    max_new_tokens: int | None
    method: str | None
    seed: int
    exits: bool
    epsilon: float | None
    thinking_budget: int | None


SAMPLED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "rule")
_LEAST = {
    "top_k": 0,
    "max_new_tokens": 1,
    "seed": None,
    "thinking_budget": 0,
}  # whole numbers, each with its least value


def refuse_unknown(function: str, given: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raises TypeError on a keyword that the function does not take."""
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            meant = f" (did you mean {near[0]!r}?)" if near else ""
            raise TypeError(f"{function} takes no argument {name!r}{meant}: it takes {', '.join(names)}.")


def checked(function: str, given: Mapping[str, Any], more: Sequence[str] = ()) -> Settings:
    """The settings in `given`, without those that are None. more: the function's other keywords.

    Raises TypeError on an unknown keyword or a wrong type, ValueError on an unknown method or a number out of range.
    """
    refuse_unknown(function, given, (*Settings.__annotations__, *more))
    found = {name: value for name, value in given.items() if name not in more and value is not None}
    for name, value in found.items():
        if name in _LEAST:
            found[name] = whole(name, value, _LEAST[name])
        elif name == "exits":
            truth(name, value)
        elif name not in ("method", "rule"):
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise TypeError(f"{name} must be a number, not {value!r}.")
            found[name] = float(value)
    if "method" in found and found["method"] not in DECODED:
        raise ValueError(f"There is no method {found['method']!r}: choose among {', '.join(DECODED)}.")
    return found


def check_prompt(prompt: Prompt) -> None:
    """Raises TypeError on a value that is no prompt, ValueError on an empty prompt or messages that cannot be answered."""
    if isinstance(prompt, str):
        if not prompt.strip():
            raise ValueError("The prompt is empty: give a question.")
        _check_text("The prompt", prompt)
        return
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes):
        raise TypeError(f"A prompt is {_FORMS}, not {type(prompt).__name__}.")
    if not prompt:
        raise ValueError(f"The prompt is empty: give {_FORMS}.")
    if is_ids(prompt):
        return
    for message in prompt:
        if not isinstance(message, Mapping):
            raise TypeError(f"A prompt is {_FORMS}, but this list holds {message!r}.")
        if not all(isinstance(message.get(name), str) for name in ("role", "content")):
            raise ValueError(f"A message holds the texts 'role' and 'content', but one is {dict(message)!r}.")
        _check_text("A message", message["content"])
    if prompt[-1]["role"] == "assistant":
        raise ValueError(
            "The last message is the assistant's: a conversation to be answered ends with a message of another role."
        )


def check_message(message: str) -> None:
    """Raises TypeError on a message of a conversation that is no text, ValueError on an empty one."""
    if not isinstance(message, str):
        raise TypeError(f"A message is a text, not {type(message).__name__}.")
    check_prompt(message)


def _check_text(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} is not valid Unicode: character {error.start} is half of a surrogate pair.") from None


def plain(prompt: Prompt) -> Prompt:
    """The prompt, an array of token ids as a list."""
    array = isinstance(prompt, np.ndarray | jax.Array) and prompt.ndim == 1
    return prompt.tolist() if array else prompt


def checked_prompts(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts as a list. Raises as `check_prompt`, and TypeError on a single prompt."""
    if isinstance(prompts, str | bytes | Mapping) or not hasattr(prompts, "__iter__"):
        raise TypeError(
            f"Many prompts are a list of them, not one {type(prompts).__name__}: generate answers a single one."
        )
    prompts = [plain(prompt) for prompt in prompts]
    if any(isinstance(prompt, Mapping) for prompt in prompts):
        raise TypeError(
            "Many prompts are a list of prompts, but this is one conversation: generate answers a single one."
        )
    for prompt in prompts:
        check_prompt(prompt)
    return prompts


def checked_ids(ids: Sequence[str] | None, number: int) -> list[str]:
    """The ids of `number` requests; None: "0", "1", …"""
    if isinstance(ids, str) or not (ids is None or hasattr(ids, "__iter__")):
        raise TypeError(f"ids are a list of texts, one a prompt, not {ids!r}.")
    names = [str(place) for place in range(number)] if ids is None else [checked_id(name) for name in ids]
    if len(names) != number:
        raise ValueError(f"There are {number} prompts and {len(names)} ids: give one id a prompt.")
    return names


def checked_id(name: Any) -> str:
    """An id as a text; whole numbers are taken too. Raises TypeError."""
    if isinstance(name, bool) or not isinstance(name, str | numbers.Integral):
        raise TypeError(f"An id is a text, not {name!r}.")
    return str(name)


def truth(name: str, value: Any) -> bool:
    """True or False. Raises TypeError."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}.")
    return value


def whole(name: str, value: Any, least: int | None = None) -> int:
    """A whole number of at least `least`. Raises TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be a whole number, not {value!r}.")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, but it is {value}.")
    return int(value)


def is_ids(prompt: Prompt) -> bool:
    """Whether a prompt consists of token ids."""
    return not isinstance(prompt, str) and all(
        isinstance(token, numbers.Integral) and not isinstance(token, bool) for token in prompt
    )


def dtype_named(dtype: Any) -> str:
    """One of DTYPES, from its name or from a numpy or JAX type. Raises ValueError on any other."""
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or getattr(dtype, "__name__", repr(dtype))
    if name not in DTYPES:
        raise ValueError(f"dtype is {name!r}: choose among {', '.join(DTYPES)}.")
    return name


def attention_named(attention: Any) -> str:
    """One of ATTENTIONS. Raises ValueError on anything else."""
    if attention not in ATTENTIONS:
        raise ValueError(f"attention is {attention!r}: choose among {', '.join(ATTENTIONS)}.")
    return attention


def mesh_of(mesh: Mesh | Sequence[int] | None) -> Mesh | None:
    """A mesh from its sizes (data, fsdp, tensor) over this process's devices, one of which may be -1; None: one device.

    Raises TypeError on anything else.
    """
    if mesh is None or isinstance(mesh, Mesh):
        return mesh
    if isinstance(mesh, str) or not isinstance(mesh, Sequence) or [type(size) for size in mesh] != [int] * len(AXES):
        raise TypeError(f"mesh is a jax.sharding.Mesh or {len(AXES)} whole numbers ({', '.join(AXES)}), not {mesh!r}.")
    if all(size == 1 for size in mesh):
        return None
    made = make_mesh(**dict(zip(AXES, mesh, strict=True)), devices=jax.local_devices())
    return made if made.size > 1 else None


def tree_of(tree: TreeShape | Sequence[int] | None) -> TreeShape | None:
    """The shape of a draft tree from its (depth, top_k, total). Raises TypeError on anything else."""
    if tree is None or isinstance(tree, TreeShape):
        return tree
    if isinstance(tree, str) or not isinstance(tree, Sequence) or [type(size) for size in tree] != [int] * 3:
        raise TypeError(f"tree is three whole numbers (depth, top_k, total), not {tree!r}.")
    return TreeShape(*tree)


def check_folder(name: str, value: Any) -> None:
    """Raises TypeError on a value that cannot name a folder or file."""
    if value is not None and not isinstance(value, str | Path):
        raise TypeError(f"{name} is a path, or a name on the hub, not {value!r}.")
