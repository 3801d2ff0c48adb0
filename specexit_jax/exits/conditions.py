"""The conditions that a policy was calibrated under (`made_for` of policy.json), and how a run differs from them."""

from __future__ import annotations

import dataclasses
from typing import Any

from specexit_jax.exits.boundaries import KINDS
from specexit_jax.storage.identity import same


@dataclasses.dataclass(frozen=True)
class SamplingConditions:
    """`decoding.sampling.Sampling` without its rule: both rules give tokens of the same distribution."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float = 1.0  # also for files that do not have it


@dataclasses.dataclass(frozen=True)
class ThinkingMarks:
    """opens: the text that opens the thinking in a chat prompt; null: no text does. closes: the ids of `</think>`."""

    opens: str | None
    closes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Conditions:
    """The conditions of a calibration. A certificate holds for runs under equal conditions.

    target, draft: digests of the weights (`models.checkpoints.content`); exporting a draft in another format keeps its digest.
    boundary_kinds, smoothing, budget: of the policy itself, because a run or an edit of the file can change them.
    max_new_tokens: of a request, thinking and answer together.
    """

    target: str
    draft: str
    sampling: SamplingConditions
    boundary_kinds: tuple[str, ...]
    smoothing: str
    budget: int | None
    max_new_tokens: int
    thinking: ThinkingMarks


def parse_conditions(content: Any) -> Conditions | None:
    """From JSON; None for null, in files of older versions. Raises ValueError with a clause about the first invalid value."""
    if content is None:
        return None
    fields = _fields(content, Conditions, "made_for")
    sampled = fields["sampling"]
    sampled = {"repetition_penalty": 1.0} | sampled if isinstance(sampled, dict) else sampled
    sampling = SamplingConditions(**_fields(sampled, SamplingConditions, "made_for.sampling"))
    thinking = _fields(fields["thinking"], ThinkingMarks, "made_for.thinking")
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
    thought = ThinkingMarks(thinking["opens"], tuple(closes))
    return Conditions(**fields | {"sampling": sampling, "thinking": thought, "boundary_kinds": tuple(kinds)})


def differences(made: Conditions, now: Conditions) -> list[str]:
    """The conditions of a run (`now`) that differ, a phrase each. Drafts are not compared, because another one is refused."""
    found = [] if same(now.target, made.target) else ["another target"]
    greedy = made.sampling.temperature == now.sampling.temperature == 0  # filters do not change greedy tokens
    names = ("repetition_penalty",) if greedy else (field.name for field in dataclasses.fields(SamplingConditions))
    for name in names:
        found += _change(name, getattr(made.sampling, name), getattr(now.sampling, name))
    for name in ("boundary_kinds", "smoothing", "budget", "max_new_tokens"):
        found += _change(name, getattr(made, name), getattr(now, name))
    found += _change("thinking opened by", made.thinking.opens, now.thinking.opens)
    return found + _change("thinking closed by ids", made.thinking.closes, now.thinking.closes)


def _change(name: str, before: Any, after: Any) -> list[str]:
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
