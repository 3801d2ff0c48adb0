"""A policy replayed on annotated traces: where it exits, and the tokens and the answer a real decode would have given.

Sampling is keyed by position, and annotation continued every boundary with the trace's own keys. So the forced answer
at a boundary is what decoding with an exit there produces. Nothing is decoded here. The decisions are made by the
decoding loop's `policy.decide`, applied to whole traces instead of verify steps.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from specexit_jax.annotation.joined import ended, join_labels, leavable_tokens, thinking_tokens
from specexit_jax.exits.calibration import Outcomes, task_weights
from specexit_jax.exits.policy import Policy, Threshold
from specexit_jax.exits.score import columns_read, statistics_of
from specexit_jax.exits.smoothers import Smoother
from specexit_jax.exits.trace_statistics import statistic_names
from specexit_jax.exits.units import Units, problem_of

ROWS = 64  # traces per batch; the last batch is padded, so that one program per length bucket is compiled


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
    ids: tuple[int, ...]
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
    chosen = join_labels(traces, labels)
    columns, shown = _decide_all(policy, traces, chosen, signals, len(end_think_ids))
    return [
        _outcome(policy, trace, label, column, seen, tuple(end_think_ids))
        for trace, label, column, seen in zip(traces, chosen, columns, shown, strict=True)
    ]


def outcomes(
    smoother: Smoother,
    traces: Sequence[dict],
    labels: Sequence[dict],
    signals: Mapping[str, np.ndarray],
    end_think_length: int = 1,
) -> Outcomes:
    """The result of an exit at each boundary of these traces, for `exits.calibration`; boundaries padded to the largest
    count."""
    chosen = join_labels(traces, labels)
    smoothed = smoothed_at_boundaries(smoother, traces, chosen, signals)
    most = max((len(label["boundaries"]) for label in chosen), default=0)
    shape = (len(traces), most)
    values = np.zeros((*shape, len(smoother.signals)), np.float32)
    present, correct = np.zeros(shape, bool), np.zeros(shape, bool)
    tokens, thinking = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, (trace, label, seen) in enumerate(zip(traces, chosen, smoothed, strict=True)):
        count = len(label["boundaries"])
        values[row, :count] = seen
        correct[row, :count] = np.logical_and(label["correct"], label["finished"])
        present[row, :count] = np.array(label["boundaries"]) < leavable_tokens(trace, label, end_think_length)
        thinking[row, :count] = np.asarray(label["boundaries"], np.int64) + 1
        tokens[row, :count] = [
            boundary + 1 + end_think_length + len(forced)
            for boundary, forced in zip(label["boundaries"], label["forced_ids"], strict=True)
        ]
    units = units_of(traces)
    return Outcomes(
        smoothed=values,
        present=present,
        tokens=tokens,
        thinking=thinking,
        correct=correct,
        full_tokens=np.array([len(trace["ids"]) for trace in traces], np.int64),
        full_correct=np.array([trace["correct"] for trace in traces], bool),
        closed=np.array([ended(trace) for trace in traces], bool),
        weights=task_weights(units.task, units),
        units=units,
        signals=smoother.signals,
    )


def units_of(traces: Sequence[dict]) -> Units:
    """The problem, sample and task of each row of traces.jsonl."""
    samples = [trace.get("sample", trace.get("seed", 0)) for trace in traces]
    return Units.of([problem_of(trace) for trace in traces], samples, [trace["task"] for trace in traces])


def smoothed_at_boundaries(
    smoother: Smoother, traces: Sequence[dict], labels: Sequence[dict], signals: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """float32 [boundaries, S] for each trace: the smoothed signals that a threshold policy compares at each boundary.

    labels: one for each trace, in their order (`join_labels`).
    """
    policy = Threshold(jnp.zeros((len(smoother.signals),), jnp.float32), smoother)
    _, smoothed = _decide_all(policy, traces, labels, signals, 1)
    return [seen[np.asarray(label["boundaries"], np.int64)] for seen, label in zip(smoothed, labels, strict=True)]


def statistics_at_boundaries(
    draft_signals: tuple[str, ...], traces: Sequence[dict], labels: Sequence[dict], signals: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """float32 [boundaries, F] for each trace: the statistics that an exit score sees at each boundary.

    draft_signals: the names of the draft's signals. labels: one for each trace, in their order (`join_labels`).
    """
    _, seen = _decide_all(_Watching(draft_signals), traces, labels, signals, 1)
    return [rows[np.asarray(label["boundaries"], np.int64)] for rows, label in zip(seen, labels, strict=True)]


@flax.struct.dataclass
class _Watching(Policy):
    """Never exits, and gives the statistics instead of smoothed signals."""

    draft_signals: tuple[str, ...] = flax.struct.field(pytree_node=False)

    @property
    def reads(self) -> tuple[str, ...]:
        return columns_read(self.draft_signals)

    @property
    def signals(self) -> tuple[str, ...]:
        return statistic_names(self.draft_signals)

    def decide(self, state, tokens, signals, boundary, valid, closes=None):
        never = jnp.full((tokens.shape[0],), tokens.shape[1], jnp.int32)
        return never, statistics_of(self.draft_signals, signals, boundary)


@partial(jax.jit, static_argnames="rows")
def _decide(policy: Policy, tokens, signals, boundary, valid, rows: int):
    return policy.decide(policy.init(rows), tokens, signals, boundary, valid)


def _decide_all(policy: Policy, traces, labels, signals, end_length: int) -> tuple[list[int], list[np.ndarray]]:
    """Per trace: the index of the last token kept (the thinking length if there is no exit), and smoothed signals [n,
    S]."""
    if policy.per_step:
        raise ValueError("the released rule depends on how verification sliced the text: decode with it, do not replay")
    columns, shown = [0] * len(traces), [np.zeros((0, len(policy.signals)), np.float32)] * len(traces)
    buckets: dict[int, list[int]] = {}
    for index, trace in enumerate(traces):
        buckets.setdefault(_bucket(thinking_tokens(trace)), []).append(index)
    for length, members in buckets.items():
        for start in range(0, len(members), ROWS):
            chunk = members[start : start + ROWS]
            batch = _batch([traces[i] for i in chunk], [labels[i] for i in chunk], signals, policy, length, end_length)
            exits, smoothed = map(np.asarray, _decide(policy, *batch, rows=ROWS))
            for row, index in enumerate(chunk):
                thinking = thinking_tokens(traces[index])
                columns[index] = min(int(exits[row]), thinking)
                shown[index] = smoothed[row, :thinking]
    return columns, shown


def _batch(traces, labels, signals, policy, length: int, end_length: int):
    """Padded tokens [ROWS, length], signals [ROWS, length, S] or None, boundary and valid [ROWS, length]."""
    tokens = np.zeros((ROWS, length), np.int32)
    values = np.zeros((ROWS, length, len(policy.reads)), np.float32)
    boundary, valid = np.zeros((ROWS, length), bool), np.zeros((ROWS, length), bool)
    for row, (trace, label) in enumerate(zip(traces, labels, strict=True)):
        thinking = thinking_tokens(trace)
        tokens[row, :thinking] = trace["ids"][:thinking]
        boundary[row, _granted(policy, label)] = True
        valid[row, : leavable_tokens(trace, label, end_length)] = True
        if policy.reads:
            values[row, :thinking] = _signals_of(trace["id"], signals, thinking, policy.reads)
    return tokens, values if policy.reads else None, boundary, valid


def _granted(policy: Policy, label: dict) -> list[int]:
    """The label's boundaries; for a policy with trials, those whose trial is kept."""
    if not policy.on_trial:
        return label["boundaries"]
    lengths = [len(answer) for answer in label["forced_ids"]]
    if max(lengths, default=0) > policy.max_answer:
        raise ValueError(
            f"label {label['id']} has an answer of {max(lengths)} tokens, but a trial reads {policy.max_answer} at most: "
            "give both the same max_answer"
        )
    stands = policy.stands(np.asarray(label["logprob"], np.float32), np.asarray(lengths, np.int32))
    return [place for place, stood in zip(label["boundaries"], np.asarray(stands), strict=True) if stood]


