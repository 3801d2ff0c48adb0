"""A policy replayed on annotated traces: where it exits, and the tokens and the answer a real decode would have given.

Sampling is keyed by position, and annotation continued every boundary with the trace's own keys. So the forced answer
at a boundary is what decoding with an exit there produces. Nothing is decoded here. The decisions are made by the
decoding loop's `policy.decide`, applied to whole traces instead of verify steps (`decided`).
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import flax.struct
import jax.numpy as jnp
import numpy as np

from specexit_jax.annotation.decided import decided
from specexit_jax.annotation.joined import ended, join_labels, leavable_tokens, thinking_tokens
from specexit_jax.exits.calibration import Outcomes, task_weights
from specexit_jax.exits.policy import Policy, Threshold
from specexit_jax.exits.score import columns_read, statistics_of
from specexit_jax.exits.smoothers import Smoother
from specexit_jax.exits.trace_statistics import statistic_names
from specexit_jax.exits.units import Units, problem_of
from specexit_jax.storage.rows import Unread, brief_rows


@dataclasses.dataclass(frozen=True)
class Replayed:
    """One trace under a policy.

    boundary: index among the label's boundaries, None without an exit; exit_index: index in `ids` of the forced
    `</think>`; signals: the smoothed signals that were compared; ids: all generated tokens; thinking_tokens: those
    before `</think>`; trial_tokens: those of failed trials, which `ids` does not hold; finished: whether the answer
    ended. An answer that annotation cut at max_answer would have continued in a decode: `ids` then holds only its
    beginning.
    """

    id: str
    boundary: int | None
    exit_index: int | None
    signals: tuple[float, ...] | None
    ids: tuple[int, ...] | Unread
    thinking_tokens: int
    correct: bool
    answer: str | None
    trial_tokens: int = 0
    finished: bool = True

    @property
    def tokens(self) -> int:
        return len(self.ids)


def replay(
    policy: Policy,
    traces: Sequence[dict],
    labels: Sequence[dict],
    signals: Mapping[str, np.ndarray] | None,
    end_think_ids: Sequence[int],
) -> list[Replayed]:
    """The exit and answer under `policy` for every trace.

    traces, labels: rows of traces.jsonl and labels.jsonl, joined by id; signals: id -> float32 [n, C] of at least the thinking
    tokens, whose leading columns are those that the policy reads (`features.Extracted`; None for a policy that reads none);
    end_think_ids: the ids of `</think>`, which forced_ids do not repeat. Boundaries are the labels' own: annotate with the
    kinds the policy was made for.
    """
    found = sorted(replay_each(policy, traces, labels, signals, end_think_ids), key=lambda one: one[0])
    return [shown for _, _, shown in found]


def replay_each(
    policy: Policy,
    traces: Sequence[dict],
    labels: Sequence[dict],
    signals: Mapping[str, np.ndarray] | None,
    end_think_ids: Sequence[int],
) -> Iterator[tuple[int, dict, Replayed]]:
    """(place among the traces, trace, `replay`'s result) as it is found, in another order. Of brief rows (`storage.rows`) the
    results have no ids, but their number."""
    end = tuple(end_think_ids)
    for one in decided([policy], traces, join_labels(traces, labels), signals, len(end)):
        yield one.number, one.trace, _outcome(policy, one.trace, one.label, one.columns[0], one.seen[0], end)


def outcomes(
    smoother: Smoother,
    traces: Sequence[dict],
    labels: Sequence[dict],
    signals: Mapping[str, np.ndarray],
    end_think_length: int = 1,
) -> Outcomes:
    """The result of an exit at each boundary of these traces, for `exits.calibration`; boundaries padded to the largest
    count."""
    return outcomes_by({"": smoother}, traces, labels, signals, end_think_length)[""]


def outcomes_by(
    smoothers: Mapping[str, Smoother],
    traces: Sequence[dict],
    labels: Sequence[dict],
    signals: Mapping[str, np.ndarray],
    end_think_length: int = 1,
) -> dict[str, Outcomes]:
    """`outcomes` under each smoother, which share all arrays but the smoothed signals; traces, labels and signals are read once."""
    chosen = join_labels(traces, labels)
    counts = [len(label["boundaries"]) for label in chosen]
    shape = (len(traces), max(counts, default=0))
    values = {name: np.zeros((*shape, len(each.signals)), np.float32) for name, each in smoothers.items()}
    present, correct = np.zeros(shape, bool), np.zeros(shape, bool)
    tokens, thinking = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    full_tokens, full_correct, closed = (
        np.zeros(len(traces), np.int64),
        np.zeros(shape[0], bool),
        np.zeros(shape[0], bool),
    )
    for one in decided([_open(each) for each in smoothers.values()], traces, chosen, signals, 1):
        row, trace, label, count = one.number, one.trace, one.label, counts[one.number]
        for name, seen in zip(smoothers, one.seen, strict=True):
            values[name][row, :count] = seen
        correct[row, :count] = np.logical_and(label["correct"], label["finished"])
        present[row, :count] = np.array(label["boundaries"]) < leavable_tokens(trace, label, end_think_length)
        thinking[row, :count] = np.asarray(label["boundaries"], np.int64) + 1
        tokens[row, :count] = [
            boundary + 1 + end_think_length + len(forced)
            for boundary, forced in zip(label["boundaries"], label["forced_ids"], strict=True)
        ]
        full_tokens[row], full_correct[row], closed[row] = len(trace["ids"]), trace["correct"], ended(trace)
    units = units_of(traces)
    return {
        name: Outcomes(
            smoothed=values[name],
            present=present,
            tokens=tokens,
            thinking=thinking,
            correct=correct,
            full_tokens=full_tokens,
            full_correct=full_correct,
            closed=closed,
            weights=task_weights(units.task, units),
            units=units,
            signals=each.signals,
        )
        for name, each in smoothers.items()
    }


def units_of(traces: Sequence[dict]) -> Units:
    """The problem, sample and task of each row of traces.jsonl."""
    found = [
        (problem_of(trace), trace.get("sample", trace.get("seed", 0)), trace["task"]) for trace in brief_rows(traces)
    ]
    return Units.of(*map(list, zip(*found, strict=True))) if found else Units.of([], [], [])


def smoothed_at_boundaries(
    smoother: Smoother, traces: Sequence[dict], labels: Sequence[dict], signals: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """float32 [boundaries, S] for each trace: the smoothed signals that a threshold policy compares at each boundary.

    labels: one for each trace, in their order (`join_labels`).
    """
    return _seen(_open(smoother), traces, labels, signals)


def statistics_at_boundaries(
    draft_signals: tuple[str, ...], traces: Sequence[dict], labels: Sequence[dict], signals: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """float32 [boundaries, F] for each trace: the statistics that an exit score sees at each boundary.

    draft_signals: the names of the draft's signals. labels: one for each trace, in their order (`join_labels`).
    """
    return _seen(_Watching(draft_signals), traces, labels, signals)


def _seen(policy: Policy, traces: Sequence[dict], labels: Sequence[dict], signals) -> list[np.ndarray]:
    found = {one.number: one.seen[0] for one in decided([policy], traces, labels, signals, 1)}
    return [found[number] for number in range(len(traces))]


def _open(smoother: Smoother) -> Threshold:
    """A policy that shows what this smoother gives."""
    return Threshold(jnp.zeros((len(smoother.signals),), jnp.float32), smoother)


@flax.struct.dataclass
class _Watching(Policy):
    """Never exits, and gives the statistics instead of smoothed signals."""

    draft_signals: tuple[str, ...] = flax.struct.field(pytree_node=False)

    reads_tokens = False

    @property
    def reads(self) -> tuple[str, ...]:
        return columns_read(self.draft_signals)

    @property
    def signals(self) -> tuple[str, ...]:
        return statistic_names(self.draft_signals)

    def decide(self, state, tokens, signals, boundary, valid, closes=None):
        never = jnp.full((valid.shape[0],), valid.shape[1], jnp.int32)
        return never, statistics_of(self.draft_signals, signals, boundary)


def _tried(policy: Policy, trace: dict, label: dict, column: int, end_length: int) -> int:
    """Tokens of the failed trials at the boundaries before the exit."""
    if not policy.on_trial:
        return 0
    answers = zip(label["boundaries"], label["forced_ids"], strict=True)
    last = min(column, leavable_tokens(trace, label, end_length))
    return sum(len(answer) for place, answer in answers if place < last)


def _outcome(policy: Policy, trace: dict, label: dict, column: int, seen, end_think: tuple[int, ...]) -> Replayed:
    thinking, tried = thinking_tokens(trace), _tried(policy, trace, label, column, len(end_think))
    if column >= thinking:
        right, stopped = bool(trace["correct"]), trace.get("finish", "stop") == "stop"
        ids = trace["ids"] if isinstance(trace["ids"], Unread) else tuple(trace["ids"])
        return Replayed(trace["id"], None, None, None, ids, thinking, right, trace["answer"], tried, stopped)
    place = label["boundaries"].index(column)
    answer = label["forced_ids"][place]
    if isinstance(trace["ids"], Unread) or isinstance(answer, Unread):
        ids = Unread(column + 1 + len(end_think) + len(answer))
    else:
        ids = (*trace["ids"][: column + 1], *end_think, *answer)
    return Replayed(
        id=trace["id"],
        boundary=place,
        exit_index=column + 1,
        signals=tuple(float(value) for value in seen[place]) if policy.signals else None,
        ids=ids,
        thinking_tokens=column + 1,
        correct=bool(label["correct"][place] and label["finished"][place]),
        answer=label["forced"][place] if label["finished"][place] else None,
        trial_tokens=tried,
        finished=label["finished"][place],
    )
