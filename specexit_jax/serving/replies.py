"""OpenAI's objects: whole answers, chunks of streams, usage."""

import secrets
import time
from collections.abc import Sequence
from typing import Any


class Replies:
    """The objects of one request, which share id, time and model. chat: whether of /v1/chat/completions."""

    def __init__(self, chat: bool, model: str):
        self._chat = chat
        self._kind = "chat.completion" if chat else "text_completion"
        name = f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}"
        self._shared = {"id": name, "created": int(time.time()), "model": model}

    def whole(self, choices: Sequence[dict[str, Any]], usage: dict[str, Any]) -> dict[str, Any]:
        return self._shared | {"object": self._kind, "choices": list(choices), "usage": usage}

    def choice(
        self,
        number: int,
        reasoning: str,
        content: str,
        finish: str,
        own: dict[str, Any],
        logs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """One of a whole answer's. own: the `specexit` block. logs: its `logprobs`."""
        shared = {"index": number, "finish_reason": finish, "logprobs": logs, "specexit": own}
        if not self._chat:
            return shared | {"text": content}
        said = {"role": "assistant", "content": content, "refusal": None, "reasoning": reasoning or None}
        return shared | {"message": said | {"reasoning_content": reasoning or None}}

    def chunk(
        self,
        number: int,
        own: dict[str, Any],
        reasoning: str = "",
        content: str = "",
        finish: str | None = None,
        first: bool = False,
        logs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """first: the choice's first chunk, which names the role. logs: `logprobs` of its tokens."""
        shared = {"index": number, "finish_reason": finish, "logprobs": logs, "specexit": own}
        if self._chat:
            said = {"role": "assistant", "content": ""} if first else {}
            said |= {"reasoning": reasoning, "reasoning_content": reasoning} if reasoning else {}
            shared["delta"] = said | ({"content": content} if content else {})
        else:
            shared["text"] = content
        return self._shared | {"object": self._chunks, "choices": [shared]}

    def last(self, usage: dict[str, Any]) -> dict[str, Any]:
        """The chunk of include_usage."""
        return self._shared | {"object": self._chunks, "choices": [], "usage": usage}

    @property
    def _chunks(self) -> str:
        return f"{self._kind}.chunk" if self._chat else self._kind


def usage_of(prompt: int, choices: Sequence[dict[str, int]]) -> dict[str, Any]:
    """prompt: its tokens. choices: `tokens` of their blocks."""
    thinking, answer = (sum(each[name] for each in choices) for name in ("thinking", "answer"))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": thinking + answer,
        "total_tokens": prompt + thinking + answer,
        "completion_tokens_details": {"reasoning_tokens": thinking},
    }
