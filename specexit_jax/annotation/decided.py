"""What policies decide on annotated traces, some traces at a time: the decoding loop's `policy.decide`, applied to whole traces.

Traces, labels and signals may be on disk: what is held is a batch of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from specexit_jax.annotation.joined import leavable_tokens, thinking_tokens
from specexit_jax.exits.policy import Policy
from specexit_jax.storage.rows import brief_rows, taken, whole_rows

ROWS = 64  # traces per batch; the last batch is padded, so that one program per length bucket is compiled
TOKENS = 2**18  # of a batch, at most: longer traces than 4,096 tokens come in batches of fewer rows


class Decided(NamedTuple):
    """A trace, its place among the traces, its label, and for each policy: the index of the last token kept (the thinking length
    if there is no exit), and the smoothed signals at the label's boundaries, float32 [boundaries, S]."""

    number: int
    trace: dict
    label: dict
    columns: tuple[int, ...]
    seen: tuple[np.ndarray, ...]


def decided(
    policies: Sequence[Policy],
    traces: Sequence[dict],
    labels: Sequence[dict],
    signals: Mapping[str, np.ndarray] | None,
    end_length: int,
) -> Iterator[Decided]:
    """What policies decide on every trace, in batches of similar length. labels: one for each trace, in their order. signals: by
    id, None for policies that read none. end_length: ids of `</think>`."""
    if any(policy.per_step for policy in policies):
        raise ValueError("the released rule depends on how verification sliced the text: decode with it, do not replay")
    reads_tokens, buckets = any(policy.reads_tokens for policy in policies), {}
    for index, trace in enumerate(brief_rows(traces)):
        buckets.setdefault(_bucket(thinking_tokens(trace)), []).append(index)
    for length, members in buckets.items():
        rows = max(min(ROWS, TOKENS // length), 1)
        for start in range(0, len(members), rows):
            chunk = members[start : start + rows]
            own = list(taken(whole_rows(traces) if reads_tokens else traces, chunk)), list(taken(labels, chunk))
            yield from _chunk(policies, chunk, *own, signals, (rows, length), end_length)


def _chunk(
    policies: Sequence[Policy],
    numbers: list[int],
    traces: list[dict],
    labels: list[dict],
    signals,
    shape,
    end_length: int,
) -> Iterator[Decided]:
    names = max((policy.reads for policy in policies), key=len)
    tokens = _tokens(traces, shape) if any(policy.reads_tokens for policy in policies) else None
    values = _values(traces, signals, shape, names) if names else None
    results = []
    for policy in policies:
        given = values[..., : len(policy.reads)] if policy.reads else None
        at = _boundaries(policy, traces, labels, shape, end_length)
        found = _decide(policy, tokens if policy.reads_tokens else None, given, *at, rows=shape[0])
        results.append(tuple(map(np.asarray, found)))
    for row, (number, trace, label) in enumerate(zip(numbers, traces, labels, strict=True)):
        places = np.asarray(label["boundaries"], np.int64)
        columns = tuple(min(int(exits[row]), thinking_tokens(trace)) for exits, _ in results)
        yield Decided(number, trace, label, columns, tuple(smoothed[row, places] for _, smoothed in results))


@partial(jax.jit, static_argnames="rows")
def _decide(policy: Policy, tokens, signals, boundary, valid, rows: int):
    return policy.decide(policy.init(rows), tokens, signals, boundary, valid)


def _tokens(traces: Sequence[dict], shape: tuple[int, int]) -> np.ndarray:
    tokens = np.zeros(shape, np.int32)
    for row, trace in enumerate(traces):
        thinking = thinking_tokens(trace)
        tokens[row, :thinking] = trace["ids"][:thinking]
    return tokens


def _values(traces: Sequence[dict], signals, shape: tuple[int, int], names: Sequence[str]) -> np.ndarray:
    values = np.zeros((*shape, len(names)), np.float32)
    for row, trace in enumerate(traces):
        thinking = thinking_tokens(trace)
        values[row, :thinking] = _signals_of(trace["id"], signals, thinking, names)
    return values


def _boundaries(
    policy: Policy, traces: Sequence[dict], labels: Sequence[dict], shape: tuple[int, int], end_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """boundary and valid, bool [rows, length]."""
    boundary, valid = np.zeros(shape, bool), np.zeros(shape, bool)
    for row, (trace, label) in enumerate(zip(traces, labels, strict=True)):
        boundary[row, _granted(policy, label)] = True
        valid[row, : leavable_tokens(trace, label, end_length)] = True
    return boundary, valid


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


def _bucket(length: int) -> int:
    """The padded length: a power of two, at least 64."""
    return max(64, 1 << (length - 1).bit_length()) if length else 64
