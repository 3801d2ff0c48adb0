"""Gumbel noise for chosen ids: the numbers that `jax.random.gumbel` draws for a whole vocabulary, of these ids alone.

With partitionable keys the bits of an element are a function of the key and of the element's index (threefry2x32 of the index
as a counter: Salmon et al., SC 2011, doi:10.1145/2063384.2063405). So a few ids cost what they are, and not a vocabulary. The
rounds are written out: jax's own form is a loop on CPU, five times slower, and a library call on GPUs, which cannot be fused
with what reads the noise.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)  # of the key schedule
_ONE = np.uint32(0x3F800000)  # the bits of 1.0
_MANTISSA = 23
_TINY = np.finfo(np.float32).tiny


def gumbel_at(keys: UInt32[Array, "... 2"], ids: Int[Array, "... M"], vocabulary: int) -> Float[Array, "... M"]:
    """`jax.random.gumbel(key, (vocabulary,), mode="high")[ids]`, from the same bits, for every key; axes are broadcast.

    keys: their words (`jax.random.key_data` of typed threefry keys).
    """
    ids = ids.astype(jnp.uint32)
    high, low = (_uniform(_bits(keys, ids + jnp.uint32(half * vocabulary))) for half in (0, 1))
    x = jnp.where(high >= 0.5, high, high + jnp.float32(2.0**-_MANTISSA) * low + _TINY)
    return -jnp.log(-jnp.log1p(-x))


def _uniform(bits: UInt32[Array, "..."]) -> Float[Array, "..."]:
    """Uniform in [0, 1) from the upper 23 bits, as `jax.random.uniform`."""
    return jax.lax.bitcast_convert_type((bits >> jnp.uint32(32 - _MANTISSA)) | _ONE, jnp.float32) - jnp.float32(1)


def _bits(keys: UInt32[Array, "... 2"], low: UInt32[Array, "... M"]) -> UInt32[Array, "... M"]:
    """The 32 random bits of the elements with these indices (below 2^32)."""
    first, second = keys[..., 0][..., None], keys[..., 1][..., None]
    schedule = (first, second, first ^ second ^ _PARITY)
    x, y = jnp.zeros_like(low) + schedule[0], low + schedule[1]
    for group in range(5):
        for turn in _ROTATIONS[group % 2]:
            x = x + y
            y = ((y << jnp.uint32(turn)) | (y >> jnp.uint32(32 - turn))) ^ x
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return x ^ y
