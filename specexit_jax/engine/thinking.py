"""Where a model's thinking begins and ends, read off its tokenizer and chat template.

Prompts of Qwen3-Thinking and the R1 distills end in an open `<think>`; Qwen3's hybrid models open it themselves, so it is
opened for them; `nothink` closes it in the prompt, in the words of the template where that knows how.

Where the two are not tokens of their own, what is written around them decides about their ids (">\\n" may be one token):
both are looked for in decoded text. Of a prompt only what follows its last turn counts: a question may speak of `<think>`.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from specexit_jax.data.tokenizer import prompt_text

THINK, END_THINK = "<think>", "</think>"
_CLOSED = "\n\n</think>\n\n"  # as Qwen3 closes it, for templates that cannot
_TAIL = 64  # ids of a prompt that are decoded first, from its end


@dataclasses.dataclass(frozen=True)
class Thinking:
    """Ids of `<think>` (start) and `</think>` (end) by themselves.

    open_suffix: what a prompt with open thinking ends in; closed_suffix: what replaces it where thinking is closed at once; both
    () where the model has no chat template. decode: ids to text. header: the text between the last turn of
    a prompt and the reply; "" where none is known, and all of a prompt counts.
    """

    start: tuple[int, ...]
    end: tuple[int, ...]
    open_suffix: tuple[int, ...] = ()
    closed_suffix: tuple[int, ...] = ()
    decode: Callable[[Sequence[int]], str] = dataclasses.field(default=str, compare=False, repr=False)
    header: str = ""

    def is_open(self, ids: Sequence[int]) -> bool:
        """Whether a prompt leaves its last `<think>` open."""
        _, opened, rest = self.reply(ids).rpartition(THINK)
        return bool(opened) and END_THINK not in rest

    def close(self, ids: Sequence[int]) -> list[int]:
        """The prompt with its open thinking closed at once: an exit before the first token of thought."""
        ids = list(ids)
        if not self.is_open(ids):
            return ids
        if self.closed_suffix and tuple(ids[-len(self.open_suffix) :]) == self.open_suffix:
            return [*ids[: -len(self.open_suffix)], *self.closed_suffix]
        return [*ids, *self.end]

    def reply(self, ids: Sequence[int]) -> str:
        """What a prompt holds of the reply, as text; all of the prompt where no header is found."""
        ids, width = [int(token) for token in ids], _TAIL
        while self.header and ids:
            _, found, rest = self.decode(ids[-width:]).rpartition(self.header)
            if found:
                return rest
            if width >= len(ids):
                break
            width *= 8
        return self.decode(ids)


def find_thinking(tokenizer: Any) -> Thinking | None:
    """How this model thinks; None for one that has no `<think>` of its own, neither as a token nor in its template.

    Raises ValueError where the tokenizer cannot write `</think>`, so that no thinking could be followed.
    """
    encode = functools.partial(tokenizer.encode, add_special_tokens=False)
    decode = functools.partial(tokenizer.decode, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    start, end = tuple(encode(THINK)), tuple(encode(END_THINK))
    template = str(tokenizer.chat_template or "")
    own = len(start) == 1 and decode(start).strip() == THINK
    if not own and THINK not in template and END_THINK not in template:
        return None
    if decode(end).strip() != END_THINK:
        raise ValueError(
            f"The chat template thinks, but its tokenizer writes {END_THINK} as {decode(end)!r}: give the tokenizer that "
            "belongs to it."
        )
    thinking = Thinking(start, end, decode=decode, header=_header(tokenizer) if template else "")
    if not template:
        return thinking
    opened, text = _open_prompt(tokenizer, thinking, "?"), prompt_text(tokenizer, "?")
    closed_suffix = encode(prompt_text(tokenizer, "?", thinking=False))
    if END_THINK not in thinking.reply(closed_suffix):
        words = text if opened == encode(text) else text + THINK
        closed_suffix = encode(words.rstrip("\n") + _CLOSED)
    common = next(
        (i for i, (a, b) in enumerate(zip(opened, closed_suffix, strict=False)) if a != b),
        min(len(opened), len(closed_suffix)),
    )
    common = min(common, len(opened) - 1)  # something to recognise the open prompt by
    return dataclasses.replace(
        thinking, open_suffix=tuple(opened[common:]), closed_suffix=tuple(closed_suffix[common:])
    )


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


def _header(tokenizer: Any) -> str:
    """What the template writes before a reply, up to its `<think>`; of one that writes nothing, what ends the user's turn."""
    prompt = prompt_text(tokenizer, "?")
    turns = tokenizer.apply_chat_template(
        [{"role": "user", "content": "?"}], tokenize=False, add_generation_prompt=False
    )
    for written in (prompt.removeprefix(turns) if prompt.startswith(turns) else "", prompt.rpartition("?")[2]):
        header = written.partition(THINK)[0].rstrip()
        if header:
            return header
    return ""
