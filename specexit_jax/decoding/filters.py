"""From logits to scores: temperature, top-k, top-p, min-p and noise, with each row's own settings.

The order (temperature, top_k, top_p, min_p) is that of transformers. Whether anything is filtered is a branch at run time: a
batch without filters does not pay for them, and new filter settings do not compile anew.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specexit_jax.decoding.edges import edge_of, is_split
from specexit_jax.decoding.sampling import SamplingRows, best_token, noise_for, per_row

RANKED = 128  # of a large vocabulary only so many scores are sorted, if every row's top_k is at most this; else all are
SMALL = 8192  # up to this size a vocabulary is always sorted whole: a second branch would cost more compilation than it saves


def filtered_scores(logits: Float[Array, "B ... V"], sampling: SamplingRows) -> Float[Array, "B ... V"]:
    """The float32 scores whose softmax is sampled: logits / temperature, -inf outside top_k, then top_p, then min_p.

    Tokens that tie with the least kept score are kept. Greedy rows get the plain logits.
    """
    scores = _scaled(logits, sampling)
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


def keyed_sample(
    logits: Float[Array, "B T V"], keys: Array, positions: Int[Array, "B T"], sampling: SamplingRows
) -> Int[Array, "B T"]:
    """The token of each position. positions: those of the sampled tokens, one after the position of the logits' input.

    keys: [B] typed PRNG keys, one a request. Returns ids [B, T].
    """
    noise = noise_for(keys, positions, logits.shape[-1], sampling)
    return best_token(perturbed_scores(logits, noise, sampling))


@jax.jit  # traced once for each shape, although the loop calls it for every live prefix
def least_kept(logits: Float[Array, "B ... V"], sampling: SamplingRows) -> Float[Array, "B ... 1"]:
    """The least score (logits / temperature) that the filters keep; -inf for rows without filters.

    The branches return only this number, and each scales the logits itself, so that no scores are copied where nothing is
    filtered.
    """
    vocabulary = logits.shape[-1]
    if is_split(logits):
        tops = (functools.partial(_split_edge, sampling),)
    else:
        numbers = (vocabulary,) if vocabulary <= SMALL else (RANKED, vocabulary)
        tops = tuple(functools.partial(_ranked_edge, sampling, number) for number in numbers)
    whole = ((sampling.top_k > RANKED) | ((sampling.top_k == 0) & (sampling.top_p < 1))).any()
    kind = jnp.where(_filters(sampling).any(), jnp.where(whole, len(tops), 1), 0).astype(jnp.int32)

    def edge(top) -> Float[Array, "B ... 1"]:
        scores = _scaled(logits, sampling)
        least = jnp.max(scores, axis=-1, keepdims=True) + per_row(sampling.log_min_p, scores.ndim)
        return jnp.maximum(top(scores), least)

    def none() -> Float[Array, "B ... 1"]:
        return jnp.full((*logits.shape[:-1], 1), -jnp.inf, jnp.float32)

    return jax.lax.switch(kind, (none, *(functools.partial(edge, top) for top in tops)))


def _scaled(logits: Float[Array, "B ... V"], sampling: SamplingRows) -> Float[Array, "B ... V"]:
    return logits.astype(jnp.float32) * per_row(sampling.inverse_temperature, logits.ndim)


def _filters(sampling: SamplingRows) -> Array:
    return _ranks(sampling) | (sampling.log_min_p > -jnp.inf)


def _ranks(sampling: SamplingRows) -> Array:
    return (sampling.top_k > 0) | (sampling.top_p < 1)


def _ranked_edge(sampling: SamplingRows, number: int, scores: Float[Array, "B ... V"]) -> Float[Array, "B ... 1"]:
    """The least score that top_k and top_p keep, from the `number` best scores; -inf for rows that have neither filter.

    A row that needs only RANKED scores uses only these, also where all scores are sorted because another row needs them: sums
    over a different number of scores can round differently, and what a row keeps must not depend on other rows.
    """
    top_k = per_row(sampling.top_k, scores.ndim)
    ranked, _ = jax.lax.top_k(scores, number)
    edge = _edge_among(sampling, ranked)
    if number > max(RANKED, SMALL):
        few = (top_k > 0) & (top_k <= RANKED)
        edge = jnp.where(few, _edge_among(sampling, ranked[..., :RANKED]), edge)
    return jnp.where(per_row(_ranks(sampling), scores.ndim), edge, -jnp.inf)


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


def _split_edge(sampling: SamplingRows, scores: Float[Array, "B ... V"]) -> Float[Array, "B ... 1"]:
    """The same for a vocabulary that is split over devices (`edges`)."""
    top_k, top_p, ranks = (per_row(each, scores.ndim) for each in (sampling.top_k, sampling.top_p, _ranks(sampling)))
    return jnp.where(ranks, edge_of(scores, top_k, top_p), -jnp.inf)
