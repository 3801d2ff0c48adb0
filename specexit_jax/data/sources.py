"""Where problems come from: the reasoning world, or a table of questions and answers on the hub or on disk.

A table has its own splits, or one; the pipeline needs draft, development, calibration and test. What feeds several of
them is divided by the hash of the question, so that none is shared, whatever is drawn and in whatever order.
"""

import dataclasses
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from specexit_jax.data.checkers import require_checker
from specexit_jax.data.files import format_of, local, stream
from specexit_jax.data.questions import Columns
from specexit_jax.data.splits import SPLITS, Problem, sample
from specexit_jax.data.tasks import TASKS

# a question in two of a table's splits goes to the first of these
FED = ("test", "calibration", "development", "draft")


@dataclasses.dataclass(frozen=True)
class World:
    """The reasoning world; `count` problems are of each task."""

    tasks: tuple[str, ...] = TASKS

    @property
    def label(self) -> str:
        """What rollouts remember it by; which tasks it was asked for does not matter to a trace."""
        return "world"

    def problems(self, split: str, count: int) -> list[Problem]:
        return sample(split, count, self.tasks)


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of a data set: a name on the hub (with its `config`), or a .jsonl, .json, .parquet or .csv file.

    folder: a local copy of what is called `name`, or a folder of such (`files.local`); file: what files there are called,
    if not as `task`.
    split: the data set's split that feeds the whole pipeline ("train"), or one for each that is needed:
    "draft=train,development=train,calibration=test,test=test". question, answer: columns; of code, the prompt to complete
    and the tests, with `entry_point`, the column of the function's name. choices: column of a list of options, or of
    {text, label}; wrong: columns of wrong options, which are mixed with the answer by the hash of the question; either is
    put under the question, lettered. instruction: put under every question. answer_after: what the reference follows in
    its column ("####" in GSM8K). task: what tables call it.
    """

    name: str
    config: str = ""
    folder: str = ""
    file: str = ""
    split: str = "train"
    question: str = "question"
    answer: str = "answer"
    checker: str = "math"
    task: str = ""
    choices: str = ""
    wrong: str = ""
    entry_point: str = ""
    instruction: str = ""
    answer_after: str = ""

    def __post_init__(self):
        require_checker(self.checker)
        if self.checker == "world":
            raise ValueError(
                "The checker 'world' knows the reasoning world's tasks alone: choose math, choice, text or code."
            )
        if self.checker == "code" and not self.entry_point:
            raise ValueError("The checker 'code' calls a function: name the column of its name in source.entry_point.")
        unknown = [name for name in self.feeds if name not in FED]
        if unknown:
            raise ValueError(f"The source feeds no split {unknown[0]!r}: choose among {', '.join(FED)}.")

    @property
    def label(self) -> str:
        """What rollouts remember it by: all that decides about a problem, without the folder that a file lies in."""
        parts = dataclasses.asdict(self) | {"name": Path(self.name).name if format_of(self.name) else self.name}
        parts |= {"folder": "", "file": ""}
        return ", ".join(f"{key}={value}" for key, value in parts.items() if value)

    @property
    def feeds(self) -> dict[str, str]:
        """The data set's split behind each of the pipeline's."""
        if "=" not in self.split:
            return dict.fromkeys(FED, self.split)
        parts = [part.strip().partition("=") for part in self.split.split(",")]
        odd = [name for name, sign, _ in parts if not sign]
        if odd:
            raise ValueError(f"source.split is {self.split!r}: {odd[0]!r} is not of the form draft=train.")
        return {name: other for name, _, other in parts}

    def problems(self, split: str, count: int) -> list[Problem]:
        """The first `count` problems of a split of the pipeline, or all where it has fewer; read no further than needed.

        Raises ValueError or OSError, one sentence, on a data set, split, column or row that is not there.
        """
        feeds = self.feeds
        if split not in feeds:
            raise ValueError(f"The source names no split for {split!r}: add {split}=NAME to {self.split!r}.")
        taken = {key for other in self._before(split) for key in map(_key, self._questions(other))}
        shared, found, own = [name for name in SPLITS if feeds.get(name) == feeds[split]], [], set()
        for number, row in enumerate(self._rows(feeds[split]), start=1):
            if len(found) == count:
                break
            question = self._columns.text(row, self.question, number)
            if _key(question) in taken or _share(question, shared) != split:
                continue
            asked, reference = self._columns.asked(row, number)
            if _key(asked) not in own:
                own.add(_key(asked))
                found.append(self._problem(split, asked, reference))
        if not found:
            raise ValueError(
                f"{self.name} holds no problem for the split {split!r}: name a larger one in source.split."
            )
        return found

    def _before(self, split: str) -> list[str]:
        """The data set's other splits whose questions this one must not have."""
        order = list(dict.fromkeys(self.feeds[name] for name in FED if name in self.feeds))
        return order[: order.index(self.feeds[split])]

    def _questions(self, split: str) -> Iterator[str]:
        rows = enumerate(self._rows(split), start=1)
        return (self._columns.text(row, self.question, number) for number, row in rows)

    @property
    def _columns(self) -> Columns:
        return Columns(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Columns)})

    @property
    def _task(self) -> str:
        return self.task or Path(self.name).stem

    def _rows(self, split: str) -> Iterator[dict[str, Any]]:
        name, config = self.name, self.config
        if self.folder:
            called = dict.fromkeys([self.file or self._task, Path(self.name).name, self.name])
            splits = dict.fromkeys([split, *(ours for ours, other in self.feeds.items() if other == split)])
            name, config = local(self.folder, list(called), config, list(splits))
        for number, row in enumerate(stream(name, config, split)):
            absent = [column for column in self._columns.named if column not in row]
            if absent and not number:
                raise ValueError(f"{name} has no column {absent[0]!r}: it has {', '.join(row)}.")
            yield row

    def _problem(self, split: str, asked: str, reference: str) -> Problem:
        entry = {"question": f"{asked}\n\n{self.instruction}".strip(), "answer": reference}
        name = hashlib.sha256(asked.encode()).hexdigest()[:12]
        return Problem(f"{self._task}/{split}/{name}", self._task, split, entry, self.checker)


def _key(question: str) -> bytes:
    return hashlib.sha256(question.encode()).digest()[:12]


def _share(question: str, splits: list[str]) -> str:
    """Which of the splits that share a data set a question belongs to, by the shares of the world's."""
    shares = {name: share for name, (_, share) in SPLITS.items() if name in splits}
    slot = zlib.crc32(question.encode()) % sum(shares.values())
    for name, share in shares.items():
        slot -= share
        if slot < 0:
            return name
    raise AssertionError("the shares of the splits do not cover the hash's range")
