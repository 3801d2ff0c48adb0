"""Readings: what the target's own distributions say about a token that it wrote, and about what follows it (docs/score.md).

The verify pass computes these distributions anyway, so a reading costs no pass of a model. A reading depends on the text alone:
it is of the softmax at temperature 1, without filters and penalties.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# In nats. Of the distribution that the token was drawn from: -log p of the token, log p of the best token minus that of this
# one, entropy. Of the distribution after it: -log p of `</think>` (of its first id), entropy.
READINGS = ("surprisal", "gap", "entropy", "closing", "next_entropy")
WRITTEN, AHEAD = READINGS[:3], READINGS[3:]


def written_readings(logits: Float[Array, "B T V"], tokens: Int[Array, "B T"]) -> Float[Array, "B T 3"]:
    """The readings WRITTEN of tokens, each with the logits of its own position, in float32."""
    above, normaliser = _log_weights(logits)
    gap = -jnp.take_along_axis(above, tokens[..., None], axis=-1)[..., 0]
    return jnp.stack([gap + normaliser, gap, _entropy(above, normaliser)], axis=-1)


def readings_ahead(logits: Float[Array, "B T V"], end_think_ids: Sequence[int]) -> Float[Array, "B T 2"]:
    """The readings AHEAD of tokens, each with the logits of the next position, in float32.

    end_think_ids: the ids of `</think>`; () for a model that does not think, whose `closing` is 0.
    """
    above, normaliser = _log_weights(logits)
    closing = normaliser - above[..., end_think_ids[0]] if end_think_ids else jnp.zeros_like(normaliser)
    return jnp.stack([closing, _entropy(above, normaliser)], axis=-1)


def _log_weights(logits: Float[Array, "B T V"]) -> tuple[Float[Array, "B T V"], Float[Array, "B T"]]:
    """(log p minus the highest log p, minus the highest log p)"""
    logits = logits.astype(jnp.float32)
    above = logits - jnp.max(logits, axis=-1)[..., None]
    return above, jnp.log(jnp.sum(jnp.exp(above), axis=-1))


def _entropy(above: Float[Array, "B T V"], normaliser: Float[Array, "B T"]) -> Float[Array, "B T"]:
    weights = jnp.exp(above)
    return normaliser - jnp.sum(jnp.where(weights > 0, weights * above, 0.0), axis=-1) / jnp.exp(normaliser)
