"""A checksum of a tree of arrays, computed on their devices in integers, so equal for any sharding and process
count."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}
_ODD = 0x9E3779B1


def checksum(leaves: Mapping[str, jax.Array]) -> int:
    """32 bits over all values and names; blocks until the values are computed.

    The sum modulo 2^32 of a hash of each value's bits, its index and its leaf's name. Any single flipped bit changes
    it, including the sign of a zero and the payload of a NaN. Any other difference is missed with probability 2^-32,
    including values or whole leaves that change places. Integer sums are exact in any order, hence on any mesh.
    """
    return int(np.asarray(_total({name: leaf for name, leaf in leaves.items() if leaf.size})))


@jax.jit
def _total(leaves: dict[str, jax.Array]) -> jax.Array:
    total = jnp.uint32(0)
    for name, leaf in leaves.items():
        salt = jnp.uint32(zlib.crc32(name.encode()))
        total += jnp.sum(_mixed(_bits(leaf) ^ (_places(leaf.shape) + salt)), dtype=jnp.uint32)
    return total


def _bits(leaf: jax.Array) -> jax.Array:
    """uint32 of the same shape."""
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    narrow = _UNSIGNED.get(leaf.dtype.itemsize)
    if narrow is None:
        raise ValueError(f"a checkpoint cannot hold values of type {leaf.dtype}: use a type of at most 32 bits")
    return jax.lax.bitcast_convert_type(leaf, narrow).astype(jnp.uint32)


def _places(shape: tuple[int, ...]) -> jax.Array:
    """uint32 per element, a sum of one number per axis index: computed on the device that holds the values."""
    places = jnp.zeros(shape, jnp.uint32)
    for axis, size in enumerate(shape):
        numbers = _mixed(jnp.arange(size, dtype=jnp.uint32) + jnp.uint32((axis + 1) * _ODD % 2**32))
        places += jax.lax.broadcast_in_dim(numbers, shape, (axis,))
    return places


def _mixed(numbers: jax.Array) -> jax.Array:
    """A permutation of uint32 whose every bit depends on every bit: the finalizer of MurmurHash3 (Appleby, 2008)."""
    numbers = (numbers ^ (numbers >> jnp.uint32(16))) * jnp.uint32(0x85EBCA6B)
    numbers = (numbers ^ (numbers >> jnp.uint32(13))) * jnp.uint32(0xC2B2AE35)
    return numbers ^ (numbers >> jnp.uint32(16))
