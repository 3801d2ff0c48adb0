"""Where a model's thinking begins and ends, found from its tokenizer and chat template.

Chat prompts of Qwen3-Thinking and the R1 distills end in an open `<think>`. Qwen3's hybrid models write it themselves, so we
add it to their prompts. `nothink` closes it in the prompt: as the template closes it, where it can.

In some tokenizers `<think>` and `</think>` are no tokens of their own. Their ids then depend on the text around them (">\\n"
may be one token), so both are searched in decoded text. Only the text after a prompt's last turn is searched, since a
question may contain `<think>`.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from specexit_jax.data.prompt_ids import prompt_ids
from specexit_jax.data.tokenizer import END_THINK, THINK, prompt_text

_CLOSED = "\n\n</think>\n\n"  # Qwen3's text, for templates that cannot close the thinking
_TAIL = 64  # the last ids of a prompt, which are decoded first


@dataclasses.dataclass(frozen=True)
class Thinking:
    """How a model opens and closes its thinking.

    start, end: the ids of `<think>` and `</think>`. open_suffix: the ids that end a chat prompt with open thinking;
    closed_suffix: those that replace them to close it; both () without a chat template. decode: ids to text. header: the text
    between a prompt's last turn and the reply; "" where it is unknown, and the whole prompt is searched.
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
        """The prompt with its open thinking closed: an exit before the first thinking token."""
        ids = list(ids)
        if not self.is_open(ids):
            return ids
        if self.closed_suffix and tuple(ids[-len(self.open_suffix) :]) == self.open_suffix:
            return [*ids[: -len(self.open_suffix)], *self.closed_suffix]
        return [*ids, *self.end]

    def reply(self, ids: Sequence[int]) -> str:
        """The part of the reply that a prompt contains, as text; the whole prompt where no header is found."""
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
    """How a model thinks; None if `<think>` is neither a token of its own nor in its chat template.

    Raises ValueError if the tokenizer does not decode `</think>` to itself, so that the end of thinking cannot be found.
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
            f"The chat template or vocabulary has {THINK}, but the tokenizer decodes {END_THINK} to {decode(end)!r}: give the "
            "tokenizer that belongs to the model."
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
    common = min(common, len(opened) - 1)  # never empty: it identifies an open prompt
    return dataclasses.replace(
        thinking, open_suffix=tuple(opened[common:]), closed_suffix=tuple(closed_suffix[common:])
    )


def chat_prompt(tokenizer: Any, thinking: Thinking | None, question: str | Sequence[dict[str, str]]) -> list[int]:
    """Token ids of the chat prompt of a question or conversation, with open thinking if the model thinks."""
    if thinking is None:
        return prompt_ids(tokenizer, question)
    return _open_prompt(tokenizer, thinking, question)


def _open_prompt(tokenizer: Any, thinking: Thinking, question: str | Sequence[dict[str, str]]) -> list[int]:
    ids = prompt_ids(tokenizer, question)
    if thinking.is_open(ids):
        return ids
    return ids + tokenizer.encode(f"{THINK}\n", add_special_tokens=False)


def _header(tokenizer: Any) -> str:
    """The text that the template puts before a reply, up to `<think>`; if it puts none, the text that ends the user's turn."""
    prompt = prompt_text(tokenizer, "?")
    turns = tokenizer.apply_chat_template(
        [{"role": "user", "content": "?"}], tokenize=False, add_generation_prompt=False
    )
    for written in (prompt.removeprefix(turns) if prompt.startswith(turns) else "", prompt.rpartition("?")[2]):
        header = written.partition(THINK)[0].rstrip()
        if header:
            return header
    return ""
