"""A checksum of a tree of arrays, computed where they live: whole numbers, so the same for any sharding and process count."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}
_ODD = 0x9E3779B1


def checksum(leaves: Mapping[str, jax.Array]) -> int:
    """32 bits over all values and names; waits for the values.

    A sum modulo 2^32 of every value's bits times an odd weight of its place. Any single flipped bit changes it, and so
    do values that change places. Sums of whole numbers are exact in any order, hence on any mesh.
    """
    return int(np.asarray(_total({name: leaf for name, leaf in leaves.items() if leaf.size})))


@jax.jit
def _total(leaves: dict[str, jax.Array]) -> jax.Array:
    total = jnp.uint32(0)
    for name, leaf in leaves.items():
        salt = jnp.uint32(zlib.crc32(name.encode()) | 1)
        total += salt * jnp.sum(_bits(leaf) * _weights(leaf.shape), dtype=jnp.uint32)
    return total


def _bits(leaf: jax.Array) -> jax.Array:
    """uint32 of the same shape."""
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    narrow = _UNSIGNED.get(leaf.dtype.itemsize)
    if narrow is None:
        raise ValueError(f"a checkpoint cannot hold values of type {leaf.dtype}: use a type of at most 32 bits")
    return jax.lax.bitcast_convert_type(leaf, narrow).astype(jnp.uint32)


def _weights(shape: tuple[int, ...]) -> jax.Array:
    """uint32 odd weights by place, one iota an axis: each is made on the device that holds the values."""
    place, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        place += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2**32)
        stride *= shape[axis]
    mixed = (place ^ (place >> jnp.uint32(15))) * jnp.uint32(_ODD)
    return mixed | jnp.uint32(1)
