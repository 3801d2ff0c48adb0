"""The placement of every array: one mesh, and one table from parameter path to PartitionSpec."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from specexit_jax.parallel.layouts import laid_out
from specexit_jax.parallel.tree_paths import flatten

P = PartitionSpec
AXES = ("data", "fsdp", "tensor")

# Heads (K) and feed-forward columns (F) are split over `tensor`, and summed in the output projection (Megatron): one
# reduction a branch. The optimizer's moments end in the same path as their parameter, so the same rules place them.
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"(^|/)embed/embedding$", P("tensor", "fsdp")),  # [V, D]
    (r"(^|/)lm_head$", P("fsdp", "tensor")),  # [D, V] or [D, W]
    (r"(^|/)attention/qkv$", P("fsdp", "tensor")),  # [D, K, G + 2, H]
    (r"(^|/)attention/qkv_bias$", P("tensor")),  # [K, G + 2, H]
    (r"(^|/)attention/gate$", P("fsdp", "tensor")),  # [D, K, G, H]
    (r"(^|/)attention/o$", P("tensor", None, None, "fsdp")),  # [K, G, H, D]
    (r"(^|/)attention/[qk]_norm$", P()),  # [H]
    (r"(^|/)mlp/gate_up$", P("fsdp", None, "tensor")),  # [D, 2, F]
    (r"(^|/)mlp/down$", P("tensor", "fsdp")),  # [F, D]
    (r"norm/scale$", P()),  # [D]
    (r"(^|/)fc$", P("fsdp", None)),  # [3 D, E + 3]: not split over columns, the last three are the signals
    (r"(^|/)projection$", P("fsdp", None)),  # [2 E, E]
    (r"(^|/)signal_head$", P("fsdp", None)),  # [E, 3]
)
_STACKED = re.compile(r"(^|/)layers/")  # [L, ...]: not split over layers, else as one layer
# What a train state holds beside parameters and their moments: counters and Newton-Schulz coefficients.
_STATE_RULES: tuple[tuple[str, PartitionSpec], ...] = ((r"(^|/)(step|count|ns_coeffs|extra)$", P()),)


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Any = None) -> Mesh:
    """Mesh (data, fsdp, tensor) over all devices; one axis may be -1: all remaining devices."""
    devices = jax.devices() if devices is None else devices
    sizes = sizes_over((data, fsdp, tensor), len(devices))
    # Auto axes: under Explicit ones (the default of make_mesh) stock Linen layers fail.
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def sizes_over(sizes: Sequence[int], devices: int) -> tuple[int, ...]:
    """The sizes of data, fsdp and tensor with their -1 replaced. Raises ValueError where they do not cover the devices."""
    if list(sizes).count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ValueError(f"mesh sizes {list(sizes)} must be positive, at most one -1")
    known = math.prod(size for size in sizes if size != -1)
    full = tuple(max(devices // known, 1) if size == -1 else size for size in sizes)
    if math.prod(full) != devices:
        raise ValueError(f"mesh data x fsdp x tensor = {' x '.join(map(str, full))} does not cover {devices} devices")
    return full


def matching_rules(
    path: str, rules: tuple[tuple[str, PartitionSpec], ...] = RULES + _STATE_RULES
) -> list[PartitionSpec]:
    return [spec for pattern, spec in rules if re.search(pattern, path)]


def spec_of(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The spec of one leaf; an axis that does not divide its dimension is left unsharded. Raises ValueError if no rule matches."""
    specs = matching_rules(path)
    if len(specs) != 1:
        raise ValueError(
            f"{len(specs)} sharding rules match parameter {path}; exactly one must (specexit_jax/parallel/sharding.py)"
        )
    names = ((None,) if _STACKED.search(path) else ()) + tuple(specs[0])
    names += (None,) * (len(shape) - len(names))
    return P(
        *(name if name and size % mesh.shape[name] == 0 else None for name, size in zip(names, shape, strict=False))
    )


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """NamedSharding for every leaf of parameters or of a whole train state."""
    shardings = [NamedSharding(mesh, spec_of(path, np.shape(leaf), mesh)) for path, leaf in flatten(tree).items()]
    return jax.tree.unflatten(jax.tree.structure(tree), shardings)


def placer(mesh: Mesh) -> Callable[[np.ndarray, str], jax.Array]:
    """A function (array, path) that places one parameter straight onto its devices, for checkpoint loaders."""

    def place(array: np.ndarray, path: str) -> jax.Array:
        sharding = NamedSharding(mesh, spec_of(path, array.shape, mesh))
        return jax.device_put(
            array, laid_out(path, sharding, array.shape) if sharding.is_fully_addressable else sharding
        )

    return place


def stacker(mesh: Mesh | None) -> Callable[[list[jax.Array], str], jax.Array]:
    """A function (arrays, path) that stacks the arrays of all layers where they lie: on the mesh, or on one device."""

    def join(arrays: list[jax.Array], path: str) -> jax.Array:
        shape = (len(arrays), *arrays[0].shape)
        sharding = arrays[0].sharding if mesh is None else NamedSharding(mesh, spec_of(path, shape, mesh))
        where = laid_out(path, sharding, shape) if sharding.is_fully_addressable else sharding
        return jax.jit(lambda *arrays: jnp.stack(arrays), out_shardings=where)(*arrays)

    return join


def row_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of batches [B, ...]: rows over (data, fsdp), other axes replicated."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def whole(mesh: Mesh) -> NamedSharding:
    """The replicated sharding: the same on every device."""
    return NamedSharding(mesh, P())


def rows_of_process(mesh: Mesh, batch_size: int) -> np.ndarray:
    """int[b], ascending: which rows of a global batch this process's devices hold. Raises ValueError where B does not split."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % parts:
        raise ValueError(f"batch of {batch_size} rows does not split over data x fsdp = {parts} devices")
    held = row_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in held]))


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Host arrays [b, ...] as global ones [B, ...] split by row over (data, fsdp); every process passes its own rows of the
    global batch, those of `rows_of_process`."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    total = len(jax.tree.leaves(batch)[0]) * parts // len(rows_of_process(mesh, parts))
    rows_of_process(mesh, total)

    def place(values) -> jax.Array:
        values = np.asarray(values)
        return jax.make_array_from_process_local_data(row_sharding(mesh), values, (total, *values.shape[1:]))

    return jax.tree.map(place, batch)


def from_whole(batch: Any, mesh: Mesh | None) -> Any:
    """Whole host arrays [B, ...], the same on every process, split by row over (data, fsdp); None: on one device."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, batch)
    sharding = row_sharding(mesh)
    return jax.tree.map(lambda v: jax.make_array_from_callback(v.shape, sharding, lambda index: v[index]), batch)


def fetched(tree: Any, mesh: Mesh | None) -> Any:
    """Whole host arrays from sharded ones, on every process. Collective: all processes must call it."""
    if mesh is not None:
        tree = jax.jit(lambda values: values, out_shardings=whole(mesh))(tree)
    return jax.tree.map(np.asarray, tree)
