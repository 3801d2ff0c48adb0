"""Readings: what the target's own distribution says about a token that it wrote (docs/score.md).

The verify pass computes this distribution anyway, so a reading costs no pass of a model. A reading depends on the text alone:
it is of the softmax at temperature 1, without filters and penalties.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

READINGS = (
    "surprisal",
    "gap",
    "entropy",
)  # in nats: -log p of the token; log p of the best token minus that of this one


def readings_of(logits: Float[Array, "B T V"], tokens: Int[Array, "B T"]) -> Float[Array, "B T 3"]:
    """The readings of tokens, each with the logits of its position: a column for each of READINGS, in float32."""
    logits = logits.astype(jnp.float32)
    highest = jnp.max(logits, axis=-1)
    above = logits - highest[..., None]
    weights = jnp.exp(above)
    total = jnp.sum(weights, axis=-1)
    normaliser = jnp.log(total)
    gap = -jnp.take_along_axis(above, tokens[..., None], axis=-1)[..., 0]
    entropy = normaliser - jnp.sum(jnp.where(weights > 0, weights * above, 0.0), axis=-1) / total
    return jnp.stack([gap + normaliser, gap, entropy], axis=-1)
