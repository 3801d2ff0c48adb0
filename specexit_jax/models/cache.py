"""The key/value cache: an explicit pytree that loops carry; it is rewound by setting its lengths."""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from specexit_jax.array_typing import CachedKeys, Lengths, Values, typed
from specexit_jax.backend import heads_apart, keys_like_values

# Positions that a cache should have beyond those that are read, if steps are of one token: XLA's CPU backend would fuse
# such a write into the read of the whole array and copy the cache three times a layer (1.6x slower steps at S = 768).
# Steps of several tokens read the whole array, which avoids the copy of a slice.
SPARE = 8


VALUE_AXIS = 2  # of positions, in one layer's values


def key_axis() -> int:
    """The axis of positions in one layer's keys, for the platform that is traced for."""
    return VALUE_AXIS if keys_like_values() else 3


@flax.struct.dataclass
class Cache:
    """Keys and values of every layer, and how many positions of each row are filled.

    One array a layer (not one stack) so that a `lax.while_loop` updates each in place; heads before positions, and keys
    with their positions last, so that both of attention's products are plain ones (1.4 to 1.9 times as fast at batch 1 on
    CPU as with keys like values). On GPUs keys lie like values (`backend.keys_like_values`). Positions beyond `length` hold
    stale values that are never attended to: `cache.replace(length=...)` discards a rejected draft.
    """

    k: tuple[jax.Array, ...]  # L of [B, K, H, S]; on GPUs [B, K, S, H]
    v: tuple[jax.Array, ...]  # L of [B, K, S, H]
    length: jax.Array  # int32 [B]

    @property
    def capacity(self) -> int:
        """S: the positions that each row has."""
        return self.v[0].shape[2]


def init_cache(num_layers: int, num_kv_heads: int, head_dim: int, batch: int, capacity: int, dtype="float32") -> Cache:
    """An empty cache of `capacity` positions a row."""
    shape = (batch, num_kv_heads, capacity, head_dim)
    other = shape if keys_like_values() else (batch, num_kv_heads, head_dim, capacity)
    keys = tuple(heads_apart(jnp.zeros(other, dtype)) for _ in range(num_layers))
    values = tuple(heads_apart(jnp.zeros(shape, dtype)) for _ in range(num_layers))
    return Cache(keys, values, jnp.zeros((batch,), jnp.int32))


def resize(cache: Cache, capacity: int) -> Cache:
    """The cache with `capacity` positions a row, grown or cut."""
    keys = tuple(with_positions(k, capacity, key_axis()) for k in cache.k)
    return cache.replace(k=keys, v=tuple(with_positions(v, capacity, VALUE_AXIS) for v in cache.v))


def with_positions(array: jax.Array, capacity: int, axis: int) -> jax.Array:
    """One array of a cache with `capacity` positions along `axis`, grown by zeros or cut."""
    more = capacity - array.shape[axis]
    if more == 0:
        return array
    if more < 0:
        return jax.lax.slice_in_dim(array, 0, capacity, axis=axis)
    return jnp.pad(array, [(0, more if number == axis else 0) for number in range(array.ndim)])


def live_of(array: jax.Array, live: int, axis: int) -> jax.Array:
    """The first `live` positions of one layer's keys or values."""
    return array if array.shape[axis] == live else jax.lax.slice_in_dim(array, 0, live, axis=axis)


def put_row(cache: Cache, one: Cache, row: jax.Array) -> Cache:
    """The cache with `one`, of one row and as many positions, in a row of it."""

    def placed(whole: jax.Array, own: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(whole, own, row, 0)

    keys, values = (
        tuple(heads_apart(placed(*pair)) for pair in zip(*parts, strict=True))
        for parts in ((cache.k, one.k), (cache.v, one.v))
    )
    return Cache(keys, values, placed(cache.length, one.length))


@typed
def write(
    kv: tuple[CachedKeys, Values], k: CachedKeys, v: Float[Array, "B K T H"], length: Lengths
) -> tuple[CachedKeys, Values]:
    """Put T keys and values at positions length[b] .. length[b] + T - 1 of each row; k and v lie as those of the cache do.

    The caller must leave room: XLA shifts a write that would pass the end back onto positions that hold committed tokens.
    """
    return put(kv[0], k, length, key_axis()), put(kv[1], v, length, VALUE_AXIS)


def put(array: jax.Array, new: jax.Array, start: jax.Array, axis: int) -> jax.Array:
    """One layer's keys or values, positions along `axis`, with T new ones at start[b] .. start[b] + T - 1 of each row."""
    new = new.astype(array.dtype)
    if array.shape[0] == 1:
        return heads_apart(jax.lax.dynamic_update_slice_in_dim(array, new, start[0], axis))
    return heads_apart(
        jax.vmap(lambda s, n, first: jax.lax.dynamic_update_slice_in_dim(s, n, first, axis - 1))(array, new, start)
    )
