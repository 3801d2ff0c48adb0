"""A row of a table as a question: what the model is asked, and the reference that its answer is judged by."""

import dataclasses
import hashlib
import random
import string
from typing import Any

from specexit_jax.data.programs import CodeTests


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which of a row's columns mean what; see `sources.Table`. name: the table's, for messages."""

    name: str
    question: str
    answer: str
    checker: str
    choices: str = ""
    wrong: str = ""
    entry_point: str = ""
    answer_after: str = ""

    @property
    def named(self) -> list[str]:
        """All columns that a row must have."""
        one_by_one = (self.question, self.answer, self.choices, self.entry_point)
        return [name for name in (*one_by_one, *_names(self.wrong)) if name]

    def text(self, row: dict[str, Any], column: str, number: int) -> str:
        """A cell that must hold something; raises ValueError, naming the row (counted from 1)."""
        text = "" if row.get(column) is None else str(row[column]).strip()
        if not text:
            raise ValueError(f"{self.name}: row {number} has nothing in column {column!r}; mend or remove it.")
        return text

    def asked(self, row: dict[str, Any], number: int) -> tuple[str, str]:
        """(what is asked without the instruction, reference). Options are lettered from A, whatever they are called.

        The reference is the answer; of a choice its letter and words (`B. blue`); of code the tests (`programs.CodeTests`).
        """
        question, answer = (self.text(row, column, number) for column in (self.question, self.answer))
        if self.checker == "code":
            # a body that is indented follows the prompt: its own margins are kept
            tests = CodeTests(str(row[self.question]), str(row[self.answer]), self.text(row, self.entry_point, number))
            return f"```python\n{question}\n```", tests.reference()
        if self.answer_after:
            answer = answer.rpartition(self.answer_after)[2].strip()
        if self.wrong:
            texts = [answer, *(self.text(row, column, number) for column in _names(self.wrong))]
            order = random.Random(hashlib.sha256(question.encode()).digest()).sample(range(len(texts)), len(texts))
            return _lettered(question, [texts[i] for i in order], order.index(0))
        if self.choices:
            options = row[self.choices]
            texts = options["text"] if isinstance(options, dict) else options
            labels = list(options["label"] if isinstance(options, dict) else string.ascii_uppercase[: len(texts)])
            return _lettered(question, texts, self._place(labels, answer, number))
        return question, answer

    def _place(self, labels: list[str], answer: str, number: int) -> int:
        """Which option is right: by its label, or, as some sets have it, by its place counted from 0."""
        if answer in labels:
            return labels.index(answer)
        if not answer.isdecimal() or int(answer) >= len(labels):
            raise ValueError(f"{self.name}: row {number} names option {answer} of {len(labels)}; mend it.")
        return int(answer)


def _names(columns: str) -> list[str]:
    return [name.strip() for name in columns.split(",") if name.strip()]


def _lettered(question: str, texts: list[str], right: int) -> tuple[str, str]:
    options = [f"{letter}. {text}" for letter, text in zip(string.ascii_uppercase, texts, strict=False)]
    return "\n\n".join([question, "\n".join(options)]), options[right]
