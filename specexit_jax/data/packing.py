"""Documents of different lengths into rows of one length."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

Document = tuple[np.ndarray, np.ndarray]  # ids int[n], loss_mask bool[n]
Rows = dict[str, np.ndarray]  # every value [R, T, ...]
Columns = Mapping[str, np.ndarray]  # of one document: `tokens` [n], others [n, ...]


class Documents(Protocol):
    """Documents by number, each with the same columns."""

    def __getitem__(self, number: int) -> Columns: ...


def plan_rows(lengths: Sequence[int], row_length: int, seed: int = 0) -> list[list[int]]:
    """Which documents share a row: best fit, in a seeded random order. Returns document indices per row.

    Best fit (the fullest row that still has room) leaves about 1 % padding. Cutting the stream every T tokens would
    leave none, but would separate thinking from its answer.
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


def lay_out(documents: Sequence[Columns], row_length: int) -> Rows:
    """One row [T, ...] of documents side by side; adds segment_ids (1, 2, … ; 0 = padding) and positions.

    Every column of a document must have as many entries as its tokens.
    """
    row = {"segment_ids": np.zeros(row_length, np.int32), "positions": np.zeros(row_length, np.int32)}
    for name, values in documents[0].items():
        values = np.asarray(values)
        row[name] = np.zeros((row_length, *values.shape[1:]), np.int32 if values.dtype.kind in "iu" else values.dtype)
    start = 0
    for segment, document in enumerate(documents, start=1):
        length = len(document["tokens"])
        span = slice(start, start + length)
        row["segment_ids"][span] = segment
        row["positions"][span] = np.arange(length)
        for name, values in document.items():
            if len(values) != length:
                raise ValueError(f"a document has {len(values)} entries of {name} for {length} tokens")
            row[name][span] = values
        start += length
    return row


class PackedRows:
    """Rows of documents, laid out lazily: a source for `batches.Batches`.

    together: documents share rows by `plan_rows`; else each has a row of its own, in a seeded order. Raises ValueError
    for an empty list, and for an empty or over-long document (named by its index).
    """

    def __init__(
        self, documents: Documents, lengths: Sequence[int], row_length: int, seed: int = 0, together: bool = True
    ):
        if not len(lengths):
            raise ValueError("no documents to pack: the list is empty")
        self.documents, self.row_length = documents, row_length
        self.plan = plan_rows(lengths, row_length, seed)
        if not together:
            self.plan = [[document] for row in self.plan for document in row]

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, row: int) -> Rows:
        return lay_out([self.documents[number] for number in self.plan[row]], self.row_length)


def pack(
    documents: Sequence[Document],
    row_length: int,
    seed: int = 0,
    extra: Mapping[str, Sequence[np.ndarray]] | None = None,
) -> Rows:
    """All rows at once: tokens, segment_ids, positions int32[R, T], loss_mask bool[R, T], and one array for each of `extra`.

    Raises ValueError as `PackedRows` does.
    """
    extra = extra or {}
    columns = [
        {"tokens": np.asarray(ids), "loss_mask": np.asarray(mask, bool)}
        | {name: np.asarray(values[number]) for name, values in extra.items()}
        for number, (ids, mask) in enumerate(documents)
    ]
    rows = PackedRows(columns, [len(ids) for ids, _ in documents], row_length, seed)
    laid = [rows[number] for number in range(len(rows))]
    return {name: np.stack([row[name] for row in laid]) for name in laid[0]}
