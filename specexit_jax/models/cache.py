"""The key/value cache: an explicit pytree that loops carry; it is rewound by setting its lengths."""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from specexit_jax.array_typing import Keys, Lengths, Values, typed
from specexit_jax.backend import heads_apart

# Positions that a cache should have beyond those that are read, if steps are of one token: XLA's CPU backend would fuse
# such a write into the read of the whole array and copy the cache three times a layer (1.6x slower steps at S = 768).
# Steps of several tokens read the whole array, which avoids the copy of a slice.
SPARE = 8


@flax.struct.dataclass
class Cache:
    """Keys and values of every layer, and how many positions of each row are filled.

    One array a layer (not one stack) so that a `lax.while_loop` updates each in place; heads before positions, and keys
    with their positions last, so that both of attention's products are plain ones (1.4 to 1.9 times as fast at batch 1 on
    CPU as with keys like values). Positions beyond `length` hold stale values that are never attended to:
    `cache.replace(length=...)` discards a rejected draft.
    """

    k: tuple[jax.Array, ...]  # L of [B, K, H, S]
    v: tuple[jax.Array, ...]  # L of [B, K, S, H]
    length: jax.Array  # int32 [B]

    @property
    def capacity(self) -> int:
        """S: the positions that each row has."""
        return self.v[0].shape[2]


def init_cache(num_layers: int, num_kv_heads: int, head_dim: int, batch: int, capacity: int, dtype="float32") -> Cache:
    """An empty cache of `capacity` positions a row."""
    keys = tuple(heads_apart(jnp.zeros((batch, num_kv_heads, head_dim, capacity), dtype)) for _ in range(num_layers))
    values = tuple(heads_apart(jnp.zeros((batch, num_kv_heads, capacity, head_dim), dtype)) for _ in range(num_layers))
    return Cache(keys, values, jnp.zeros((batch,), jnp.int32))


def resize(cache: Cache, capacity: int) -> Cache:
    """The cache with `capacity` positions a row, grown or cut."""
    more = capacity - cache.capacity
    if more == 0:
        return cache
    if more < 0:
        return cache.replace(k=tuple(k[..., :capacity] for k in cache.k), v=tuple(v[:, :, :capacity] for v in cache.v))
    keys = tuple(jnp.pad(k, ((0, 0), (0, 0), (0, 0), (0, more))) for k in cache.k)
    values = tuple(jnp.pad(v, ((0, 0), (0, 0), (0, more), (0, 0))) for v in cache.v)
    return cache.replace(k=keys, v=values)


@typed
def write(
    kv: tuple[Keys, Values], k: Float[Array, "B K H T"], v: Float[Array, "B K T H"], length: Lengths
) -> tuple[Keys, Values]:
    """Put T keys [B, K, H, T] and values [B, K, T, H] at positions length[b] .. length[b] + T - 1 of each row.

    The caller must leave room: XLA shifts a write that would pass the end back onto positions that hold committed tokens.
    """
    return put(kv[0], k, length, 3), put(kv[1], v, length, 2)


def put(array: jax.Array, new: jax.Array, start: jax.Array, axis: int) -> jax.Array:
    """One layer's keys (axis 3) or values (axis 2) with T new ones at positions start[b] .. start[b] + T - 1 of each row."""
    new = new.astype(array.dtype)
    if array.shape[0] == 1:
        return heads_apart(jax.lax.dynamic_update_slice_in_dim(array, new, start[0], axis))
    return heads_apart(
        jax.vmap(lambda s, n, first: jax.lax.dynamic_update_slice_in_dim(s, n, first, axis - 1))(array, new, start)
    )
