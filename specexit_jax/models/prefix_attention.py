"""Attention of a prompt's chunk to a long cache, block by block: no array of T x S scores is made.

A loop over the blocks of positions that some row of the call sees, with an online softmax: the work is that of the tokens
read so far, and not of the cache's capacity. It has no gradient.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from specexit_jax.array_typing import CachedKeys, Queries, Values, typed
from specexit_jax.models.cache import VALUE_AXIS, key_axis
from specexit_jax.models.layers import MASKED, scores_of

BLOCK = 512  # positions
LONG = 2048  # a cache that is read up to more positions than this is read in blocks
CHUNK = 16  # the fewest tokens of a call that reads in blocks; a decoding step has fewer, or a mask of its own


@flax.struct.dataclass
class Reach:
    """The mask of such a call: token t of row b sees positions 0 .. length[b] + t, of these the last `window` (0: all)."""

    length: Int[Array, " B"]
    window: int = flax.struct.field(pytree_node=False)
    live: int = flax.struct.field(pytree_node=False)


def in_blocks(tokens: int, live: int) -> bool:
    """Whether a call of so many tokens over so many positions of a cache is computed here."""
    return tokens >= CHUNK and live > LONG


@typed
def attend_prefix(q: Queries, k: CachedKeys, v: Values, mask: Reach) -> Queries:
    """`layers.attend` over the first mask.live positions under the mask of `layers.cached_bias`. Sums are float32."""
    batch, heads, group, tokens, size = q.shape
    block, axis = min(BLOCK, mask.live), key_axis()
    rows = (q * jnp.asarray(size**-0.5, q.dtype)).reshape(batch, heads, group * tokens, size)
    last = mask.length[:, None] + jnp.arange(tokens, dtype=jnp.int32)[None, :]  # that each token sees
    inside = jnp.arange(block, dtype=jnp.int32)

    def visit(number, carry):
        top, total, mixed = carry
        begin = number * block
        first = jnp.minimum(begin, mask.live - block)  # the last block may lie over the one before it
        places = first + inside
        seen = (places[None, None, :] <= last[:, :, None]) & (places >= begin)[None, None, :]
        if mask.window:
            seen = seen & (places[None, None, :] > (last - mask.window)[:, :, None])
        keys = jax.lax.dynamic_slice_in_dim(k, first, block, axis)
        values = jax.lax.dynamic_slice_in_dim(v, first, block, VALUE_AXIS)
        scores = scores_of(rows, keys).reshape(batch, heads, group, tokens, block)
        scores = jnp.where(seen[:, None, None], scores, jnp.float32(MASKED))
        now = jnp.maximum(top, jnp.max(scores, axis=-1, keepdims=True))
        # What a token gathers before the first block in which it sees something decays to 0 there.
        weights, decay = jnp.exp(scores - now), jnp.exp(top - now)
        folded = weights.astype(v.dtype).reshape(batch, heads, group * tokens, block)
        share = jnp.einsum("bkts,bksh->bkth", folded, values, preferred_element_type=jnp.float32).reshape(mixed.shape)
        return now, total * decay + jnp.sum(weights, axis=-1, keepdims=True), mixed * decay + share

    empty = jnp.zeros(q.shape, jnp.float32)
    start = jnp.full_like(empty[..., :1], MASKED), empty[..., :1], empty
    furthest = jnp.minimum(jnp.max(mask.length) + jnp.int32(tokens), jnp.int32(mask.live))
    nearest = (
        jnp.maximum(jnp.min(mask.length) - jnp.int32(mask.window - 1), 0) // block if mask.window else jnp.int32(0)
    )
    _, total, mixed = jax.lax.fori_loop(nearest, (furthest + jnp.int32(block - 1)) // block, visit, start)
    return (mixed / total).astype(q.dtype)