def _tried(policy: Policy, trace: dict, label: dict, column: int, end_length: int) -> int:
    """Tokens of the failed trials at the boundaries before the exit."""
    if not policy.on_trial:
        return 0
    answers = zip(label["boundaries"], label["forced_ids"], strict=True)
    last = min(column, leavable_tokens(trace, label, end_length))
    return sum(len(answer) for place, answer in answers if place < last)


def _signals_of(
    identity: str, signals: Mapping[str, np.ndarray] | None, thinking: int, names: Sequence[str]
) -> np.ndarray:
    if signals is None or identity not in signals:
        raise ValueError(f"trace {identity} has no signals: extract them for these traces (launch.calibrate) first")
    values = np.asarray(signals[identity], np.float32)
    if values.ndim != 2 or values.shape[1] < len(names) or len(values) < thinking:
        raise ValueError(
            f"trace {identity} has {thinking} thinking tokens but signals of shape {values.shape}, of {len(names)} columns expected"
        )
    return values[:thinking, : len(names)]


def _outcome(policy: Policy, trace: dict, label: dict, column: int, seen, end_think: tuple[int, ...]) -> Replayed:
    thinking, tried = thinking_tokens(trace), _tried(policy, trace, label, column, len(end_think))
    if column >= thinking:
        right, ids = bool(trace["correct"]), tuple(trace["ids"])
        whole = trace.get("finish", "stop") == "stop"
        return Replayed(trace["id"], None, None, None, ids, thinking, right, trace["answer"], tried, whole)
    place = label["boundaries"].index(column)
    return Replayed(
        id=trace["id"],
        boundary=place,
        exit_index=column + 1,
        signals=tuple(float(value) for value in seen[column]) if policy.signals else None,
        ids=(*trace["ids"][: column + 1], *end_think, *label["forced_ids"][place]),
        thinking_tokens=column + 1,
        correct=bool(label["correct"][place] and label["finished"][place]),
        answer=label["forced"][place] if label["finished"][place] else None,
        trial_tokens=tried,
        finished=label["finished"][place],
    )


def _bucket(length: int) -> int:
    """The padded length: a power of two, at least 64."""
    return max(64, 1 << (length - 1).bit_length()) if length else 64
