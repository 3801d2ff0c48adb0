"""Continuations that share one prefix: a prefix cache that is only read, and a short cache for each branch.

A call takes one token of each branch; the branches of a row take the place of its tokens. Their queries form the rows
of one product with the prefix, so the prefix is read once for all of them.
"""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specexit_jax.array_typing import Queries, Values
from specexit_jax.backend import heads_apart
from specexit_jax.models.cache import Cache, key_axis, live_of
from specexit_jax.models.layers import MASKED, reduce_last, scores_of


class BranchLayer(NamedTuple):
    """One layer of a `BranchCache`."""

    prefix_keys: jax.Array
    prefix_values: jax.Array
    keys: jax.Array
    values: jax.Array


@flax.struct.dataclass
class BranchCache:
    """Prefixes [B] with N branches each. A branch sees the first `start` positions of its row's prefix, then its own tokens.

    k, v: one array a layer of M positions, of which `used` are filled; keys with their positions last, as in `Cache`.
    """

    prefix: Cache
    k: tuple[jax.Array, ...]  # L of [B, K, N, H, M]
    v: tuple[jax.Array, ...]  # L of [B, K, N, M, H]
    start: Int[Array, "B N"]
    used: Int[Array, "B N"]

    @property
    def capacity(self) -> int:
        """M: the positions that each branch has of its own."""
        return self.v[0].shape[3]

    def biases(self, live: int) -> tuple[Float[Array, "B N S"], Float[Array, "B N M"]]:
        """Additive masks over `live` positions of the prefix and over the branches' own, the token of this call included."""
        prefix = jnp.arange(live, dtype=jnp.int32)[None, None, :] < self.start[:, :, None]
        own = jnp.arange(self.capacity, dtype=jnp.int32)[None, None, :] <= self.used[:, :, None]
        zero, masked = jnp.float32(0), jnp.float32(MASKED)
        return jnp.where(prefix, zero, masked), jnp.where(own, zero, masked)

    def layer(self, index: int):
        """The keys and values that the attention of one layer reads and writes."""
        return BranchLayer(self.prefix.k[index], self.prefix.v[index], self.k[index], self.v[index]), self.used

    def advanced(self, written: list) -> "BranchCache":
        """The cache after one more token of every branch."""
        keys, values = zip(*written, strict=True)
        return self.replace(k=tuple(keys), v=tuple(values), used=self.used + 1)


def branch_cache(prefix: Cache, branches: int, capacity: int) -> BranchCache:
    """Empty branches over a prefix, not yet placed at a boundary."""
    batch, heads, _, size = prefix.v[0].shape
    keys = tuple(heads_apart(jnp.zeros((batch, heads, branches, size, capacity), v.dtype)) for v in prefix.v)
    values = tuple(heads_apart(jnp.zeros((batch, heads, branches, capacity, size), v.dtype)) for v in prefix.v)
    nowhere = jnp.zeros((batch, branches), jnp.int32)
    return BranchCache(prefix, keys, values, nowhere, nowhere)


def resize_branches(cache: BranchCache, capacity: int) -> BranchCache:
    """The cache with `capacity` positions a branch, grown or cut."""
    more = capacity - cache.capacity
    if more < 0:
        keys, values = tuple(k[..., :capacity] for k in cache.k), tuple(v[:, :, :, :capacity] for v in cache.v)
    else:
        keys = tuple(jnp.pad(k, ((0, 0),) * 4 + ((0, more),)) for k in cache.k)
        values = tuple(jnp.pad(v, ((0, 0),) * 3 + ((0, more), (0, 0))) for v in cache.v)
    return cache.replace(k=keys, v=values)


def attend_branches(
    q: Queries, k: Values, v: Values, kv: BranchLayer, used: Int[Array, "B N"], biases: tuple
) -> tuple[Queries, tuple[jax.Array, jax.Array]]:
    """One token of each branch, T of q, k and v being N: its attention to prefix and own tokens in one softmax.

    k, v: of this call's tokens. Returns the attention's output, and the branches' own keys and values with k and v written.
    """
    prefix_keys, prefix_values, own_keys, own_values = kv
    prefix_bias, own_bias = biases
    batch, heads, group, branches, size = q.shape
    live = prefix_bias.shape[-1]
    # Written with `where`: one pass over positions that are read anyway. A scatter would be a loop on CPU.
    here = jnp.arange(own_bias.shape[-1], dtype=jnp.int32)[None, None, :] == used[:, :, None]
    fresh = k[..., None].astype(own_keys.dtype)
    own_keys = heads_apart(jnp.where(here[:, None, :, None, :], fresh, own_keys))
    fresh = v[:, :, :, None, :].astype(own_values.dtype)
    own_values = heads_apart(jnp.where(here[:, None, :, :, None], fresh, own_values))
    q = q * jnp.asarray(size**-0.5, q.dtype)
    folded = q.reshape(batch, heads, group * branches, size)
    shared = scores_of(folded, live_of(prefix_keys, live, key_axis())).reshape(batch, heads, group, branches, live)
    shared = shared + prefix_bias[:, None, None]
    own = jnp.einsum("bkgnh,bknhm->bkgnm", q, own_keys, preferred_element_type=jnp.float32) + own_bias[:, None, None]
    top = jnp.maximum(reduce_last("max", shared), reduce_last("max", own))
    shared, own = jnp.exp(shared - top), jnp.exp(own - top)
    total = reduce_last("sum", shared) + reduce_last("sum", own)
    weights = shared.astype(v.dtype).reshape(batch, heads, group * branches, live)
    mixed = jnp.einsum(
        "bkts,bksh->bkth", weights, prefix_values[:, :, :live], preferred_element_type=jnp.float32
    ).reshape(q.shape)
    mixed = mixed + jnp.einsum(
        "bkgnm,bknmh->bkgnh", own.astype(v.dtype), own_values, preferred_element_type=jnp.float32
    )
    return (mixed / total).astype(q.dtype), (own_keys, own_values)
