"""The messages of a conversation, and raw prompts, as a body holds them."""

from typing import Any

from specexit_jax.serving.refusals import wrong

MOST = 1024  # messages of a conversation
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# What clients send back of an answer, or say of a speaker: no template reads it.
_UNREAD = ("name", "reasoning", "reasoning_content", "refusal", "annotations")


def messages_of(name: str, value: Any) -> list[dict[str, str]]:
    """Messages {role, content}. Raises Refused on the first that is none."""
    if not isinstance(value, list):
        raise wrong(name, f"must be a list of messages, not {type(value).__name__}.")
    if not 0 < len(value) <= MOST:
        raise wrong(name, f"must hold 1 to {MOST} messages, but there are {len(value)}.")
    return [_message(f"{name}[{place}]", each) for place, each in enumerate(value)]


def _message(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise wrong(name, f"must be an object, not {type(value).__name__}.")
    for key, own in value.items():
        if key not in ("role", "content", *_UNREAD) and own is not None:
            raise wrong(f"{name}.{key[:80]}", "is not served: a message holds role and content.")
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise wrong(f"{name}.role", f"must be one of {', '.join(_ROLES)}.")
    return {"role": _ROLES[role], "content": _content(f"{name}.content", value.get("content"))}


def _content(name: str, value: Any) -> str:
    if isinstance(value, str):
        return _text(name, value)
    if not isinstance(value, list):
        raise wrong(name, "must be a text, or a list of parts of type text.")
    parts = []
    for place, part in enumerate(value):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise wrong(f"{name}[{place}]", "is not served: a part is {'type': 'text', 'text': …}.")
        parts.append(_text(f"{name}[{place}].text", part["text"]))
    return "".join(parts)


def text_prompt(name: str, value: Any) -> str | list[int]:
    """A raw prompt: a text, or token ids."""
    if isinstance(value, str) and value:
        return _text(name, value)
    if isinstance(value, list) and value and all(type(token) is int and 0 <= token < 2**31 for token in value):
        return value
    raise wrong(name, "must be one text or one list of token ids, and not empty.")


def _text(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise wrong(name, f"is not valid Unicode: character {error.start} is half of a surrogate pair.") from None
    return value
