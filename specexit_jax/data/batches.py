"""Batches of rows as a function of the step, read ahead by Grain's threads.

The data position of a run is its step: what a step sees depends on (rows, batch size, seed, step) alone, not on how
often the run was stopped, nor on how many processes or devices share the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import grain
import numpy as np

from specexit_jax.data.packing import Rows

_EPOCHS = 1_000_000  # more steps than any run has; without a limit Grain's index overflows for batches of one row


class RowSource(Protocol):
    """Rows of one length by number: {name: array [T, ...]}."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Mapping[str, np.ndarray]: ...


class RowsInMemory:
    """Packed rows [R, T, ...] as a source."""

    def __init__(self, rows: Rows):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows["tokens"])

    def __getitem__(self, row: int) -> Rows:
        return {name: values[row] for name, values in self.rows.items()}


class Batches:
    """`batches(step)` is the batch of a step, `batches.iterate(start)` all from there on, prefetched.

    Every epoch is a permutation of the rows by (seed, epoch); epochs follow without gaps. `share`: the places in the
    batch that this process holds (`sharding.rows_of_process`), default all. Other rows are not read.
    """

    def __init__(
        self,
        source: RowSource,
        batch_size: int,
        seed: int = 0,
        share: Sequence[int] | None = None,
        threads: int = 2,
        ahead: int = 4,
    ):
        if not len(source):
            raise ValueError("there are no rows to train on: the source is empty")
        if batch_size < 1:
            raise ValueError(f"a batch needs at least 1 row, not {batch_size}")
        self.batch_size = batch_size
        self._reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        mine = np.arange(batch_size) if share is None else np.asarray(share)

        def read(numbers: np.ndarray) -> Rows:
            rows = [source[int(number)] for number in numbers[mine]]
            return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

        order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat(_EPOCHS)
        self._batches = order.batch(batch_size).map(read)

    def __call__(self, step: int) -> Rows:
        return self._batches[step]

    def iterate(self, start: int = 0) -> Iterator[Rows]:
        """An endless iterator of batches `start`, `start` + 1, ..."""
        batches = iter(self._batches.to_iter_dataset(self._reading))
        grain.experimental.set_next_index(batches, start)
        return batches
