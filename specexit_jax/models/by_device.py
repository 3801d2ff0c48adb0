"""Kernels under a mesh: each device computes with its own rows and heads, for the compiler cannot partition a kernel."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec

from specexit_jax.backend import axes_apart

# Of a call that kernels compute: a step's. Of more, scores outgrow a chip's fast memory, and it is not the cache that costs.
MOST_TOKENS = 64


class Split(NamedTuple):
    """An argument of a kernel: its axis 0 has rows, and axis `heads` heads (None: it has none)."""

    array: jax.Array
    heads: int | None = 1


def by_rows_and_heads(kernel: Callable, rows: int, heads: int, *arguments: Split) -> Any:
    """kernel(*arrays), on every device of the mesh in force (there may be none) with its part; results are [B, K, ...].

    Rows lie over (data, fsdp) and heads over tensor, each where they divide.
    """
    arrays = [each.array for each in arguments]
    if jax.sharding.get_abstract_mesh().empty:
        return kernel(*arrays)
    rows, heads = axes_apart((rows, heads), ("data", "fsdp"), ("tensor",))
    specs = tuple(
        PartitionSpec(rows) if each.heads is None else PartitionSpec(rows, *(None,) * (each.heads - 1), heads)
        for each in arguments
    )
    return jax.shard_map(kernel, in_specs=specs, out_specs=PartitionSpec(rows, heads), check_vma=False)(*arrays)
