"""Five splits by seed without a shared question.

The hash of a question's text decides its split, so no two splits share a question, however many problems are drawn. The
seed only decides which of the split's questions come, and in which order.
"""

import dataclasses
import zlib
from collections.abc import Iterator

from specexit_jax.data.world.tasks import TASKS, entries

# split → (seed, share of the hash range in percent)
SPLITS = {"target": (1, 60), "draft": (2, 12), "development": (3, 4), "calibration": (4, 12), "test": (5, 12)}


@dataclasses.dataclass(frozen=True)
class Problem:
    """One question; `id` is unique, `entry` holds question and answer (of the world also reasoning-gym's metadata),
    `checker` judges answers (data/checkers.py)."""

    id: str
    task: str
    split: str
    entry: dict
    checker: str = "world"

    @property
    def question(self) -> str:
        """The question as a user would type it."""
        return self.entry["question"].strip()

    @property
    def answer(self) -> str:
        """The reference answer."""
        return self.entry["answer"]


def split_of(question: str) -> str:
    """The only split that a question may appear in."""
    bucket, low = zlib.crc32(question.encode()) % 100, 0
    for split, (_, share) in SPLITS.items():
        low += share
        if bucket < low:
            return split
    raise AssertionError("the shares of the splits do not add up to 100")


def problems(task: str, split: str) -> Iterator[Problem]:
    """The problems of one task and split, each question once; raises ValueError for an unknown task or split."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose among {', '.join(SPLITS)}")
    seen: set[int] = set()
    misses = 0
    for entry in entries(task, SPLITS[split][0]):
        question = entry["question"].strip()
        key = hash(question)
        if key in seen or split_of(question) != split:
            misses += 1
            if misses > 50_000:
                return  # the split has no further question
            continue
        seen.add(key)
        misses = 0
        yield Problem(f"{task}/{split}/{len(seen) - 1}", task, split, entry)


def sample(split: str, per_task: int, tasks: tuple[str, ...] = TASKS) -> list[Problem]:
    """The first `per_task` problems of every task; raises ValueError where a split has fewer."""
    chosen = []
    for task in tasks:
        stream = problems(task, split)
        found = [problem for problem, _ in zip(stream, range(per_task), strict=False)]
        if len(found) < per_task:
            raise ValueError(f"{task}/{split} holds {len(found)} problems, {per_task} were asked for")
        chosen += found
    return chosen
