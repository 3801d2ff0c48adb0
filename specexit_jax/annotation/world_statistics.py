"""Statistics of a model's traces on the reasoning world: how often it is right, overthinks, flips and never stops."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from specexit_jax.annotation.joined import join_labels
from specexit_jax.annotation.kinds import annotate_settings, annotated_split, missing_kinds
from specexit_jax.annotation.schedule import ALL
from specexit_jax.data.checkers import agrees
from specexit_jax.engine.session import Session
from specexit_jax.storage.rows import whole_rows

PARAGRAPHS = ("paragraph",)


def split_statistics(session: Session, folder: Path) -> dict[str, float] | None:
    """`world_statistics` of an annotated split; None where it was not annotated at the ends of all paragraphs."""
    if missing_kinds(folder, PARAGRAPHS) or annotate_settings(folder).get("schedule", ALL.text()) != ALL.text():
        return None
    return world_statistics(*annotated_split(session, folder, PARAGRAPHS))


def world_statistics(traces: Sequence[dict], labels: Sequence[dict]) -> dict[str, float]:
    """Fractions over traces; accuracies are means over tasks. labels: at the ends of paragraphs.

    think: accuracy of full thinking; first_answer: of stopping at the first boundary after an answer is stated;
    beyond_oracle: thinking tokens after the oracle's exit, of all; causeless_flips: pairs of neighbouring boundaries
    after the first statement whose forced answers differ although neither paragraph states a new answer, of all such
    pairs; unclosed: traces that never close their thinking.
    """
    chosen = join_labels(traces, labels)
    tasks: dict[str, list[tuple[bool, bool]]] = {}
    beyond = thinking = flips = pairs = 0
    for trace, label in zip(whole_rows(traces), chosen, strict=True):
        length = len(trace["ids"]) if trace["think_end"] is None else trace["think_end"]
        stated = first_statement(trace, label)
        first = trace["correct"] if stated is None else label["correct"][stated]
        tasks.setdefault(trace["task"], []).append((trace["correct"], first))
        thinking += length
        beyond += 0 if label["first"] is None else length - label["boundaries"][label["first"]] - 1
        if stated is not None:
            more, all_pairs = _flips(trace, label, stated)
            flips, pairs = flips + more, pairs + all_pairs
    means = np.mean([np.mean(values, axis=0) for values in tasks.values()], axis=0)
    return {
        "think": float(means[0]),
        "first_answer": float(means[1]),
        "beyond_oracle": beyond / max(thinking, 1),
        "causeless_flips": flips / max(pairs, 1),
        "unclosed": float(np.mean([trace["think_end"] is None for trace in traces])),
        "thinking_tokens": thinking / max(len(traces), 1),
    }


def paragraphs(trace: dict) -> list[str]:
    """The thinking's paragraphs, one per boundary of the kind `paragraph`."""
    return trace["text"].partition("</think>")[0].split("\n\n")


def first_statement(trace: dict, label: dict) -> int | None:
    """Index of the first boundary whose paragraph states an answer, or None."""
    texts = paragraphs(trace)[: len(label["boundaries"])]
    return next((i for i, text in enumerate(texts) if "answer" in text), None)


def _flips(trace: dict, label: dict, stated: int) -> tuple[int, int]:
    """(flips without a cause, pairs of boundaries) after the first statement.

    A statement is a cause, and so is a check that finds another result: from there to the next statement the model has
    not settled on an answer.
    """
    texts, open_question, flips, pairs = paragraphs(trace), False, 0, 0
    for before, after in pairwise(range(stated, len(label["boundaries"]))):
        text = texts[after]
        doubts = any(sign in text for sign in (" not ", "but I had", "is wrong", "cannot be right"))
        states = "answer" in text
        if not (open_question or doubts or states):
            pairs += 1
            a, b = label["forced"][before], label["forced"][after]
            flips += not (a == b or agrees(trace.get("checker", "world"), trace["task"], b, a, trace["reference"]))
        open_question = (open_question or doubts) and not states
    return flips, pairs
