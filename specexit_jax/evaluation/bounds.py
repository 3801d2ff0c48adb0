"""Bounds on what an exit can save, from annotated traces: the clairvoyant `oracle`, and exits by any causal score.

Nothing is decoded: an exit at a boundary has the tokens and the answer that annotation forced there.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from specexit_jax.annotation.joined import join_labels, leavable_tokens
from specexit_jax.evaluation.boundary_rows import flat, joined, row_of, told_of
from specexit_jax.evaluation.records import Record
from specexit_jax.exits import calibration as rules
from specexit_jax.exits.risk import learn_then_test
from specexit_jax.exits.units import Units
from specexit_jax.storage.rows import brief_rows

NO_EXIT = -1


@dataclasses.dataclass(frozen=True)
class Boundaries:
    """Every boundary of N annotated traces, n in all, concatenated in order.

    row: int32[n], the trace a boundary belongs to (non-decreasing); index: int32[n], its token's index in the ids.
    agree, correct: bool[n], the forced answer agrees with the model's own / is right; both false if it did not end.
    finished: bool[n], it ended; tokens: int32[n], generated tokens if the policy exits there; answers: the n forced
    answers. first: int32[N], place among the n of the earliest agreeing boundary, NO_EXIT where none agrees. full_*:
    the trace without an exit, [N]. closed: bool[N], whether it closed its thinking itself. features: float32[n, A]
    captured features of the boundary token (A may be 0: the oracle needs none). extra: float32[n, E] further causal
    columns whose past tells more, e.g. smoothed signals (E may be 0). statistics: float32[n, F], columns that hold their past
    already (F may be 0).
    """

    ids: tuple[str, ...]
    problems: tuple[str, ...]
    tasks: tuple[str, ...]
    splits: tuple[str, ...]
    seeds: tuple[int, ...]
    row: np.ndarray
    index: np.ndarray
    agree: np.ndarray
    correct: np.ndarray
    finished: np.ndarray
    tokens: np.ndarray
    answers: tuple[str | None, ...]
    first: np.ndarray
    full_tokens: np.ndarray
    full_thinking: np.ndarray
    full_correct: np.ndarray
    full_answers: tuple[str | None, ...]
    full_finish: tuple[str, ...]
    closed: np.ndarray
    features: np.ndarray
    extra: np.ndarray
    statistics: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """int[N + 1]: trace i owns the boundaries starts[i]:starts[i + 1]."""
        return np.searchsorted(self.row, np.arange(len(self.ids) + 1))


def gather_boundaries(
    traces: Sequence[dict],
    labels: Sequence[dict],
    features: Mapping[str, np.ndarray] | None = None,
    extra: Mapping[str, np.ndarray] | None = None,
    end_think_length: int = 1,
    statistics: Mapping[str, np.ndarray] | None = None,
) -> Boundaries:
    """Boundaries of traces.jsonl and labels.jsonl rows, joined by id.

    features, extra, statistics: id -> [boundaries, A], [boundaries, E] and [boundaries, F], rows in the order of the label's
    boundaries.
    end_think_length: ids of `</think>`, which forced_ids do not repeat.
    A boundary that leaves no room for `</think>` is left out, because no exit is possible there. Raises ValueError for
    a trace without labels, or arrays that do not match the boundaries.
    """
    chosen, told, rows = join_labels(traces, labels), [], []
    for trace, label in zip(brief_rows(traces), chosen, strict=True):
        told.append(told_of(trace))
        rows.append(row_of(label, leavable_tokens(trace, label, end_think_length), end_think_length))
    counts = np.asarray([len(row["index"]) for row in rows], np.int32)
    starts = np.concatenate([[0], np.cumsum(counts)])
    finished = flat(rows, "finished", bool)
    everything = Boundaries(
        ids=tuple(trace["id"] for trace in told),
        problems=tuple(trace["problem"] for trace in told),
        tasks=tuple(trace["task"] for trace in told),
        splits=tuple(trace["split"] for trace in told),
        seeds=tuple(trace["seed"] for trace in told),
        row=np.repeat(np.arange(len(told), dtype=np.int32), counts),
        index=flat(rows, "index", np.int32),
        agree=flat(rows, "agree", bool) & finished,
        correct=flat(rows, "correct", bool) & finished,
        finished=finished,
        tokens=flat(rows, "tokens", np.int32),
        answers=tuple(answer for row in rows for answer in row["answers"]),
        first=np.asarray(
            [
                NO_EXIT if row["first"] is None else start + row["first"]
                for start, row in zip(starts[:-1], rows, strict=True)
            ],
            np.int32,
        ),
        full_tokens=np.asarray([trace["tokens"] for trace in told], np.int32),
        full_thinking=np.asarray([trace["thinking"] for trace in told], np.int32),
        full_correct=np.asarray([trace["correct"] for trace in told], bool),
        full_answers=tuple(trace["answer"] for trace in told),
        full_finish=tuple(trace["finish"] for trace in told),
        closed=np.asarray([trace["closed"] for trace in told], bool),
        features=joined(told, counts, features, "features"),
        extra=joined(told, counts, extra, "extra columns"),
        statistics=joined(told, counts, statistics, "statistics"),
    )
    last = np.asarray([row["last"] for row in rows], np.int32)
    return select(everything, everything.index < last[everything.row])


def select(boundaries: Boundaries, kept: np.ndarray) -> Boundaries:
    """Only the boundaries where kept[n]; traces keep their rows. A `first` that is not kept becomes NO_EXIT."""
    moved = np.where(kept, np.cumsum(kept) - 1, NO_EXIT).astype(np.int32)
    first = boundaries.first.copy()
    first[first != NO_EXIT] = moved[first[first != NO_EXIT]]
    fields = ("row", "index", "agree", "correct", "finished", "tokens", "features", "extra", "statistics")
    arrays = {name: getattr(boundaries, name)[kept] for name in fields}
    answers = tuple(boundaries.answers[i] for i in np.flatnonzero(kept))
    return dataclasses.replace(boundaries, **arrays, answers=answers, first=first)


def oracle_exits(boundaries: Boundaries) -> np.ndarray:
    """int32[N]: the earliest agreeing boundary. Clairvoyant: it knows the answer the model would have ended with."""
    return boundaries.first


def threshold_exits(boundaries: Boundaries, scores: np.ndarray, threshold: float) -> np.ndarray:
    """int32[N]: the first boundary of each trace whose score [n] reaches the threshold, NO_EXIT where none does."""
    exits = np.full(len(boundaries.ids), NO_EXIT, np.int32)
    # The same comparison as in calibration.
    granted = np.flatnonzero(np.asarray(scores, np.float32) >= np.float32(threshold))
    rows, place = np.unique(boundaries.row[granted], return_index=True)
    exits[rows] = granted[place]
    return exits


def outcomes(boundaries: Boundaries, exits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(tokens int64[N], correct bool[N]) of exiting at `exits`, full thinking where NO_EXIT."""
    exited = exits != NO_EXIT
    tokens, correct = boundaries.full_tokens.astype(np.int64), boundaries.full_correct.copy()
    tokens[exited] = boundaries.tokens[exits[exited]]
    correct[exited] = boundaries.correct[exits[exited]]
    return tokens, correct


