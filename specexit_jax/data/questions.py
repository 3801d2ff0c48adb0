"""A row of a table as a problem: the question for the model, and the reference for grading."""

import dataclasses
import hashlib
import random
import string
from collections.abc import Sequence
from typing import Any

from specexit_jax.data.cells import text_of
from specexit_jax.data.options import Options, options_in, place_of, read_options
from specexit_jax.data.programs import CodeTests


@dataclasses.dataclass(frozen=True)
class Columns:
    """The meaning of a row's columns; see `sources.Table`. name: the table's, for messages."""

    name: str
    question: str
    answer: str
    checker: str
    choices: str = ""
    wrong: str = ""
    entry_point: str = ""
    answer_after: str = ""
    answer_as: str = ""

    @property
    def named(self) -> list[str]:
        """All columns that a row must have."""
        one_by_one = (self.question, self.answer, self.entry_point)
        return [name for name in (*one_by_one, *_names(self.choices), *_names(self.wrong)) if name]

    def text(self, row: dict[str, Any], column: str, number: int) -> str:
        """A cell that must hold something; raises ValueError, naming the row (counted from 1)."""
        text = self._written(row, column, number).strip()
        if not text:
            raise ValueError(f"{self.name}: row {number} has nothing in column {column!r}; mend or remove it.")
        return text

    def _written(self, row: dict[str, Any], column: str, number: int) -> str:
        try:
            return text_of(row.get(column))
        except ValueError as error:
            raise ValueError(f"{self.name}: row {number}, column {column!r}, {error}; mend or remove it.") from None

    def asked(self, row: dict[str, Any], number: int) -> tuple[str, str]:
        """(what is asked without the instruction, reference). Options are lettered from A, whatever they are called.

        The reference is the answer; of a choice its letter and words (`B. blue`); of code the tests (`programs.CodeTests`).
        """
        question, answer = (self.text(row, column, number) for column in (self.question, self.answer))
        if self.checker == "code":
            written = (self._written(row, column, number) for column in (self.question, self.answer))
            # keeps leading white space: the model completes the prompt with an indented body
            tests = CodeTests(*written, self.text(row, self.entry_point, number))
            return f"```python\n{question}\n```", tests.reference()
        if self.answer_after:
            answer = answer.rpartition(self.answer_after)[2].strip()
        if self.wrong:
            texts = [answer, *(self.text(row, column, number) for column in _names(self.wrong))]
            order = random.Random(hashlib.sha256(question.encode()).digest()).sample(range(len(texts)), len(texts))
            return _lettered(question, [texts[i] for i in order], order.index(0))
        if self.choices:
            options = self._options(row, number)
            right = row[self.answer] if isinstance(row[self.answer], int) and not self.answer_after else answer
            try:
                return _lettered(question, options.texts, place_of(options, right, self.answer_as))
            except ValueError as error:
                raise ValueError(f"{self.name}: row {number}, column {self.answer!r}: {error}.") from None
        return question, answer

    def _options(self, row: dict[str, Any], number: int) -> Options:
        columns = _names(self.choices)
        if len(columns) == 1 and row.get(columns[0]) in (None, "", [], {}):
            raise ValueError(f"{self.name}: row {number} has nothing in column {columns[0]!r}; mend or remove it.")
        try:
            if len(columns) > 1:
                return options_in({name: row.get(name) for name in columns})
            return read_options(row[columns[0]])
        except ValueError as error:
            raise ValueError(f"{self.name}: row {number}, column {self.choices!r}: {error}.") from None


def _names(columns: str) -> list[str]:
    return [name.strip() for name in columns.split(",") if name.strip()]


def _lettered(question: str, texts: Sequence[str], right: int) -> tuple[str, str]:
    options = [f"{letter}. {text}" for letter, text in zip(string.ascii_uppercase, texts, strict=False)]
    return "\n\n".join([question, "\n".join(options)]), options[right]
