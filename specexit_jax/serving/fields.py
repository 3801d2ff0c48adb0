"""The fields of a request, checked one by one: what is wrong or not served is a 400 that names the field."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from specexit_jax.serving.messages import messages_of, text_prompt
from specexit_jax.serving.refusals import Refused, wrong

MOST_CHOICES, MOST_STOPS, LONGEST_STOP = 8, 16, 256
MOST_LOGPROBS = 20  # likely tokens in the place of each


@dataclasses.dataclass
class Asked:
    """A request in our words. prompt: messages, a text or token ids. settings: those of the API (`Settings`), without method.

    method: None: the server's own. stop: texts that end the answer. choices: how many answers. usage: whether a stream ends with
    the usage. logprobs: of so many likely tokens beside each that is written; None: of none at all.
    """

    chat: bool
    prompt: Any = None
    model: str | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    method: str | None = None
    stop: tuple[str, ...] = ()
    choices: int = 1
    stream: bool = False
    usage: bool = False
    logprobs: int | None = None


def asked_of(body: Mapping[str, Any], chat: bool) -> Asked:
    """The request in a body. chat: whether of /v1/chat/completions. Raises Refused."""
    fields = (_CHAT if chat else _RAW) | _BOTH
    neutral = _NEUTRAL | (_NEUTRAL_CHAT if chat else _NEUTRAL_RAW)
    asked = Asked(chat)
    for name, value in body.items():
        if name in fields:
            if value is not None:
                fields[name](asked, name, value)
        elif name in neutral:
            if not any(value == own and type(value) is type(own) for own in (None, *neutral[name])):
                raise wrong(name, "is not supported by this server: leave it out.")
        elif name not in _IGNORED:
            raise Refused(400, f"There is no field {name[:80]!r}.", name[:80], "unknown_parameter")
    if asked.prompt is None:
        needed = "messages" if chat else "prompt"
        raise Refused(400, f"{needed} is missing.", needed, "missing_required_parameter")
    if chat and body.get("top_logprobs") is not None and body.get("logprobs") is not True:
        raise wrong("top_logprobs", "is of log-probabilities: give logprobs=true too.")
    if asked.usage and not asked.stream:
        raise wrong("stream_options", "is of streams: give stream=true too.")
    return asked


def number(name: str, value: Any, low: float, high: float, above: bool = False) -> float:
    """A finite number from low to high; above: low is not allowed itself."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(name, f"must be a number, not {_shown(value)}.")
    if not (low < value if above else low <= value) or value > high or not math.isfinite(value):
        least = f"above {low:g} and at most" if above else f"from {low:g} to"
        raise wrong(name, f"must be {least} {high:g}, but it is {_shown(value)}.")
    return float(value)


