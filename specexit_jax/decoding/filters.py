"""From logits to scores: temperature, top-k, top-p, min-p and noise, with each row's own settings.

The order (temperature, top_k, top_p, min_p) is that of transformers. Whether anything is filtered is a branch at run time: a
batch without filters does not pay for them, and new filter settings do not compile anew.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from specexit_jax.backend import on_cpu, platform
from specexit_jax.decoding.edges import edge_of, is_split
from specexit_jax.decoding.sampling import SamplingRows, best_token, per_row

# Of a large vocabulary a CPU sorts only so many scores, where a row's top_k is at most this; elsewhere, and for other rows, the
# least kept score is searched (`edges`).
RANKED = 128
SMALL = 8192  # up to this size a vocabulary is sorted whole: a second branch would cost more compilation than it saves


def filtered_scores(logits: Float[Array, "B ... V"], sampling: SamplingRows) -> Float[Array, "B ... V"]:
    """The float32 scores whose softmax is sampled: logits / temperature, -inf outside top_k, then top_p, then min_p.

    Tokens that tie with the least kept score are kept. Greedy rows get the plain logits.
    """
    scores = scaled(logits, sampling)
    return jnp.where(scores >= least_kept(logits, sampling), scores, -jnp.inf)


def perturbed_scores(
    logits: Float[Array, "B T V"], noise: Float[Array, "B T V"], sampling: SamplingRows
) -> Float[Array, "B T V"]:
    """The float32 scores whose argmax is the token: `filtered_scores` plus noise. Greedy rows get the plain logits.

    noise: of the positions of the sampled tokens, from `noise_for`; ignored for greedy rows.
    """
    noise = jnp.where(per_row(sampling.sampled, noise.ndim), noise, 0)
    return filtered_scores(logits, sampling) + noise


def distribution_scores(logits: Float[Array, "B ... V"], sampling: SamplingRows) -> Float[Array, "B ... V"]:
    """The scores whose softmax is the token's distribution: `filtered_scores`; for greedy rows -inf except at the best token."""
    scores = filtered_scores(logits, sampling)
    ids = jax.lax.broadcasted_iota(jnp.int32, scores.shape, scores.ndim - 1)
    others = ~per_row(sampling.sampled, scores.ndim) & (ids != best_token(scores)[..., None])
    return jnp.where(others, -jnp.inf, scores)


def least_kept(logits: Float[Array, "B ... V"], sampling: SamplingRows) -> Float[Array, "B ... 1"]:
    """The least score (logits / temperature) that the filters keep; -inf for rows without filters."""
    return _least_kept(platform(), logits, sampling)


@functools.partial(
    jax.jit, static_argnums=0
)  # traced once for each shape, although the loop calls it for every live prefix
def _least_kept(platform: str, logits: Float[Array, "B ... V"], sampling: SamplingRows) -> Float[Array, "B ... 1"]:
    """platform: what is traced for.

    The branches return only this number, and each scales the logits itself, so that no scores are copied where nothing is
    filtered.
    """
    vocabulary = logits.shape[-1]
    if is_split(logits) or (vocabulary > SMALL and not on_cpu()):
        top = functools.partial(_searched_edge, sampling)
    elif vocabulary > SMALL:
        top = functools.partial(_mixed_edge, sampling)
    else:
        top = functools.partial(_ranked_edge, sampling)

    def edge() -> Float[Array, "B ... 1"]:
        scores = scaled(logits, sampling)
        least = jnp.max(scores, axis=-1, keepdims=True) + per_row(sampling.log_min_p, scores.ndim)
        return jnp.maximum(top(scores), least)

    def none() -> Float[Array, "B ... 1"]:
        return jnp.full((*logits.shape[:-1], 1), -jnp.inf, jnp.float32)

    return jax.lax.cond(_filters(sampling).any(), edge, none)


