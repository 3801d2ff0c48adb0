"""The repetition penalty: logits of tokens that stand before a position, in prompt or answer, are made less likely.

As transformers has it (Keskar et al., arXiv 1909.05858): a positive logit is divided by the penalty and another multiplied,
before temperature and filters. A position's token still depends on the tokens before it, its logits and its noise alone, so
sampling stays keyed by position. Nothing here is traced where the penalty is 1.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def penalised(
    logits: Float[Array, "B T V"], seen: Bool[Array, "B T V"] | Bool[Array, "B 1 V"], penalty: float
) -> Float[Array, "B T V"]:
    """float32 logits, those of `seen` tokens penalised."""
    logits = logits.astype(jnp.float32)
    return jnp.where(seen, jnp.where(logits < 0, logits * penalty, logits / penalty), logits)


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
