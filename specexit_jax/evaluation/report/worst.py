"""The worst exits of a method, with their text."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from specexit_jax.evaluation.records import Record, one_per_problem
from specexit_jax.evaluation.report.tables import MISSING, markdown_table, number
from specexit_jax.exits.signals import PAPER, SIGNALS, agreement_column
from specexit_jax.storage.rows import brief_rows, by_id, whole_rows

ORDER = (
    "Exits that turned a right answer wrong come first, the most confident of them before the others; then the other "
    "exits, from the one that saved the smallest share of the tokens on."
)
_ENDING = 900  # characters of the thinking that are shown
_OUR_RULES = ("specexit", "probe")
_BOUNDS = ("oracle", "ceiling")


@dataclasses.dataclass(frozen=True)
class WorstExit:
    """One exit. thinking: what was thought before it, to the last token; tokens, full_tokens: generated with it and
    without; signals: as the policy saw them there, in the order of `names`, None where they are not at hand."""

    method: str
    id: str
    problem: str
    reference: str
    thinking: str
    answer: str | None
    correct: bool
    full_answer: str | None
    full_correct: bool
    tokens: int
    full_tokens: int
    signals: tuple[float, ...] | None
    names: tuple[str, ...] = PAPER

    @property
    def verdict(self) -> str:
        return f"{_word(self.full_correct)} → {_word(self.correct)}"


def reported_method(records: Sequence[Record]) -> str | None:
    """Whose exits are shown: those of our rule, else of the first method that exits at all; None where none does."""
    exiting = {record.method for record in records if record.exited} - set(_BOUNDS)
    return next((name for name in (*_OUR_RULES, *sorted(exiting)) if name in exiting), None)


def worst_exits(
    records: Sequence[Record],
    traces: Sequence[dict],
    tokenizer: Any,
    signals: Mapping[str, Mapping[int, np.ndarray]] | None = None,
    count: int = 10,
    names: tuple[str, ...] = PAPER,
) -> list[WorstExit]:
    """The first `count` in ORDER. traces: of full thinking; signals: id -> rows [S] of `names` by token, as compared."""
    method, there, full = reported_method(records), by_id(brief_rows(traces)), by_id(whole_rows(traces))
    own = one_per_problem(record for record in records if record.method == method)
    exits = [r for r in own if r.exited and r.id in there and there[r.id]["seed"] == r.seed]

    def seen(record: Record) -> tuple[float, ...] | None:
        rows = (signals or {}).get(record.id)
        return None if rows is None else tuple(float(value) for value in rows[record.exit_index - 1])

    def rank(record: Record) -> tuple:
        trace = there[record.id]
        harmed = trace["correct"] and not record.correct
        values = seen(record)
        confidence = values[agreement_column(names)] if values else 0.0
        return not harmed, -confidence if harmed else 1 - record.tokens / len(trace["ids"]), record.id

    worst = sorted(exits, key=rank)[:count]
    return [_described(record, full[record.id], tokenizer, seen(record), names) for record in worst]


def _described(record: Record, trace: dict, tokenizer: Any, signals, names) -> WorstExit:
    return WorstExit(
        method=record.method,
        id=record.id,
        problem=trace["prompt"],
        reference=trace["reference"],
        thinking=_text(tokenizer, trace["ids"][: record.exit_index]),
        answer=record.answer,
        correct=record.correct,
        full_answer=trace["answer"],
        full_correct=trace["correct"],
        tokens=record.tokens,
        full_tokens=len(trace["ids"]),
        signals=signals,
        names=names,
    )


def worst_markdown(exits: Sequence[WorstExit]) -> str:
    """Every exit with a line of numbers; text of models and data sets is in fenced blocks."""
    parts = [ORDER]
    for place, one in enumerate(exits, start=1):
        seen = one.signals or (None,) * len(one.names)
        values = [_value(name, value) for name, value in zip(one.names, seen, strict=True)]
        row = [*values, number(one.tokens, 0), number(one.full_tokens, 0)]
        header = [*one.names, "tokens", "of full thinking"]
        parts += [f"### {place}. {one.verdict}", fenced(one.id), markdown_table(header, [row]), fenced(_story(one))]
    return "\n\n".join(parts)


def _value(name: str, value: float | None) -> str:
    if value is None:
        return MISSING
    scale = SIGNALS[name].scale
    return number(value, 1) if scale.unit else scale.text(value)


def fenced(text: str) -> str:
    """Any text as a Markdown block that shows it and does nothing else: the fence is longer than any inside it."""
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "\ufffd", text.replace("\r\n", "\n"))
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _story(one: WorstExit) -> str:
    ending = one.thinking if len(one.thinking) <= _ENDING else "… " + one.thinking[-_ENDING:]
    answers = [
        f"answer forced here:   {_one_line(one.answer)}   ({_word(one.correct)})",
        f"full thinking's:      {_one_line(one.full_answer)}   ({_word(one.full_correct)})",
        f"reference:            {_one_line(one.reference)}",
    ]
    return "\n".join(["PROBLEM", one.problem.strip(), "", "THINKING UP TO THE EXIT", ending.strip(), "", *answers])


def _one_line(answer: str | None) -> str:
    return "none" if answer is None else " ".join(str(answer).split())


def _word(right: bool) -> str:
    return "right" if right else "wrong"


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    """Without a tokenizer, the ids themselves."""
    return " ".join(map(str, ids)) if tokenizer is None else tokenizer.decode(list(ids))
