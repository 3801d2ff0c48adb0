"""Sources of problems: the reasoning world, or a table of questions and answers on the hub or on disk.

A table has one or more splits of its own; the pipeline needs draft, development, calibration and test. A split of the
table that feeds several of these is divided by the hash of the question. So no question is in two of them, however many
are drawn and in any order. Questions that differ in white space only are the same question.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from specexit_jax.data.cells import one_space, shortened
from specexit_jax.data.checkers import require_checker
from specexit_jax.data.files import format_of, local, stream
from specexit_jax.data.options import ANSWERS
from specexit_jax.data.questions import Columns
from specexit_jax.data.shares import DEFAULT, FED, parts_of, shares_of, split_by, written
from specexit_jax.data.splits import Problem, sample
from specexit_jax.data.world.tasks import TASKS
from specexit_jax.monitoring.progress import tell


@dataclasses.dataclass(frozen=True)
class World:
    """The reasoning world; `count` problems are of each task."""

    tasks: tuple[str, ...] = TASKS

    @property
    def label(self) -> str:
        """The name that rollouts record. It leaves out the tasks asked for: a trace does not depend on them."""
        return "world"

    def problems(self, split: str, count: int) -> list[Problem]:
        return sample(split, count, self.tasks)


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of a data set: a name on the hub (with its `config`), or a file of one of `files.FORMATS`.

    folder: a local copy of what is called `name`, or a folder of such (`files.local`); file: what files there are called,
    if not as `task`.
    split: the data set's split that feeds the whole pipeline ("train"), or one for each that is needed:
    "draft=train,development=train,calibration=test,test=test". shares: of those that share one of its splits
    ("draft=12,development=4,calibration=12,test=12", the default). question, answer: columns; of code, the prompt to complete
    and the tests, with `entry_point`, the column of the function's name. choices: the column of the options in one of the
    forms of `options.read_options`, or several, one an option; answer_as: what the answer says of them, one of
    `options.ANSWERS`, where it could be read in two ways. wrong: columns of wrong options, which are mixed with the answer
    by the hash of the question. Options are put under the question, lettered. instruction: put under every question.
    answer_after: what the reference follows in its column ("####" in GSM8K). task: what tables call it.
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
    answer_as: str = ""
    shares: str = ""

    def __post_init__(self):
        require_checker(self.checker)
        if self.checker == "world":
            raise ValueError(
                "The checker 'world' knows the reasoning world's tasks alone: choose math, choice, text or code."
            )
        if self.checker == "code" and not self.entry_point:
            raise ValueError("The checker 'code' calls a function: name the column of its name in source.entry_point.")
        if self.answer_as and not self.choices:
            raise ValueError("source.answer_as is for options: name their column in source.choices.")
        if self.answer_as not in ("", *ANSWERS):
            raise ValueError(
                f"source.answer_as is {self.answer_as!r}: choose {', '.join(ANSWERS[:-1])} or {ANSWERS[-1]}."
            )
        unknown = [name for name in self.feeds if name not in FED]
        if unknown:
            raise ValueError(f"The source feeds no split {unknown[0]!r}: choose among {', '.join(FED)}.")
        shares_of(self.shares, self.feeds)

    @property
    def label(self) -> str:
        """The name that rollouts record: everything that a problem depends on, without the folder of a file."""
        parts = dataclasses.asdict(self) | {"name": Path(self.name).name if format_of(self.name) else self.name}
        shares = shares_of(self.shares, self.feeds)
        parts |= {"folder": "", "file": "", "shares": "" if shares == DEFAULT else written(shares)}
        return ", ".join(f"{key}={value}" for key, value in parts.items() if value)

    @property
    def feeds(self) -> dict[str, str]:
        """The data set's split that feeds each split of the pipeline."""
        if "=" not in self.split:
            return dict.fromkeys(FED, self.split)
        return parts_of("source.split", self.split, "draft=train")

    def problems(self, split: str, count: int) -> list[Problem]:
        """The first `count` problems of a split of the pipeline, or all where it has fewer; read no further than needed.

        Of rows with the same question the first is kept; those with another answer are reported on standard error.
        Raises ValueError or OSError with one sentence for a missing data set, split, column or row.
        """
        feeds = self.feeds
        if split not in feeds:
            raise ValueError(f"The source names no split for {split!r}: add {split}=NAME to {self.split!r}.")
        taken = {key for other in self._before(split) for key in map(_key, self._questions(other))}
        belongs, found, own, twice = self._division(split), [], {}, []
        for number, row in enumerate(self._rows(feeds[split]), start=1):
            if len(found) == count:
                break
            question = self._columns.text(row, self.question, number)
            if _key(question) in taken or not belongs(question):
                continue
            asked, reference = self._columns.asked(row, number)
            first, answer = own.setdefault(_key(asked), (number, reference))
            if first == number:
                found.append(self._problem(split, asked, reference))
            elif one_space(answer) != one_space(reference):
                twice.append((number, reference, first, answer, question))
        if not found:
            raise ValueError(
                f"{self.name} holds no problem for the split {split!r}: name a larger one in source.split."
            )
        if twice:
            self._tell_of(twice)
        return found

    def _division(self, split: str) -> Callable[[str], bool]:
        """Whether a question of the data set's split behind `split` belongs to it."""
        beside = [name for name in self.feeds if self.feeds[name] == self.feeds[split]]
        if beside == [split]:
            return lambda question: True
        shares = shares_of(self.shares, self.feeds)
        if split not in shares:
            raise ValueError(f"source.shares gives {split!r} nothing: add {split}=N to {self.shares!r}.")
        return lambda question: split_by(self.hashed(question), shares, beside) == split

    def hashed(self, question: str) -> str:
        """The text of a question that is hashed to choose its split."""
        return one_space(question)

    def _tell_of(self, twice: list[tuple[int, str, int, str, str]]) -> None:
        number, reference, first, answer, question = twice[0]
        tell(
            f"{self.name}: {len(twice)} rows ask what an earlier one asks and answer otherwise (row {number} has "
            f"{shortened(reference)}, row {first} {shortened(answer)}: {shortened(question)}): the first answer is kept."
        )

    def _before(self, split: str) -> list[str]:
        """The data set's splits before this one, whose questions are excluded from it."""
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
        number = -1
        for number, row in enumerate(stream(name, config, split)):
            absent = [column for column in self._columns.named if column not in row]
            if absent and not number:
                raise ValueError(f"{name} has no column {absent[0]!r}: it has {', '.join(row)}.")
            yield row
        if number < 0:
            raise ValueError(f"{name} holds no row.")

    def _problem(self, split: str, asked: str, reference: str) -> Problem:
        entry = {"question": f"{asked}\n\n{self.instruction}".strip(), "answer": reference}
        name = hashlib.sha256(asked.encode()).hexdigest()[:12]
        return Problem(f"{self._task}/{split}/{name}", self._task, split, entry, self.checker)


def _key(question: str) -> bytes:
    """Questions of the same key are the same question: white space does not count."""
    return hashlib.sha256(one_space(question).encode()).digest()[:12]