def choose_threshold(
    boundaries: Boundaries, scores: np.ndarray, bound: float, margin: float = 0.0, standard_errors: float = 0.0
) -> rules.ChosenThresholds:
    """The score threshold, chosen by the same rule as the policy's thresholds; give it the same three numbers.

    scores: [n] of the development split. The choice's first threshold is the one to pass to `threshold_exits`.
    """
    padded = as_outcomes(boundaries, scores)
    grid = rules.threshold_grid(padded, (400,))
    return rules.choose_thresholds(padded, grid, bound, margin, standard_errors)


def certify_threshold(
    development: Boundaries, scores: np.ndarray, calibration: Boundaries, seen: np.ndarray, epsilon: float, delta: float
) -> float:
    """The score threshold, certified like a policy's: a sweep fixed on the development split (its scores [n]), walked
    on the calibration split (its scores `seen`). Raises CannotCertify."""
    padded = as_outcomes(development, scores)
    path = rules.threshold_axis(padded, 0, 400)[:, None]
    found = learn_then_test(path, as_outcomes(calibration, seen), epsilon, delta, development=padded)
    return found.thresholds[0]


def as_outcomes(boundaries: Boundaries, scores: np.ndarray) -> rules.Outcomes:
    """Padded to the largest number of boundaries; the only signal is the score [n]."""
    starts = boundaries.starts
    shape = (len(boundaries.ids), int(np.diff(starts).max(initial=0)))
    place = boundaries.row, np.arange(len(boundaries.row)) - starts[boundaries.row]
    smoothed, present = np.zeros((*shape, 1), np.float32), np.zeros(shape, bool)
    tokens, thinking, correct = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, bool)
    smoothed[(*place, 0)], present[place] = scores, True
    tokens[place], correct[place] = boundaries.tokens, boundaries.correct
    thinking[place] = boundaries.index + 1
    units = Units.of(boundaries.problems, boundaries.seeds, boundaries.tasks)
    return rules.Outcomes(
        smoothed=smoothed,
        present=present,
        tokens=tokens,
        thinking=thinking,
        correct=correct,
        full_tokens=boundaries.full_tokens.astype(np.int64),
        full_correct=boundaries.full_correct,
        closed=boundaries.closed & (np.asarray(boundaries.full_finish) == "stop"),
        weights=rules.task_weights(boundaries.tasks, units),
        units=units,
        signals=("confidence",),
    )


def bound_records(boundaries: Boundaries, exits: np.ndarray, method: str) -> list[Record]:
    """The records of a bound, one per trace, source 'replay'."""
    tokens, correct = outcomes(boundaries, exits)
    records = []
    for i, place in enumerate(exits):
        exited = bool(place != NO_EXIT)
        end = int(boundaries.index[place]) + 1 if exited else None
        records.append(
            Record(
                method=method,
                task=boundaries.tasks[i],
                id=boundaries.ids[i],
                problem=boundaries.problems[i],
                split=boundaries.splits[i],
                correct=bool(correct[i]),
                tokens=int(tokens[i]),
                thinking_tokens=end if exited else int(boundaries.full_thinking[i]),
                exit_index=end,
                exited=exited,
                steps=0,
                accepted=(),
                answer=boundaries.answers[place] if exited else boundaries.full_answers[i],
                finish=("stop" if boundaries.finished[place] else "length") if exited else boundaries.full_finish[i],
                source="replay",
                seed=boundaries.seeds[i],
            )
        )
    return records
