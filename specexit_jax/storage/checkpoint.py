"""Train states on disk, by Orbax: written in the background, restored exactly; if the newest is broken, the one before
it is restored."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

import jax
import numpy as np
from absl import flags
from orbax.checkpoint import v1 as ocp

from specexit_jax.notes import note
from specexit_jax.parallel import distributed
from specexit_jax.parallel.tree_paths import flatten
from specexit_jax.storage.checkpoint_problems import check_same, unreadable, unwritable
from specexit_jax.storage.checksum import checksum
from specexit_jax.storage.dropped_reads import dropped_reads_silenced, silence_late_reads

State = TypeVar("State")
_CHECKSUM = "checksum_2"  # beside the values; the older "checksum" did not notice when x and -x changed places


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _alone() -> ocp.Context:
    """Orbax options for work in this process alone, without barriers between processes."""
    context = ocp.Context()
    if jax.process_count() > 1:
        number = jax.process_index()
        context.multiprocessing.primary_host = number
        context.multiprocessing.active_processes = {number}
        context.multiprocessing.barrier_sync_key_prefix = f"process_{number}"
    return context


class Checkpoints:
    """The checkpoints of one run: `folder`/<step>. Use as a context manager, or call close().

    Every process makes one for the same folder, which all hosts share, and calls the same methods in the same order.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = Path(folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._keep = keep
        self._background = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: tuple[int, Future] | None = None
        self._open()

    def _open(self) -> None:
        if jax.process_count() > 1:
            # Orbax then waits for the other processes at the coordinator. A barrier on the devices would interleave its
            # threads' collectives with those of the training step.
            flags.FLAGS.experimental_orbax_use_distributed_barrier = True
        policy = ocp.training.preservation_policies.LatestN(self._keep)
        self._orbax = ocp.training.Checkpointer(
            self.folder,
            preservation_policy=policy,
            cleanup_tmp_directories=True,
        )

    def steps(self) -> list[int]:
        """Saved steps, ascending. A save that is still being written is not included."""
        under_way = self._saving[0] if self._saving else None
        return [checkpoint.step for checkpoint in self._orbax.checkpoints if checkpoint.step != under_way]

    def save(self, step: int, state: Any, notes: Mapping[str, float] | None = None) -> None:
        """Copies `state` to the host and writes it as `step` in the background; replaces a checkpoint of that step.

        Waits for the previous save. The caller may donate `state` at once. notes: stored with it. Raises OSError if
        this save or the previous one cannot be written.
        """
        self.wait()
        leaves = flatten(state)
        about = {_CHECKSUM: checksum(leaves), "notes": dict(notes or {})}
        try:
            written = self._orbax.save_async(step, leaves, force=True, overwrite=True, custom_metadata=about)
        except Exception as error:  # Orbax and TensorStore raise many types
            good = [other for other in self.steps() if other != step]
            raise unwritable(self.folder, step, good, error) from error
        self._saving = step, self._background.submit(written.result)

    def check(self) -> None:
        """Raises OSError if the save in progress has failed; does not wait."""
        if self._saving and self._saving[1].done():
            self.wait()

    def wait(self) -> None:
        """Waits until the save in progress is complete; OSError if it cannot be written."""
        if self._saving is None:
            return
        step, saving = self._saving
        try:
            saving.result()
        except Exception as error:
            raise unwritable(self.folder, step, self.steps(), error) from error
        finally:
            self._saving = None

    def restore(self, step: int, like: State) -> tuple[State, dict[str, float]]:
        """The state saved at `step` with its notes; the structure and shardings are those of `like`.

        Raises ValueError if the checkpoint is of another model or optimizer (it names a leaf), OSError if any process
        cannot read it.
        """
        wanted, problem, leaves, about = flatten(like), None, {}, {}
        try:
            about = self._check(step, wanted)
            leaves = self._load(step, {name: _abstract(leaf) for name, leaf in wanted.items()})
        except OSError as error:
            problem = error
        if distributed.anywhere(problem is not None):
            raise problem or unreadable(self.folder / str(step), "another process cannot read it")
        if _CHECKSUM in about and checksum(leaves) != about[_CHECKSUM]:
            raise unreadable(self.folder / str(step), "its values do not match their checksum")
        if _CHECKSUM not in about:
            note(f"checkpoint {self.folder / str(step)} has no checksum of today's kind: its values are not checked.")
        state = jax.tree.unflatten(jax.tree.structure(like), [leaves[name] for name in wanted])
        return state, about.get("notes", {})

    def _check(self, step: int, wanted: dict[str, Any]) -> dict[str, Any]:
        """The metadata stored with the state; compares shapes and types."""
        path = self.folder / str(step)
        try:
            saved = self._orbax.metadata(step)
            if saved.metadata is None:  # Orbax logs its errors and goes on
                raise ValueError("its metadata are damaged")
            shapes = {name: (tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in saved.metadata.items()}
        except Exception as error:
            raise unreadable(path, error) from error
        check_same(path, shapes, {n: (tuple(x.shape), np.dtype(x.dtype)) for n, x in wanted.items()})
        return saved.custom_metadata or {}

    def _load(self, step: int, abstract: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        # Each process reads by itself: if one finds damage, the others must not wait for it inside Orbax.
        with dropped_reads_silenced(), _alone():
            try:
                return ocp.load(self.folder / str(step), abstract)
            except Exception as error:  # Orbax and TensorStore raise many types for a damaged file
                problem = unreadable(self.folder / str(step), error)
            gc.collect()  # collect the failed read here, while its messages are silenced
        silence_late_reads()
        raise problem

    def restore_latest(self, like: State) -> tuple[State, int, dict[str, float]] | None:
        """(state, step, notes) of the newest readable checkpoint; None if there is no checkpoint.

        An unreadable one is reported on the console, moved to unreadable-<step>-<time> and skipped. Raises ValueError
        if every checkpoint is unreadable: starting from scratch must be the user's choice.
        """
        self.wait()
        broken = []
        for step in reversed(self.steps()):
            try:
                state, notes = self.restore(step, like)
                return state, step, notes
            except OSError as error:
                broken.append(str(step))
                print(f"{distributed.prefix()}{error}; trying the one before it", flush=True)
                self._set_aside(step)
        if broken:
            raise ValueError(
                f"no checkpoint in {self.folder} can be read (tried {', '.join(broken)}); delete it to start again"
            )
        return None

    def _set_aside(self, step: int) -> None:
        self._orbax.close()
        if jax.process_index() == 0:
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.folder / str(step), self.folder / f"unreadable-{step}-{int(time.time())}")
        distributed.barrier(f"set aside {step}")
        self._open()

    def close(self) -> None:
        """Waits for the save in progress; OSError if it cannot be written."""
        try:
            self.wait()
        finally:
            self._background.shutdown()
            with contextlib.suppress(Exception):  # its close() would report a failed save a second time
                self._orbax.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        alone = kind is not None and issubclass(kind, Exception) and not issubclass(kind, distributed.InAll)
        # After an error the other processes would not reach the barrier in close().
        if not (alone and distributed.several()):
            self.close()


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically: to a temporary name that is then renamed."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
