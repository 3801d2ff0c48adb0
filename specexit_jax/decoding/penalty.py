"""The repetition penalty: logits of tokens that stand before a position, in prompt or answer, are made less likely.

As transformers has it (Keskar et al., arXiv 1909.05858): a positive logit is divided by the penalty and another multiplied,
before temperature and filters. A position's token still depends on the tokens before it, its logits and its noise alone, so
sampling stays keyed by position. Where no row has a penalty, nothing here is computed.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.decoding.sampling import SamplingRows, along


def penalised(
    logits: Float[Array, "B T V"], seen: Bool[Array, "B T V"] | Bool[Array, "B 1 V"], sampling: SamplingRows
) -> Float[Array, "B T V"]:
    """float32 logits, those of `seen` tokens penalised; a penalty of 1 leaves a row as it is."""
    logits = logits.astype(jnp.float32)
    penalty, inverse = along(sampling.penalty, logits.ndim), along(sampling.inverse_penalty, logits.ndim)
    return jnp.where(seen, jnp.where(logits < 0, logits * penalty, logits * inverse), logits)


def penalised_where_asked(
    logits: Float[Array, "B T V"], seen: Callable[[], Bool[Array, "B T V"]], sampling: SamplingRows
) -> Float[Array, "B T V"]:
    """The same; `seen` is computed only where some row has a penalty."""
    none = functools.partial(jnp.zeros, logits.shape, bool)
    return penalised(logits, jax.lax.cond(jnp.any(sampling.penalised), seen, none), sampling)


def seen_before(tokens: Int[Array, "B L"], length: Int[Array, "B N"], vocabulary: int) -> Bool[Array, "B N V"]:
    """Which ids are among the first `length` tokens of a row."""
    places = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, None, :]
    ids = jnp.where(places < length[:, :, None], tokens[:, None, :], vocabulary)
    return seen_along(jnp.zeros((*length.shape, vocabulary), bool), ids)


def seen_along(seen: Bool[Array, "B N V"], ids: Int[Array, "B N L"]) -> Bool[Array, "B N V"]:
    """`seen`, and the ids given for each; one past the vocabulary stands for none."""
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
    """What stands before the token after each node: the committed tokens, and the node's ancestors with itself."""
    before = seen_before(tokens, length[:, None], vocabulary)
    ids = jnp.where(visible, nodes[:, None, :], vocabulary)
    return seen_along(jnp.broadcast_to(before, (*nodes.shape, vocabulary)), ids)
