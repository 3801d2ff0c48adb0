"""Where problems come from: the reasoning world, or a table of questions and answers on the hub or on disk.

A table has its own splits, or one; the pipeline needs draft, development, calibration and test. What feeds several of
them is divided by the hash of the question, so that none is shared, whatever is drawn and in whatever order.
"""

import dataclasses
import hashlib
import string
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from specexit_jax.data.checkers import require_checker
from specexit_jax.data.splits import SPLITS, Problem, sample
from specexit_jax.data.tasks import TASKS

FILES = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
FED = (
    "test",
    "calibration",
    "development",
    "draft",
)  # a question in two of a table's splits goes to the first of these


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

    split: the data set's split that feeds the whole pipeline ("train"), or one for each that is needed:
    "draft=train,development=train,calibration=test,test=test". question, answer: columns. choices: column of a list of
    options, or of {text, label}; they are put under the question, lettered. instruction: put under every question.
    answer_after: what the reference follows in its column ("####" in GSM8K). task: what tables call it.
    """

    name: str
    config: str = ""
    split: str = "train"
    question: str = "question"
    answer: str = "answer"
    checker: str = "math"
    task: str = ""
    choices: str = ""
    instruction: str = ""
    answer_after: str = ""

    def __post_init__(self):
        require_checker(self.checker)
        if self.checker == "world":
            raise ValueError(
                "The checker 'world' knows the reasoning world's tasks alone: choose math, choice or text."
            )
        unknown = [name for name in self.feeds if name not in FED]
        if unknown:
            raise ValueError(f"The source feeds no split {unknown[0]!r}: choose among {', '.join(FED)}.")

    @property
    def label(self) -> str:
        """What rollouts remember it by: all that decides about a problem, without the folder that a file lies in."""
        parts = dataclasses.asdict(self) | {
            "name": Path(self.name).name if Path(self.name).suffix in FILES else self.name
        }
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
        shared, found = [name for name in SPLITS if feeds.get(name) == feeds[split]], []
        for number, row in enumerate(self._rows(feeds[split]), start=1):
            question = self._text(row, self.question, number)
            if len(found) == count:
                break
            if _key(question) in taken or _share(question, shared) != split:
                continue
            taken.add(_key(question))
            found.append(self._problem(split, question, row, number))
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
        return (self._text(row, self.question, number) for number, row in enumerate(self._rows(split), start=1))

    def _rows(self, split: str) -> Iterator[dict[str, Any]]:
        wanted = [name for name in (self.question, self.answer, self.choices) if name]
        for number, row in enumerate(_stream(self.name, self.config, split)):
            absent = [name for name in wanted if name not in row]
            if absent and not number:
                raise ValueError(f"{self.name} has no column {absent[0]!r}: it has {', '.join(row)}.")
            yield row

    def _text(self, row: dict, column: str, number: int) -> str:
        text = "" if row.get(column) is None else str(row[column]).strip()
        if not text:
            raise ValueError(f"{self.name}: row {number} has nothing in column {column!r}; mend or remove it.")
        return text

    def _problem(self, split: str, question: str, row: dict, number: int) -> Problem:
        reference = self._text(row, self.answer, number)
        if self.answer_after:
            reference = reference.rpartition(self.answer_after)[2].strip()
        parts = [question]
        if self.choices:
            options = row[self.choices]
            texts = options["text"] if isinstance(options, dict) else options
            letters = options["label"] if isinstance(options, dict) else string.ascii_uppercase[: len(texts)]
            parts.append("\n".join(f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True)))
            if reference.isdecimal() and reference not in letters:  # some sets give the place, counted from 0
                if int(reference) >= len(letters):
                    raise ValueError(f"{self.name}: row {number} names option {reference} of {len(letters)}; mend it.")
                reference = letters[int(reference)]
        task = self.task or Path(self.name).stem
        entry = {"question": "\n\n".join([*parts, self.instruction]).strip(), "answer": reference}
        name = hashlib.sha256(question.encode()).hexdigest()[:12]
        return Problem(f"{task}/{split}/{name}", task, split, entry, self.checker)


Source = World | Table


def _stream(name: str, config: str, split: str) -> Iterator[dict[str, Any]]:
    """A data set's rows, read as they are asked for."""
    suffix = Path(name).suffix
    if suffix in FILES and not Path(name).is_file():
        raise FileNotFoundError(f"{name} is not a file: give source.name a data set's name on the hub, or a file.")
    import datasets  # seconds of imports, which the world does not need

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what is wrong is said once, below
    try:
        if suffix in FILES:
            yield from datasets.load_dataset(FILES[suffix], data_files={split: name}, split=split, streaming=True)
        else:
            yield from datasets.load_dataset(name, config or None, split=split, streaming=True)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"The data set {name!r}, split {split!r}, cannot be read: {why}") from error


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
