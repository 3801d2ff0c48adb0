"""The memory that rows take of a device, and what that makes of `Auto`: levels."""

import dataclasses
import math
from collections.abc import Mapping

import jax
from jax.sharding import Mesh

from specexit_jax.decoding.loop.prefill import empty_state
from specexit_jax.decoding.spec import LoopContext
from specexit_jax.engine.levels import Level, levels_of
from specexit_jax.engine.placement import Auto
from specexit_jax.engine.slots import CHUNK
from specexit_jax.engine.working import decode_working
from specexit_jax.parallel.host import free_memory

SHARE = 0.95  # of the memory that arrays may take of a device: the rest is lost between arrays of different sizes
OF_HOST = 0.25  # of the host's free memory: for rows where the device is a CPU, and for parked rows
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Row:
    """Bytes of one row on a device that holds it. caches: its keys and values; array: the largest of their arrays; rest: all else
    of its state."""

    caches: int
    array: int
    rest: int

    @property
    def whole(self) -> int:
        return self.caches + self.rest

    def held(self, rows: int, parts: int = 1) -> int:
        """The most bytes that slots hold on a device: their rows, which `parts` devices share, one more row while its prompt is
        read, and a copy of one array while caches grow. Beside caches, rows count as if every device held all of them."""
        return rows // parts * (self.caches + self.array) + rows * self.rest + self.whole


@dataclasses.dataclass(frozen=True)
class Budget:
    """levels: see `levels.levels_of`. row_bytes: of a whole row, by live prefix. parked: bytes of the host for the rows that are
    begun, those being decoded counted too."""

    levels: tuple[Level, ...]
    row_bytes: Mapping[int, int]
    parked: int


def budget_for(loop: LoopContext, mesh: Mesh | None, asked: Auto, requests: int) -> Budget:
    """The levels for so many requests. Raises ValueError, one sentence, where a row of full length does not fit."""
    parts, tensor = (1, 1) if mesh is None else (mesh.shape["data"] * mesh.shape["fsdp"], mesh.shape["tensor"])
    most = max(min(asked.most, 1 << (requests - 1).bit_length()) // parts, 1) * parts
    room = asked.cache_bytes if asked.cache_bytes is not None else free_room(loop, mesh, most // parts)
    rows = {live: row_of(loop, live, tensor) for live in loop.spec.prefixes}
    levels = levels_of(loop.spec.prefixes, most, parts, lambda size, live: rows[live].held(size, parts) <= room)
    if not levels:
        least = rows[loop.spec.capacity].held(parts, parts)
        raise ValueError(
            f"Rows of {loop.spec.buffer_length} tokens take {least / _GIB:.3g} GiB of a device, but {max(room, 0) / _GIB:.3g} GiB "
            "are there for them: lower max_new_tokens, raise cache_bytes, or let more devices share the heads (mesh.tensor)."
        )
    parked = asked.parked_bytes if asked.parked_bytes is not None else int(OF_HOST * free_memory())
    return Budget(levels, {live: row_of(loop, live).whole for live in loop.spec.prefixes}, parked)


def row_of(loop: LoopContext, live: int, tensor: int = 1) -> Row:
    """One row at a live prefix. tensor: devices that share its heads, where they can."""
    state = jax.eval_shape(lambda: empty_state(loop, 1, loop.spec.capacities_for(live)))
    arrays = []
    for cache in filter(None, (state.target_cache, state.draft_cache)):
        arrays += [_bytes(leaf) // (tensor if leaf.shape[1] % tensor == 0 else 1) for leaf in (*cache.k, *cache.v)]
    whole = sum(map(_bytes, jax.tree.leaves(state)))
    keys_and_values = [(cache.k, cache.v) for cache in (state.target_cache, state.draft_cache) if cache]
    rest = whole - sum(map(_bytes, jax.tree.leaves(keys_and_values)))
    return Row(sum(arrays), max(arrays), rest)


def free_room(loop: LoopContext, mesh: Mesh | None, rows: int) -> int:
    """Bytes of a device that rows may take, so many of them on it at most: what is free there, less what the loop works with."""
    devices = jax.local_devices()[:1] if mesh is None else list(mesh.local_devices)
    free = min(_free(device, len(devices)) for device in devices)
    tensor = 1 if mesh is None else mesh.shape["tensor"]
    return free - decode_working(loop.spec.target, rows, loop.spec.drafted, CHUNK, tensor)


def _free(device: jax.Device, sharing: int) -> int:
    """sharing: devices that share the host's memory, where the device has none of its own."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(SHARE * stats["bytes_limit"]) - stats["bytes_in_use"]
    return int(OF_HOST * free_memory()) // sharing


def _bytes(leaf: jax.ShapeDtypeStruct) -> int:
    return math.prod(leaf.shape) * leaf.dtype.itemsize
