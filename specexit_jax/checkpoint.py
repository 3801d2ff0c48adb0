"""Train states on disk, by Orbax: written aside and renamed, restored exactly, the previous one used when the newest is broken."""

from __future__ import annotations

import contextlib
import gc
import inspect
import json
import os
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

State = TypeVar("State")
_CHECKSUM_BYTES = 2**30  # beyond a gigabyte a checksum costs seconds: left to the storage


def flatten(tree: Any) -> dict[str, Any]:
    """Leaves by slash-joined path, the names under which they are stored."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _checksum(leaves: dict[str, Any]) -> int | None:
    """crc32 of all values, or None where they are spread over processes or too many."""
    whole = all(leaf.is_fully_addressable for leaf in leaves.values())
    if not whole or sum(leaf.nbytes for leaf in leaves.values()) > _CHECKSUM_BYTES:
        return None
    value = 0
    for name in sorted(leaves):
        value = zlib.crc32(np.ascontiguousarray(leaves[name]).view(np.uint8).reshape(-1), value)
    return value


class Checkpoints:
    """The checkpoints of one run: `folder`/<step>. Use as a context manager, or call close()."""

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = Path(folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._keep = keep
        self._open()

    def _open(self) -> None:
        policy = ocp.training.preservation_policies.LatestN(self._keep)
        self._orbax = ocp.training.Checkpointer(self.folder, preservation_policy=policy, cleanup_tmp_directories=True)

    def steps(self) -> list[int]:
        """Saved steps, ascending."""
        return [checkpoint.step for checkpoint in self._orbax.checkpoints]

    def save(self, step: int, state: Any) -> None:
        """Saves `state` as `step` and waits until it is in place; a step already there is replaced."""
        leaves = flatten(state)
        self._orbax.save(step, leaves, force=True, overwrite=True, custom_metadata={"crc32": _checksum(leaves)})

    def restore(self, step: int, like: State) -> State:
        """The state saved at `step`, with the structure and shardings of `like`.

        Raises ValueError when the checkpoint holds another model or optimizer (naming a leaf), OSError when it is unreadable.
        """
        wanted = flatten(like)
        try:
            saved = self._orbax.metadata(step)
            if saved.metadata is None:  # Orbax logs what it met and goes on
                raise ValueError("its metadata are damaged")
            shapes = {name: (tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in saved.metadata.items()}
        except Exception as error:
            raise _unreadable(self.folder / str(step), error) from error
        _check_same(
            self.folder / str(step), shapes, {n: (tuple(x.shape), np.dtype(x.dtype)) for n, x in wanted.items()}
        )
        leaves = self._load(step, {name: _abstract(leaf) for name, leaf in wanted.items()})
        expected = (saved.custom_metadata or {}).get("crc32")
        if expected is not None and _checksum(leaves) != expected:
            raise _unreadable(self.folder / str(step), "its values do not match their checksum")
        return jax.tree.unflatten(jax.tree.structure(like), [leaves[name] for name in wanted])

    def _load(self, step: int, abstract: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        with _dropped_reads_silenced():
            try:
                return self._orbax.load(step, abstract_state=abstract)
            except Exception as error:  # Orbax and TensorStore raise many types for a damaged file
                problem = _unreadable(self.folder / str(step), error)
            gc.collect()  # the failed read is dropped here, while silenced, and not in the middle of what follows
        raise problem

    def restore_latest(self, like: State) -> tuple[State, int] | None:
        """(state, step) of the newest readable checkpoint; None when there is none at all.

        An unreadable one is named on the console, moved to unreadable-<step>-<time> and passed over. Raises ValueError when
        every checkpoint is unreadable: starting again from nothing must be the user's choice.
        """
        broken = []
        for step in reversed(self.steps()):
            try:
                return self.restore(step, like), step
            except OSError as error:
                broken.append(str(step))
                print(f"{error}; trying the one before it")
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
        self._open()

    def close(self) -> None:
        self._orbax.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def _dropped_reads_silenced() -> Iterator[None]:
    """Orbax leaves the reads beside a failed one unfinished; Python would report each of them as an ignored exception."""
    report = sys.unraisablehook
    sys.unraisablehook = lambda event: None if inspect.iscoroutine(event.object) else report(event)
    try:
        yield
    finally:
        sys.unraisablehook = report


def _unreadable(path: Path, reason: Any) -> OSError:
    lines = str(reason).strip().splitlines() or [type(reason).__name__]
    return OSError(f"checkpoint {path} cannot be read ({lines[0][:160]})")


def _check_same(path: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    for problem in _differences(saved, wanted):
        raise ValueError(
            f"checkpoint {path} is of another model or optimizer: {problem}; use another workdir or the old config"
        )


def _differences(saved: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    for name in sorted(saved.keys() | wanted.keys()):
        if name not in wanted:
            yield f"it holds {name}, which this run lacks"
        elif name not in saved:
            yield f"it lacks {name}"
        elif saved[name] != wanted[name]:
            yield f"{name} is {saved[name][1]}{list(saved[name][0])} there and {wanted[name][1]}{list(wanted[name][0])} here"


def write_json(path: Path, value: Any) -> None:
    """Writes JSON to a temporary name and renames it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
