"""What a policy was calibrated or certified for, as policy.json keeps it, and how a run differs from that."""

from __future__ import annotations

import dataclasses
from typing import Any

from specexit_jax.exits.boundaries import KINDS
from specexit_jax.storage.identity import same


@dataclasses.dataclass(frozen=True)
class Sampled:
    """How tokens are chosen (`decoding.sampling.Sampling`), save the rule: both rules have the same law."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float = 1.0  # of files that do not say


@dataclasses.dataclass(frozen=True)
class Thought:
    """opens: the text in which a chat prompt's open thinking begins, null where none opens it; closes: ids of `</think>`."""

    opens: str | None
    closes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class MadeFor:
    """target, draft: what the weights are (`models.checkpoints.content`); an export in another type keeps the draft
    that was certified.

    boundary_kinds, smoothing, budget: those of the policy itself, which a run or an edit may change; max_new_tokens: of a
    request, thinking and answer.
    """

    target: str
    draft: str
    sampling: Sampled
    boundary_kinds: tuple[str, ...]
    smoothing: str
    budget: int | None
    max_new_tokens: int
    thinking: Thought


def parse_made_for(content: Any) -> MadeFor | None:
    """From JSON; null: of a file of before, which does not say. Raises ValueError with a clause on what is wrong."""
    if content is None:
        return None
    fields = _fields(content, MadeFor, "made_for")
    sampled = fields["sampling"]
    sampled = {"repetition_penalty": 1.0} | sampled if isinstance(sampled, dict) else sampled
    sampling = Sampled(**_fields(sampled, Sampled, "made_for.sampling"))
    thinking = _fields(fields["thinking"], Thought, "made_for.thinking")
    kinds, closes = fields["boundary_kinds"], thinking["closes"]
    sound = {
        "sampling": all(_is_number(value) for value in dataclasses.astuple(sampling)),
        "boundary_kinds": isinstance(kinds, list) and all(kind in KINDS for kind in kinds),
        "max_new_tokens": _is_count(fields["max_new_tokens"]),
        "budget": fields["budget"] is None or _is_count(fields["budget"]),
        "thinking": isinstance(closes, list) and all(map(_is_count, closes)) and _is_text(thinking["opens"] or ""),
    } | {name: _is_text(fields[name]) for name in ("target", "draft", "smoothing")}
    if wrong := next((name for name, good in sound.items() if not good), None):
        raise ValueError(f"made_for.{wrong} is {fields[wrong]!r}, which launch.calibrate does not write")
    thought = Thought(thinking["opens"], tuple(closes))
    return MadeFor(**fields | {"sampling": sampling, "thinking": thought, "boundary_kinds": tuple(kinds)})


def differences(made: MadeFor, now: MadeFor) -> list[str]:
    """What of a run (`now`) is not as it was, a few words each. The draft is not compared: another one is refused."""
    found = [] if same(now.target, made.target) else ["another target"]
    greedy = made.sampling.temperature == now.sampling.temperature == 0  # then no filter matters
    names = ("repetition_penalty",) if greedy else (field.name for field in dataclasses.fields(Sampled))
    for name in names:
        found += _told(name, getattr(made.sampling, name), getattr(now.sampling, name))
    for name in ("boundary_kinds", "smoothing", "budget", "max_new_tokens"):
        found += _told(name, getattr(made, name), getattr(now, name))
    found += _told("thinking opened by", made.thinking.opens, now.thinking.opens)
    return found + _told("thinking closed by ids", made.thinking.closes, now.thinking.closes)


def _told(name: str, before: Any, after: Any) -> list[str]:
    return [] if before == after else [f"{name} {_shown(after)} instead of {_shown(before)}"]


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(str(part) for part in value)
    return repr(value) if isinstance(value, str) and not value.isidentifier() else str(value)


def _fields(content: Any, kind: type, name: str) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(kind)]
    if not isinstance(content, dict) or set(content) != set(names):
        raise ValueError(f"{name} holds exactly {', '.join(names)}: run launch.calibrate again")
    return content


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
