"""Documents of different lengths into rows of one length, and rows into batches that are a function of the step."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

Document = tuple[np.ndarray, np.ndarray]  # ids int[n], loss_mask bool[n]
Rows = dict[str, np.ndarray]  # every value [R, T, ...]
Batches = Callable[[int], Rows]  # step -> {name: [B, T, ...]}


def plan_rows(lengths: Sequence[int], row_length: int, seed: int = 0) -> list[list[int]]:
    """Which documents share a row: best fit, in a seeded random order. Returns document indices per row.

    Best fit (the fullest row that still has room) leaves ~1 % padding, where cutting the stream every T tokens would leave
    none but split thoughts from their answers.
    """
    for index, length in enumerate(lengths):
        if not 0 < length <= row_length:
            raise ValueError(
                f"document {index} has {length} tokens, a row holds 1 to {row_length}; raise row_length or drop it"
            )
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # (room left, row), sorted
    for index in np.random.default_rng(seed).permutation(len(lengths)):
        need = int(lengths[index])
        at = bisect.bisect_left(open_rows, (need, -1))
        if at < len(open_rows):
            room, row = open_rows.pop(at)
        else:
            room, row = row_length, len(rows)
            rows.append([])
        rows[row].append(int(index))
        if room > need:
            bisect.insort(open_rows, (room - need, row))
    return rows


def fill_rows(plan: Sequence[Sequence[int]], columns: Mapping[str, Sequence[np.ndarray]], row_length: int) -> Rows:
    """Lays per-document arrays ([n] or [n, ...]) out by `plan`; adds segment_ids (1, 2, … ; 0 = padding) and positions.

    `columns` must name `tokens`; every column of a document must have as many entries as its tokens.
    """
    shape = (len(plan), row_length)
    rows = {"segment_ids": np.zeros(shape, np.int32), "positions": np.zeros(shape, np.int32)}
    for name, arrays in columns.items():
        first = np.asarray(arrays[0])
        rows[name] = np.zeros(shape + first.shape[1:], np.int32 if first.dtype.kind in "iu" else first.dtype)
    for row, documents in enumerate(plan):
        start = 0
        for segment, document in enumerate(documents, start=1):
            length = len(columns["tokens"][document])
            span = slice(start, start + length)
            rows["segment_ids"][row, span] = segment
            rows["positions"][row, span] = np.arange(length)
            for name, arrays in columns.items():
                if len(arrays[document]) != length:
                    raise ValueError(
                        f"document {document}: {name} has {len(arrays[document])} entries for {length} tokens"
                    )
                rows[name][row, span] = arrays[document]
            start += length
    return rows


def pack(
    documents: Sequence[Document],
    row_length: int,
    seed: int = 0,
    extra: Mapping[str, Sequence[np.ndarray]] | None = None,
) -> Rows:
    """Rows tokens, segment_ids, positions int32[R, T], loss_mask bool[R, T], and one array for each of `extra`.

    Raises ValueError for an empty list, and for an empty or over-long document (named by its index).
    """
    if not documents:
        raise ValueError("no documents to pack: the list is empty")
    columns: dict[str, Sequence[np.ndarray]] = {
        "tokens": [np.asarray(ids) for ids, _ in documents],
        "loss_mask": [np.asarray(mask, bool) for _, mask in documents],
        **(extra or {}),
    }
    plan = plan_rows([len(ids) for ids in columns["tokens"]], row_length, seed)
    return fill_rows(plan, columns, row_length)


def make_batches(rows: Rows, batch_size: int, seed: int = 0) -> Batches:
    """Batches as a pure function of the step: epoch e is the rows in an order seeded by (seed, e), epochs follow without gaps.

    The data position of a run is therefore its step, and resuming needs nothing else.
    """
    count = len(rows["tokens"])

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng((seed, epoch)).permutation(count)

    def batch(step: int) -> Rows:
        index = step * batch_size + np.arange(batch_size)
        chosen = np.array([order(int(i) // count)[i % count] for i in index])
        return {name: values[chosen] for name, values in rows.items()}

    return batch
