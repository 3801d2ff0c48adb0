"""The least score that top-k and top-p keep, found without sorting the vocabulary.

Sorting a vocabulary that is split over devices would gather all scores [B, T, V] on every device in every step. Counts and
sums over the parts need no gathering. The least kept score is found by a radix search over the bits of the scores: eight
rounds of four bits, each with one sum over the vocabulary for every value of the four bits.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from specexit_jax.backend import axes_apart

_DIGIT, _ROUNDS = 4, 8
_SIGN = np.uint32(1 << 31)


def is_split(scores: Float[Array, "... V"]) -> bool:
    """Whether the vocabulary axis is split over devices of the current mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and mesh.shape["tensor"] > 1 and axes_apart(scores.shape[-1:], ("tensor",)) != (None,)


def edge_of(
    scores: Float[Array, "... V"], top_k: Int[Array, "... 1"], top_p: Float[Array, "... 1"]
) -> Float[Array, "... 1"]:
    """The least score that top_k (0: all) and then top_p (1: all) keep.

    top_p is the smallest set of the most likely tokens, out of those that top_k keeps, whose probability reaches it. The
    result equals that of sorting: exactly for top_k, up to the rounding of sums for top_p. It is meaningless for a row that
    has neither filter.
    """
    order, few, all_but = _ordered(scores), top_k[..., 0], top_p[..., 0]
    likely = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    edge_k = _least(order, lambda above: jnp.sum(above.astype(jnp.int32), axis=-1) < few[None])
    above = order > edge_k
    count, mass = jnp.sum(above.astype(jnp.int32), axis=-1), jnp.sum(jnp.where(above, likely, 0.0), axis=-1)
    at_edge = jnp.max(jnp.where(order == edge_k, likely, 0.0), axis=-1)
    total = jnp.where(few > 0, mass + (few - count).astype(jnp.float32) * at_edge, jnp.sum(likely, axis=-1))
    wanted = (all_but * total)[None]
    edge_p = _least(order, lambda above: jnp.sum(jnp.where(above, likely[None], 0.0), axis=-1) < wanted)
    zero = jnp.uint32(0)
    return _score(jnp.maximum(jnp.where(top_k > 0, edge_k, zero), jnp.where(top_p < 1, edge_p, zero)))


def _least(order: UInt32[Array, "... V"], enough) -> UInt32[Array, "... 1"]:
    """The least number n for which `enough` holds of the mask "order > n". It must hold for every greater n too.

    enough: masks [15, ..., V] of 15 candidates to truth values [15, ...].
    """
    digits = jnp.arange(2**_DIGIT - 1, dtype=jnp.uint32)
    digits = digits.reshape(-1, *(1,) * order.ndim)

    def one(number: jax.Array, found: jax.Array) -> jax.Array:
        shift = jnp.uint32(_DIGIT) * (jnp.uint32(_ROUNDS - 1) - jnp.uint32(number))
        tried = (found[None] & ~(jnp.uint32(2**_DIGIT - 1) << shift)) | (digits << shift)  # the lower bits are all ones
        fails = jnp.sum(1 - enough(order[None] > tried).astype(jnp.uint32), axis=0, dtype=jnp.uint32)[..., None]
        return (found & ~(jnp.uint32(2**_DIGIT - 1) << shift)) | (fails << shift)

    highest = jnp.full((*order.shape[:-1], 1), 2**32 - 1, jnp.uint32)
    return jax.lax.fori_loop(0, _ROUNDS, one, highest)


def _ordered(scores: Float[Array, "... V"]) -> UInt32[Array, "... V"]:
    """Unsigned integers that compare like the scores."""
    bits = jax.lax.bitcast_convert_type(scores.astype(jnp.float32) + 0.0, jnp.uint32)  # -0.0 becomes 0.0
    return jnp.where(bits >= _SIGN, ~bits, bits | _SIGN)


def _score(order: UInt32[Array, "..."]) -> Float[Array, "..."]:
    """The scores that `_ordered` maps to these integers."""
    bits = jnp.where(order >= _SIGN, order & ~_SIGN, ~order)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
