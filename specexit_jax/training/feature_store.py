"""The frozen target's forward pass over packed rows, computed once and stored on disk: training then runs only the
draft.

A shard holds whole rows (features [R, T, A] and final hidden [R, T, D] in the target's dtype, logsumexp float32 and top
int32 [R, T]); the head's logits are recomputed from `hidden`, on the draft's vocabulary only. A token takes 4 D numbers for an
EAGLE-3 draft, 20 KB for a model of hidden size 2,560, and 2 D for an MTP draft. The store soon takes terabytes, so its size is
reported before anything is written.
"""

from __future__ import annotations

import functools
import os
import shutil
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from safetensors import safe_open
from safetensors.numpy import save_file

from specexit_jax.backend import on_mesh
from specexit_jax.data.batches import RowSource
from specexit_jax.data.packing import Rows
from specexit_jax.models.config import TargetConfig
from specexit_jax.models.target import Target
from specexit_jax.monitoring.progress import Progress
from specexit_jax.parallel.distributed import barrier
from specexit_jax.parallel.sharding import from_whole, whole
from specexit_jax.storage.identity import same
from specexit_jax.training.draft import DraftTrainingConfig
from specexit_jax.training.teacher import STORED, target_pass

SHARD_BYTES = 2**29
_GIB = 2**30


class FeatureStore:
    """The features of `rows` in `folder`, at the temperature of `losses`. `write` computes missing shards, `rows`
    reads.

    name: identifies the target and its weights; stored with the shards, so that those of another target are refused.
    """

    def __init__(
        self,
        folder: str | Path,
        target: TargetConfig,
        rows: RowSource,
        batch_size: int,
        losses: DraftTrainingConfig,
        name: str = "",
    ):
        self.folder, self.target, self.source, self.batch_size = Path(folder), target, rows, batch_size
        self._pass = {"temperature": losses.temperature, "chunk": losses.teacher_chunk}
        self._about = {"temperature": repr(losses.temperature), "dtype": target.dtype, "target": name}
        if isinstance(target.capture, str):
            self._about["features"] = target.capture
        length = len(rows[0]["tokens"])
        self.row_bytes = length * ((target.feature_size + target.hidden_size) * jnp.dtype(target.dtype).itemsize + 8)
        batches = max(SHARD_BYTES // (self.row_bytes * batch_size), 1)
        self.shard_rows = batches * batch_size
        self.count = -(-len(rows) // self.shard_rows)

    @property
    def size(self) -> int:
        """The size of the whole store in bytes."""
        return self.row_bytes * len(self.source)

    def missing(self) -> list[int]:
        """The numbers of the shards that are missing."""
        return [number for number in range(self.count) if not self.path(number).is_file()]

    def path(self, number: int) -> Path:
        return self.folder / f"features-{number:05d}-of-{self.count:05d}.safetensors"

    def summary(self) -> str:
        """A sentence on the space that the missing shards will take.

        Raises OSError if the disk has no room for them, ValueError if existing shards belong to other rows or another
        target.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check()
        needed = self.row_bytes * min(len(self.missing()) * self.shard_rows, len(self.source))
        free = shutil.disk_usage(self.folder).free
        sentence = (
            f"{self.folder}: features of {len(self.source)} rows take {self.size / _GIB:.2f} GiB, "
            f"{needed / _GIB:.2f} of them to be written; {free / _GIB:.1f} GiB are free"
        )
        if needed > free:
            raise OSError(f"{sentence}: make room, or train with features 'online'")
        return sentence

    def write(self, params: dict, mesh: Mesh | None = None) -> None:
        """Runs the target over the rows of every missing shard; process p of n writes every n-th of them."""
        run = functools.partial(target_pass, Target(self.target), **self._pass)
        run = jax.jit(run, out_shardings=None if mesh is None else whole(mesh))
        missing = self.missing()
        barrier("features: all processes know what is missing")
        progress = Progress(len(missing), "features: shard ")
        for done, number in enumerate(missing, start=1):
            rows = self._rows_of(number)
            found: dict[str, list[np.ndarray]] = {name: [] for name in STORED}
            for start in range(0, len(rows), self.batch_size):
                batch = _stacked(rows[start : start + self.batch_size], self.batch_size)
                with on_mesh(mesh):
                    out = run(params, from_whole(batch, mesh))
                for name in STORED:
                    found[name].append(np.asarray(out[name]))
            if number % jax.process_count() == jax.process_index():
                self._save(number, {name: np.concatenate(v)[: len(rows)] for name, v in found.items()}, rows)
            progress.update(done)
        barrier("features: all shards are written")

    def _rows_of(self, number: int) -> list[Rows]:
        last = min((number + 1) * self.shard_rows, len(self.source))
        return [self.source[row] for row in range(number * self.shard_rows, last)]

    def _save(self, number: int, tensors: dict[str, np.ndarray], rows: list[Rows]) -> None:
        path = self.path(number)
        temporary = path.with_name(f".{path.name}.tmp")
        save_file(tensors, temporary, self._about | {"set of rows": _checksum(rows)})
        temporary.chmod(0o644)
        os.replace(temporary, path)

    def rows(self) -> StoredRows:
        """The rows with their features. Raises FileNotFoundError if shards are missing, and ValueError as `summary`
        does."""
        missing = self.missing()
        if missing:
            raise FileNotFoundError(f"{self.path(missing[0])} does not exist ({len(missing)} of {self.count} shards)")
        self._check()
        return StoredRows(self)

    def _check(self) -> None:
        """Raises ValueError if a shard was written for other rows, or for another target, dtype or temperature."""
        for number in set(range(self.count)) - set(self.missing()):
            with safe_open(self.path(number), "np") as file:
                kept = file.metadata()
            expected = self._about | {"set of rows": _checksum(self._rows_of(number))}
            for what, value in expected.items():
                if not same(value, kept.get(what)):
                    raise ValueError(f"{self.path(number)} was written for another {what}: remove {self.folder}")


class StoredRows:
    """A source of rows with the stored columns (`teacher.STORED`) added."""

    def __init__(self, store: FeatureStore):
        self._store = store

    def __len__(self) -> int:
        return len(self._store.source)

    def __getitem__(self, row: int) -> Rows:
        number, place = divmod(row, self._store.shard_rows)
        with safe_open(self._store.path(number), "np") as file:
            stored = {name: file.get_slice(name)[place : place + 1][0] for name in STORED}
        return self._store.source[row] | stored


def _stacked(rows: list[Rows], size: int) -> Rows:
    """The rows as one batch of `size`, padded by repeating the last row."""
    rows = [*rows, *[rows[-1]] * (size - len(rows))]
    return {name: np.stack([row[name] for row in rows]) for name in ("tokens", "positions", "segment_ids")}


def _checksum(rows: list[Rows]) -> str:
    value = 0
    for row in rows:
        for name in ("tokens", "segment_ids"):
            value = zlib.crc32(np.ascontiguousarray(row[name]), value)
    return str(value)
