"""Attention of few tokens over a cache that holds them already, in the form that the platform computes fastest."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from specexit_jax.array_typing import Bias, CachedKeys, Lengths, Queries, Values, typed
from specexit_jax.backend import keys_like_values
from specexit_jax.models.by_device import MOST_TOKENS
from specexit_jax.models.cache import VALUE_AXIS, key_axis, live_of
from specexit_jax.models.layers import attend, scores_of
from specexit_jax.models.ragged_attention import attend_ragged


@typed
def attend_cache(
    kernel: str, q: Queries, k: CachedKeys, v: Values, bias: Float32[Array, "B T R"], length: Lengths
) -> Queries:
    """T queries of each row over its keys and values, of which the first R positions, those of `bias`, are read.

    kernel: "xla" or "pallas", which is `ragged_attention` here, for up to MOST_TOKENS tokens (on a GPU `split_attention.in_split`
    is asked before). length: of each row, these tokens included.
    """
    tokens, live = bias.shape[-2:]
    if kernel == "pallas" and tokens <= MOST_TOKENS:
        return attend_ragged(q, k, v, bias, length)
    k, v = live_of(k, live, key_axis()), live_of(v, live, VALUE_AXIS)
    return attend_fused(q, k, v, bias) if keys_like_values() else attend(q, k, v, bias)


def attend_fused(q: Queries, k: Values, v: Values, bias: Bias) -> Queries:
    """`layers.attend` in three kernels of a GPU: scores, their softmax, which is one kernel with its rounding, and the mix.

    Scores lie in memory in between. There they have the type of the queries, as in the eager attention of transformers; the
    softmax is float32.
    """
    batch, heads, group, tokens, size = q.shape
    q = q * jnp.asarray(size**-0.5, q.dtype)
    scores = scores_of(q.reshape(batch, heads, group * tokens, size), k, q.dtype)
    scores = scores.astype(jnp.float32).reshape(batch, heads, group, tokens, -1) + bias[:, None, None]
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype).reshape(batch, heads, group * tokens, -1)
    mixed = jnp.einsum("bkts,bksh->bkth", weights, v, preferred_element_type=jnp.float32)
    return mixed.reshape(q.shape).astype(q.dtype)
