"""The least score that top-k and top-p keep, found without sorting the vocabulary.

Sorting a large vocabulary takes 25 times as long as reading it, and one that is split over devices would gather all scores
[B, T, V] on every device in every step. Counts and sums need neither. The least kept score is found by a radix search over the
bits of the scores: eight rounds of four bits, each with one sum over the vocabulary for every value of the four bits; on a CPU
32 rounds of one bit, because there a round costs its sums, and elsewhere its launch or its exchange between devices.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from specexit_jax.backend import axes_apart, on_cpu

_BITS = 32
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
    edge_k = jax.lax.cond(
        jnp.any(few > 0),
        lambda: _least(order, lambda above: jnp.sum(above.astype(jnp.int32), axis=-1) < few[None]),
        lambda: jnp.zeros((*order.shape[:-1], 1), jnp.uint32),
    )
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

    enough: masks [C, ..., V] of C candidates to truth values [C, ...].
    """
    width = 1 if on_cpu() else 4
    rounds, last = _BITS // width, jnp.uint32(2**width - 1)
    digits = jnp.arange(2**width - 1, dtype=jnp.uint32).reshape(-1, *(1,) * order.ndim)

    def one(number: jax.Array, found: jax.Array) -> jax.Array:
        shift = jnp.uint32(width) * (jnp.uint32(rounds - 1) - jnp.uint32(number))
        tried = (found[None] & ~(last << shift)) | (digits << shift)  # the lower bits are all ones
        fails = jnp.sum(1 - enough(order[None] > tried).astype(jnp.uint32), axis=0, dtype=jnp.uint32)[..., None]
        return (found & ~(last << shift)) | (fails << shift)

    highest = jnp.full((*order.shape[:-1], 1), 2**32 - 1, jnp.uint32)
    return jax.lax.fori_loop(0, rounds, one, highest)


def _ordered(scores: Float[Array, "... V"]) -> UInt32[Array, "... V"]:
    """Unsigned integers that compare like the scores."""
    bits = jax.lax.bitcast_convert_type(scores.astype(jnp.float32) + 0.0, jnp.uint32)  # -0.0 becomes 0.0
    return jnp.where(bits >= _SIGN, ~bits, bits | _SIGN)


def _score(order: UInt32[Array, "..."]) -> Float[Array, "..."]:
    """The scores that `_ordered` maps to these integers."""
    bits = jnp.where(order >= _SIGN, order & ~_SIGN, ~order)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
