"""Where a model's thinking begins and ends, read off its tokenizer and chat template.

Prompts of Qwen3-Thinking and the R1 distills end in an open `<think>`; Qwen3's hybrid models open it themselves, so it is
opened for them; `nothink` closes it in the prompt, in the words of the template where that knows how.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from specexit_jax.data.tokenizer import prompt_text

THINK, END_THINK = "<think>", "</think>"
_CLOSED = "\n\n</think>\n\n"  # as Qwen3 closes it, for templates that cannot


@dataclasses.dataclass(frozen=True)
class Thinking:
    """Token ids. start, end: `<think>` and `</think>`. ajar: what a prompt with open thinking ends in; shut: what stands
    there instead where the thinking is closed; both () where the model has no chat template."""

    start: tuple[int, ...]
    end: tuple[int, ...]
    ajar: tuple[int, ...] = ()
    shut: tuple[int, ...] = ()

    def is_open(self, ids: Sequence[int]) -> bool:
        """Whether a prompt leaves its last `<think>` open."""
        ids = [int(token) for token in ids]
        last = max(_occurrences(ids, self.start), default=None)
        return last is not None and not _occurrences(ids[last + len(self.start) :], self.end)

    def close(self, ids: Sequence[int]) -> list[int]:
        """The prompt with its open thinking closed at once: an exit before the first token of thought."""
        ids = list(ids)
        if not self.is_open(ids):
            return ids
        if self.shut and tuple(ids[-len(self.ajar) :]) == self.ajar:
            return [*ids[: -len(self.ajar)], *self.shut]
        return [*ids, *self.end]


def find_thinking(tokenizer: Any) -> Thinking | None:
    """How this model thinks; None for one that has no `<think>` of its own, neither as a token nor in its template."""
    start, end = (tuple(tokenizer.encode(text, add_special_tokens=False)) for text in (THINK, END_THINK))
    template = tokenizer.chat_template or ""
    if len(start) != 1 and END_THINK not in str(template):
        return None
    if not template:
        return Thinking(start, end)
    thinking = Thinking(start, end)
    opened = _open_prompt(tokenizer, thinking, "?")
    text = prompt_text(tokenizer, "?", thinking=False)
    shut = tokenizer.encode(text, add_special_tokens=False) if END_THINK in text else None
    if shut is None or not _occurrences(shut, end):
        words = tokenizer.decode(opened, skip_special_tokens=False, clean_up_tokenization_spaces=False).rstrip("\n")
        shut = tokenizer.encode(words + _CLOSED, add_special_tokens=False)
    common = next(
        (i for i, (a, b) in enumerate(zip(opened, shut, strict=False)) if a != b), min(len(opened), len(shut))
    )
    common = min(common, len(opened) - 1)  # something to recognise the open prompt by
    return Thinking(start, end, tuple(opened[common:]), tuple(shut[common:]))


def chat_prompt(tokenizer: Any, thinking: Thinking | None, question: str | Sequence[dict[str, str]]) -> list[int]:
    """The chat prompt of one question or conversation; of a model that thinks, with its thinking open."""
    if thinking is None:
        return tokenizer.encode(prompt_text(tokenizer, question), add_special_tokens=False)
    return _open_prompt(tokenizer, thinking, question)


def _open_prompt(tokenizer: Any, thinking: Thinking, question: str | Sequence[dict[str, str]]) -> list[int]:
    ids = tokenizer.encode(prompt_text(tokenizer, question), add_special_tokens=False)
    if thinking.is_open(ids):
        return ids
    return ids + tokenizer.encode(f"{THINK}\n", add_special_tokens=False)


def _occurrences(ids: Sequence[int], pattern: Sequence[int]) -> list[int]:
    """Where `pattern` begins in `ids`."""
    return [i for i in range(len(ids) - len(pattern) + 1) if tuple(ids[i : i + len(pattern)]) == tuple(pattern)]
