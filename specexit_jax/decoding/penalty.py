"""The repetition penalty: tokens that occur before a position, in the prompt or after it, become less likely there.

The formula is that of transformers (Keskar et al., arXiv 1909.05858): positive logits are divided by the penalty and others
multiplied by it, before temperature and filters. A token still depends only on the tokens before it, its logits and its
noise, so sampling stays keyed by position. Where no row has a penalty, nothing is computed.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.decoding.sampling import SamplingRows, per_row


def penalised(
    logits: Float[Array, "B T V"], seen: Bool[Array, "B T V"] | Bool[Array, "B 1 V"], sampling: SamplingRows
) -> Float[Array, "B T V"]:
    """float32 logits with those of `seen` ids penalised; a row whose penalty is 1 does not change."""
    logits = logits.astype(jnp.float32)
    penalty, inverse = per_row(sampling.penalty, logits.ndim), per_row(sampling.inverse_penalty, logits.ndim)
    return jnp.where(seen, jnp.where(logits < 0, logits * penalty, logits * inverse), logits)


def penalised_if_any(
    logits: Float[Array, "B T V"], seen: Callable[[], Bool[Array, "B T V"]], sampling: SamplingRows
) -> Float[Array, "B T V"]:
    """`penalised`, where `seen` is a function that is only called if some row has a penalty."""
    none = functools.partial(jnp.zeros, logits.shape, bool)
    return penalised(logits, jax.lax.cond(jnp.any(sampling.penalised), seen, none), sampling)


def seen_before(tokens: Int[Array, "B L"], length: Int[Array, "B N"], vocabulary: int) -> Bool[Array, "B N V"]:
    """Which ids occur among the first `length` tokens of a row, for N lengths a row."""
    places = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, None, :]
    ids = jnp.where(places < length[:, :, None], tokens[:, None, :], vocabulary)
    return seen_along(jnp.zeros((*length.shape, vocabulary), bool), ids)


def seen_along(seen: Bool[Array, "B N V"], ids: Int[Array, "B N L"]) -> Bool[Array, "B N V"]:
    """`seen` with more ids marked: L for each of N sets. An id equal to the vocabulary's size marks nothing."""
    rows = jnp.arange(ids.shape[0], dtype=jnp.int32)[:, None, None]
    columns = jnp.arange(ids.shape[1], dtype=jnp.int32)[None, :, None]
    rows, columns = (jnp.broadcast_to(index, ids.shape) for index in (rows, columns))
    return seen.at[rows, columns, ids].set(True, mode="drop")


def seen_by_nodes(
    tokens: Int[Array, "B L"],
    length: Int[Array, " B"],
    nodes: Int[Array, "B T"],
    visible: Bool[Array, "B T T"],
    vocabulary: int,
) -> Bool[Array, "B T V"]:
    """Which ids occur before the token after each node: the committed tokens, the node's ancestors and the node itself.

    visible: [b, t, u] is true where node u is node t or one of its ancestors.
    """
    before = seen_before(tokens, length[:, None], vocabulary)
    ids = jnp.where(visible, nodes[:, None, :], vocabulary)
    return seen_along(jnp.broadcast_to(before, (*nodes.shape, vocabulary)), ids)
