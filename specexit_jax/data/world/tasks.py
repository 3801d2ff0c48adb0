"""The tasks of the reasoning world: name → family, reasoning-gym data set, checker."""

import functools
import random
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from specexit_jax.data.world.families import chain, divisor, kin, legs, syllogism, words
from specexit_jax.data.world.families.scratch import CannotWork

FAMILIES: dict[str, ModuleType] = {
    "chain_sum": chain,
    "gsm_symbolic": words,
    "leg_counting": legs,
    "gcd": divisor,
    "family_relationships": kin,
    "syllogism": syllogism,
}
TASKS = tuple(FAMILIES)
_CHUNK = 4096  # problems generated from one seed of a data set before the next seed is taken


def require_task(task: str) -> None:
    """Raise ValueError unless `task` is one of ours."""
    if task not in FAMILIES:
        raise ValueError(f"unknown task {task!r}: choose among {', '.join(TASKS)}")


def _data_set(task: str, seed: int) -> Any:
    import reasoning_gym  # seconds long, with all its data sets: only where problems are made

    family = FAMILIES[task]
    data_set = reasoning_gym.create_dataset(task, seed=seed, size=_CHUNK, **getattr(family, "CONFIG", {}))
    if task == "gsm_symbolic":
        # the data set draws its templates at random; this world draws among those it can write out
        data_set.task_indices = random.Random(seed).choices(family.TEMPLATES, k=_CHUNK)
    return data_set


def entries(task: str, seed: int) -> Iterator[dict]:
    """An endless stream of entries {question, answer, metadata} whose solution this world can write out."""
    require_task(task)
    for chunk in range(10**6):
        # reasoning-gym seeds problem i with seed + i: chunks of one stream must lie further apart than their size
        data_set = _data_set(task, (seed * 1000 + chunk) * _CHUNK)
        for i in range(_CHUNK):
            entry = data_set[i]
            try:
                FAMILIES[task].parse(entry)
            except CannotWork:
                continue
            yield entry


@functools.cache
def _checker(task: str) -> Any:
    return _data_set(task, 0)


def check(task: str, answer: str | None, reference: str) -> bool:
    """Does reasoning-gym's own checker accept `answer` where `reference` is the right one?"""
    require_task(task)
    if answer is None:
        return False
    return bool(_checker(task).score_answer(answer, {"answer": reference}) >= 1.0)


def final_answer(text: str) -> str | None:
    """The answer in a completion: what follows `</think>`, None where thinking never closed or nothing follows."""
    _, closed, answer = text.rpartition("</think>")
    return answer.replace("<|end|>", "").strip() or None if closed else None
