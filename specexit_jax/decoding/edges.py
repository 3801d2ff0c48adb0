"""The least score that top-k and top-p keep, found without ranking the vocabulary.

A vocabulary that is split over devices cannot be ranked where it lies: every device would gather all of it, [B, T, V] a step.
Counts and sums of the parts can be added. The edge is found digit by digit in the scores' bits, four at a time: eight rounds,
each of one sum over the vocabulary for every digit.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from specexit_jax.backend import axes_apart

_DIGIT, _ROUNDS = 4, 8
_SIGN = np.uint32(1 << 31)


def is_split(scores: Float[Array, "... V"]) -> bool:
    """Whether the vocabulary lies on several devices of the mesh in force."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and mesh.shape["tensor"] > 1 and axes_apart(scores.shape[-1:], ("tensor",)) != (None,)


def edge_of(
    scores: Float[Array, "... V"], top_k: Int[Array, "... 1"], top_p: Float[Array, "... 1"]
) -> Float[Array, "... 1"]:
    """The least score among the top_k (0: all), and there in the smallest set of the likeliest that reaches top_p (1: all).

    As ranking would have it: exactly for top_k, up to the rounding of sums for top_p. Where neither filters, of no meaning.
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
    """The least number for which `enough` [15, ...] holds of the mask [15, ..., V] of what lies above; it holds of every
    greater one."""
    digits = jnp.arange(2**_DIGIT - 1, dtype=jnp.uint32)
    digits = digits.reshape(-1, *(1,) * order.ndim)

    def one(number: jax.Array, found: jax.Array) -> jax.Array:
        shift = jnp.uint32(_DIGIT) * (jnp.uint32(_ROUNDS - 1) - jnp.uint32(number))
        tried = (found[None] & ~(jnp.uint32(2**_DIGIT - 1) << shift)) | (digits << shift)  # what follows is all ones
        fails = jnp.sum(1 - enough(order[None] > tried).astype(jnp.uint32), axis=0, dtype=jnp.uint32)[..., None]
        return (found & ~(jnp.uint32(2**_DIGIT - 1) << shift)) | (fails << shift)

    highest = jnp.full((*order.shape[:-1], 1), 2**32 - 1, jnp.uint32)
    return jax.lax.fori_loop(0, _ROUNDS, one, highest)


def _ordered(scores: Float[Array, "... V"]) -> UInt32[Array, "... V"]:
    """Whole numbers in the order of the scores."""
    bits = jax.lax.bitcast_convert_type(scores.astype(jnp.float32) + 0.0, jnp.uint32)  # -0.0 becomes 0.0
    return jnp.where(bits >= _SIGN, ~bits, bits | _SIGN)


def _score(order: UInt32[Array, "..."]) -> Float[Array, "..."]:
    bits = jnp.where(order >= _SIGN, order & ~_SIGN, ~order)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
