"""The token of a position: the best of the kept scores plus the noise of that position.

Noise is drawn where it can decide. On a CPU, where a row keeps few tokens of a large vocabulary, only theirs is drawn; elsewhere
the noise of all ids is part of the kernel that looks for the best. The tokens are the same.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.backend import on_cpu
from specexit_jax.decoding import filters
from specexit_jax.decoding.edges import is_split
from specexit_jax.decoding.filters import least_kept, perturbed_scores, scaled
from specexit_jax.decoding.sampling import SamplingRows, best_token, keyed_gumbel, noise_for, per_row


def keyed_sample(
    logits: Float[Array, "B T W"],
    keys: Array,
    positions: Int[Array, "B T"],
    sampling: SamplingRows,
    vocabulary: int | None = None,
    ids: Int[Array, " W"] | None = None,
) -> Int[Array, "B T"]:
    """The column of the token of each position. positions: those of the sampled tokens, one after that of the logits' input.

    keys: [B] typed PRNG keys, one a request. ids: the target's id of every column, of a draft with a vocabulary of its own;
    None: the columns are ids. vocabulary: V, the number of the target's ids; None: W.
    """
    vocabulary = vocabulary or logits.shape[-1]

    def of_all() -> Int[Array, "B T"]:
        return best_token(perturbed_scores(logits, noise_for(keys, positions, vocabulary, sampling, ids), sampling))

    if not on_cpu() or logits.shape[-1] <= filters.SMALL or is_split(logits):
        return of_all()
    edge = least_kept(logits, sampling)
    return jax.lax.cond(
        few_kept(logits, edge, sampling),
        lambda: _of_few(logits, edge, keys, positions, sampling, vocabulary, ids),
        of_all,
    )


def few_kept(logits: Float[Array, "B T W"], edge: Float[Array, "B T 1"], sampling: SamplingRows) -> Bool[Array, ""]:
    """Whether some row is sampled, and every such row keeps at most RANKED tokens (ties with the least kept included)."""
    kept = jnp.sum((scaled(logits, sampling) >= edge).astype(jnp.int32), axis=-1)
    fits = (kept <= filters.RANKED) | ~per_row(sampling.sampled, kept.ndim)
    return jnp.all(fits) & jnp.any(sampling.sampled)


def _of_few(logits, edge, keys, positions, sampling: SamplingRows, vocabulary: int, ids) -> Int[Array, "B T"]:
    """The same from the RANKED best columns. Of equal sums the lowest column wins, as in `best_token`."""
    ranked, columns = jax.lax.top_k(scaled(logits, sampling), filters.RANKED)
    noise = keyed_gumbel(keys, positions, vocabulary, ids=columns if ids is None else ids[columns])
    sampled = per_row(sampling.sampled, noise.ndim)
    scores = jnp.where(sampled, jnp.where(ranked >= edge, ranked + noise, -jnp.inf), ranked)
    best = scores == jnp.max(scores, axis=-1, keepdims=True)
    return jnp.min(jnp.where(best, columns, jnp.int32(logits.shape[-1] - 1)), axis=-1)