def scaled(logits: Float[Array, "B ... V"], sampling: SamplingRows) -> Float[Array, "B ... V"]:
    """float32 logits / temperature; greedy rows as they are."""
    return logits.astype(jnp.float32) * per_row(sampling.inverse_temperature, logits.ndim)


def _filters(sampling: SamplingRows) -> Array:
    return _ranks(sampling) | (sampling.log_min_p > -jnp.inf)


def _ranks(sampling: SamplingRows) -> Array:
    return (sampling.top_k > 0) | (sampling.top_p < 1)


def _ranked_edge(sampling: SamplingRows, scores: Float[Array, "B ... V"]) -> Float[Array, "B ... 1"]:
    """The least score that top_k and top_p keep, from all scores in order; -inf for rows that have neither filter."""
    ranked, _ = jax.lax.top_k(scores, scores.shape[-1])
    return jnp.where(per_row(_ranks(sampling), scores.ndim), _edge_among(sampling, ranked), -jnp.inf)


def _mixed_edge(sampling: SamplingRows, scores: Float[Array, "B ... V"]) -> Float[Array, "B ... 1"]:
    """The same from the RANKED best scores; searched for rows that keep more.

    What a row keeps does not depend on other rows: sums in another order can round differently, and each row has its own way.
    """
    ranked, _ = jax.lax.top_k(scores, RANKED)
    top_k, top_p, ranks = (per_row(each, scores.ndim) for each in (sampling.top_k, sampling.top_p, _ranks(sampling)))
    few = (top_k > 0) & (top_k <= RANKED)
    best = jnp.max(scores, axis=-1, keepdims=True)  # a slice of `ranked` would make XLA sort all scores
    total = jnp.sum(jnp.exp(scores - best), axis=-1, keepdims=True)
    mass = jnp.cumsum(jnp.exp(ranked - best), axis=-1)
    wanted = top_p * total
    reached = jnp.sum((mass < wanted).astype(jnp.int32), axis=-1, keepdims=True)  # the place of the last kept score
    by_mass = jnp.take_along_axis(ranked, jnp.minimum(reached, RANKED - 1), axis=-1)
    edge = jnp.where(few, _edge_among(sampling, ranked), by_mass)
    enough = ~ranks | few | ((top_k == 0) & (reached < RANKED))
    edge = jax.lax.cond(enough.all(), lambda: edge, lambda: jnp.where(enough, edge, _searched_edge(sampling, scores)))
    return jnp.where(ranks, edge, -jnp.inf)


def _edge_among(sampling: SamplingRows, ranked: Float[Array, "B ... N"]) -> Float[Array, "B ... 1"]:
    """The least score that top_k and top_p keep, out of the N best scores in descending order."""
    number = ranked.shape[-1]
    top_k, top_p = (per_row(each, ranked.ndim) for each in (sampling.top_k, sampling.top_p))
    keep = jnp.where(top_k > 0, jnp.minimum(top_k, number), number)
    within = jnp.arange(number, dtype=jnp.int32).reshape((1,) * (ranked.ndim - 1) + (number,)) < keep
    probability = jax.nn.softmax(jnp.where(within, ranked, -jnp.inf), axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability
    # The probability before the best token is 0, so at least one token is kept.
    reached = jnp.sum((within & (before < top_p)).astype(jnp.int32), axis=-1, keepdims=True)
    kept = jnp.where(top_p < 1, reached, keep)
    return jnp.take_along_axis(ranked, jnp.broadcast_to(kept, (*ranked.shape[:-1], 1)) - 1, axis=-1)


def _searched_edge(sampling: SamplingRows, scores: Float[Array, "B ... V"]) -> Float[Array, "B ... 1"]:
    """The same without a sort (`edges`)."""
    top_k, top_p, ranks = (per_row(each, scores.ndim) for each in (sampling.top_k, sampling.top_p, _ranks(sampling)))
    return jnp.where(ranks, edge_of(scores, top_k, top_p), -jnp.inf)
