"""Token ids of a chat prompt, in which the special tokens are the template's: a message cannot write any.

A message that contains the name of a special token, such as `</think>` or `<|im_end|>`, keeps it as text. Otherwise whoever writes
a message could end the turn, speak for the assistant or close the thinking.
"""

import re
from collections.abc import Sequence
from typing import Any

from specexit_jax.data.tokenizer import END_THINK, THINK, prompt_text

_MARKS = range(
    0xE000, 0xF900
)  # characters for private use, one of which stands for names while the template is applied


def prompt_ids(tokenizer: Any, question: str | Sequence[dict[str, str]]) -> list[int]:
    """The ids of the chat prompt of a question or conversation (`prompt_text`).

    Earlier replies keep their `<think>` and `</think>`, which templates look for. Raises ValueError where a message holds the name
    of a special token that this tokenizer cannot write as text.
    """
    turns = [{"role": "user", "content": question}] if isinstance(question, str) else [dict(turn) for turn in question]
    names = sorted((token.content for token in tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
    taken = [
        [name for name in names if turn["role"] != "assistant" or name not in (THINK, END_THINK)] for turn in turns
    ]
    if not any(name in turn["content"] for turn, own in zip(turns, taken, strict=True) for name in own):
        return tokenizer.encode(prompt_text(tokenizer, turns), add_special_tokens=False)
    mark = _unused(turns)
    for turn, own in zip(turns, taken, strict=True):
        pattern = "|".join(map(re.escape, own))
        turn["content"] = re.sub(pattern, lambda found: f"{mark}{names.index(found[0])}{mark}", turn["content"])
    return _encoded(tokenizer, prompt_text(tokenizer, turns), names, mark)


def without_system(turns: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The messages without a system role: its text is put before the first user message."""
    said = [turn["content"] for turn in turns if turn["role"] == "system"]
    rest = [dict(turn) for turn in turns if turn["role"] != "system"]
    first = next((turn for turn in rest if turn["role"] == "user"), None)
    if said and first is not None:
        first["content"] = "\n\n".join([*said, first["content"]])
    return rest


def _unused(turns: Sequence[dict[str, str]]) -> str:
    written = {letter for turn in turns for letter in turn["content"]}
    found = next((chr(code) for code in _MARKS if chr(code) not in written), None)
    if found is None:
        raise ValueError(
            "The messages hold every character for private use, so special tokens in them cannot be kept as text."
        )
    return found


def _encoded(tokenizer: Any, text: str, names: Sequence[str], mark: str) -> list[int]:
    """Ids of a rendered prompt. Of its parts between special tokens, those with marked names are encoded as plain text."""
    ids, usual = [], ""
    for part in re.split(f"({'|'.join(map(re.escape, names))})", text):
        if mark not in part:
            usual += part
            continue
        ids += tokenizer.encode(usual, add_special_tokens=False)
        ids += _plain(tokenizer, re.sub(f"{mark}([0-9]+){mark}", lambda found: names[int(found[1])], part))
        usual = ""
    return ids + tokenizer.encode(usual, add_special_tokens=False)


def _plain(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text by the tokenizer's model alone, which knows no special tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(
            "A message holds the name of a special token, which this tokenizer cannot write as text: leave it out."
        )
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    pieces = (
        [text] if backend.pre_tokenizer is None else [each for each, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    )
    return [token.id for piece in pieces for token in backend.model.tokenize(piece)]