def whole(name: str, value: Any, low: int, high: int = 2**63 - 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(name, f"must be a whole number, not {_shown(value)}.")
    if not low <= value <= high:
        raise wrong(name, f"must be from {low} to {high}, but it is {_shown(value)}.")
    return value


def truth(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong(name, f"must be true or false, not {_shown(value)}.")
    return value


def text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong(name, f"must be a text, not {_shown(value)}.")
    return value


def objects(name: str, value: Any, keys: tuple[str, ...]) -> Mapping[str, Any]:
    """An object with some of these keys."""
    if not isinstance(value, dict):
        raise wrong(name, f"must be an object, not {_shown(value)}.")
    for key in value:
        if key not in keys:
            raise wrong(f"{name}.{key[:80]}", f"is not served: {name} holds {', '.join(keys)}.")
    return value


def _shown(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 80 else f"{said[:77]}…"


def _set(key: str, check: Callable[..., Any], *limits: Any) -> Callable[[Asked, str, Any], None]:
    """A field that is one of the API's settings."""

    def put(asked: Asked, name: str, value: Any) -> None:
        asked.settings[key] = check(name, value, *limits)

    return put


def _top_k(name: str, value: Any) -> int:
    return max(whole(name, value, -1), 0)  # other servers write -1 for all


def _most_tokens(asked: Asked, name: str, value: Any) -> None:
    found = whole(name, value, 1)
    if asked.settings.get("max_new_tokens", found) != found:
        raise wrong(name, "contradicts max_completion_tokens: give one of them.")
    asked.settings["max_new_tokens"] = found


def _stop(asked: Asked, name: str, value: Any) -> None:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or len(texts) > MOST_STOPS:
        raise wrong(name, f"must be a text or at most {MOST_STOPS} of them, not {_shown(value)}.")
    for each in texts:
        if not 0 < len(text(name, each)) <= LONGEST_STOP:
            raise wrong(name, f"holds texts of 1 to {LONGEST_STOP} characters, but one is {_shown(each)}.")
    asked.stop = tuple(dict.fromkeys(texts))


def _stream_options(asked: Asked, name: str, value: Any) -> None:
    given = objects(name, value, ("include_usage",))
    asked.usage = truth(f"{name}.include_usage", given.get("include_usage", False))


def _logprobs(asked: Asked, name: str, value: Any) -> None:
    if truth(name, value):
        asked.logprobs = asked.logprobs or 0


def _top_logprobs(asked: Asked, name: str, value: Any) -> None:
    asked.logprobs = whole(name, value, 0, MOST_LOGPROBS)


def _template(asked: Asked, name: str, value: Any) -> None:
    given = objects(name, value, ("enable_thinking",))
    if not truth(f"{name}.enable_thinking", given.get("enable_thinking", True)):
        _method(asked, f"{name}.enable_thinking", "nothink")


def _specexit(asked: Asked, name: str, value: Any) -> None:
    given = objects(name, value, ("method", "epsilon"))
    if given.get("method") is not None:
        _method(asked, f"{name}.method", text(f"{name}.method", given["method"]))
    if given.get("epsilon") is not None:
        asked.settings["epsilon"] = number(f"{name}.epsilon", given["epsilon"], 0, 1)


def _method(asked: Asked, name: str, method: str) -> None:
    if asked.method not in (None, method):
        raise wrong(name, f"asks for {method}, and another field for {asked.method}: give one of them.")
    asked.method = method


def _put(key: str, check: Callable[..., Any], *limits: Any) -> Callable[[Asked, str, Any], None]:
    """A field of `Asked` itself."""

    def put(asked: Asked, name: str, value: Any) -> None:
        setattr(asked, key, check(name, value, *limits))

    return put


_BOTH = {
    "model": _put("model", text),
    "stream": _put("stream", truth),
    "stream_options": _stream_options,
    "max_tokens": _most_tokens,
    "temperature": _set("temperature", number, 0, 100),
    "top_p": _set("top_p", number, 0, 1, True),
    "top_k": _set("top_k", _top_k),
    "min_p": _set("min_p", number, 0, 1),
    "repetition_penalty": _set("repetition_penalty", number, 0, 100, True),
    "seed": _set("seed", whole, -(2**63)),
    "stop": _stop,
    "n": _put("choices", whole, 1, MOST_CHOICES),
    "thinking_token_budget": _set("thinking_budget", whole, 0),
    "specexit": _specexit,
}
_CHAT = {
    "messages": _put("prompt", messages_of),
    "max_completion_tokens": _most_tokens,
    "chat_template_kwargs": _template,
    "logprobs": _logprobs,
    "top_logprobs": _top_logprobs,
}
_RAW = {"prompt": _put("prompt", text_prompt), "logprobs": _top_logprobs}
# Fields of OpenAI's that are not served: only the values that ask for nothing are taken.
_NEUTRAL = {"frequency_penalty": (0, 0.0), "presence_penalty": (0, 0.0), "logit_bias": ({},)}
_NEUTRAL_CHAT = {
    "tools": ([],), "tool_choice": ("none",), "response_format": ({"type": "text"},),
    "parallel_tool_calls": (True, False), "modalities": (["text"],), "functions": ([],), "function_call": ("none",),
    "audio": (), "prediction": (), "reasoning_effort": (), "verbosity": (), "web_search_options": (), "guided_json": (),
    "structured_outputs": (),
}  # fmt: skip
_NEUTRAL_RAW = {"echo": (False,), "best_of": (1,), "suffix": ("",)}
_IGNORED = ("user", "metadata", "safety_identifier", "store", "service_tier", "prompt_cache_key")
