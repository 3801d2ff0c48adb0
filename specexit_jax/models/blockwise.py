"""Attention of whole rows to themselves, block by block (flash attention in plain XLA): no [T, T] array is ever made.

An online softmax over the blocks of keys that a block of queries sees under causality and the sliding window. The
backward pass keeps only the output and the log-sum-exp, and computes the scores again. The log-sum-exp is an output
with a gradient of its own: the diagonal terms of training-time test are merged by it. jax.nn.dot_product_attention
drops that gradient, so merging with it silently gives wrong gradients of queries and keys (docs/method.md §9).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from specexit_jax.array_typing import Queries, Segments, Values, typed
from specexit_jax.models.layers import MASKED, own_scores

BLOCK = 512  # tokens of a block: 512 x 512 scores per head fit into the fast memory of TPUs
_PADDING = -1  # the segment id of the padding in the last block

Blocks = Float[Array, "N B K C H"]
QueryBlocks = Float[Array, "N B K G C H"]
SegmentBlocks = Int32[Array, "N B C"]


@typed
def attend_blockwise(
    q: Queries, k: Values, v: Values, segment_ids: Segments | None, window: int = 0, own: tuple = (), block: int = BLOCK
) -> Queries:
    """Equal to `layers.attend` under `causal_bias(segment_ids, T, window)`; keys are [B, K, T, H], like values.

    own: (key, value) pairs [B, K, T, H] that query t sees at t alone, whatever the window (`layers.own_scores`). Sums are
    float32.
    """
    tokens, size = q.shape[3:]
    q = q * jnp.asarray(size**-0.5, q.dtype)
    block = min(block, tokens)
    if segment_ids is None:
        segment_ids = jnp.zeros((q.shape[0], tokens), jnp.int32)
    out, lse = _attend(
        *(_blocks(x, block) for x in (q, k, v)), _blocks(segment_ids[..., None], block, _PADDING)[..., 0], window
    )
    out, lse = _row(out, tokens), _row(lse[..., None], tokens)
    if not own:
        return out
    scores = own_scores(q, own)
    top = jax.lax.stop_gradient(functools.reduce(jnp.maximum, scores, lse))
    total = jnp.exp(lse - top)
    mixed = total * out.astype(jnp.float32)
    for score, (_, value, *_) in zip(scores, own, strict=True):
        weight = jnp.exp(score - top)
        total = total + weight
        mixed = mixed + weight * value[:, :, None].astype(jnp.float32)
    return (mixed / total).astype(q.dtype)


def visible_pairs(count: int, block: int, window: int) -> np.ndarray:
    """int32 [P, 2]: pairs (block of queries, block of keys) with a visible key; for each block of queries its own block
    first."""
    pairs = []
    for i in range(count):
        first = max(i * block - window + 1, 0) // block if window else 0
        pairs += [(i, j) for j in range(i, first - 1, -1)]
    return np.asarray(pairs, np.int32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(
    q: QueryBlocks, k: Blocks, v: Blocks, segments: SegmentBlocks, window: int
) -> tuple[QueryBlocks, Float[Array, "N B K G C"]]:
    """Weighted values and the log-sum-exp of the scores, float32."""

    def visit(carry, pair):
        top, total, mixed = carry
        i, j = pair[0], pair[1]
        scores = _scores(q, k, segments, window, i, j)
        # The first pair of a query is its own block, where it sees itself: top is never MASKED after it.
        now = jnp.maximum(top[i], jnp.max(scores, axis=-1))
        weights, decay = jnp.exp(scores - now[..., None]), jnp.exp(top[i] - now)
        share = jnp.einsum("bkgts,bksh->bkgth", weights.astype(v.dtype), v[j], preferred_element_type=jnp.float32)
        total = total.at[i].set(total[i] * decay + jnp.sum(weights, axis=-1))
        mixed = mixed.at[i].set(mixed[i] * decay[..., None] + share)
        return (top.at[i].set(now), total, mixed), None

    empty = jnp.zeros(q.shape, jnp.float32)
    start = (jnp.full(q.shape[:-1], MASKED, jnp.float32), empty[..., 0], empty)
    (top, total, mixed), _ = jax.lax.scan(visit, start, visible_pairs(q.shape[0], q.shape[4], window))
    return (mixed / total[..., None]).astype(q.dtype), top + jnp.log(total)


def _forward(q, k, v, segments, window):
    out, lse = _attend(q, k, v, segments, window)
    return (out, lse), (q, k, v, segments, out, lse)


def _backward(window, kept, gradients):
    q, k, v, segments, out, lse = kept
    d_out, d_lse = gradients
    # Gradient of a score: weight x (output gradient . value - output gradient . output + gradient of the log-sum-exp).
    lost = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1) - d_lse

    def visit(carry, pair):
        dq, dk, dv = carry
        i, j = pair[0], pair[1]
        weights = jnp.exp(_scores(q, k, segments, window, i, j) - lse[i][..., None])
        product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
        dv = dv.at[j].add(product("bkgts,bkgth->bksh", weights.astype(q.dtype), d_out[i]))
        d_scores = weights * (product("bkgth,bksh->bkgts", d_out[i], v[j]) - lost[i][..., None])
        d_scores = d_scores.astype(q.dtype)
        dq = dq.at[i].add(product("bkgts,bksh->bkgth", d_scores, k[j]))
        dk = dk.at[j].add(product("bkgts,bkgth->bksh", d_scores, q[i]))
        return (dq, dk, dv), None

    start = tuple(jnp.zeros(x.shape, jnp.float32) for x in (q, k, v))
    found, _ = jax.lax.scan(visit, start, visible_pairs(q.shape[0], q.shape[4], window))
    return (*(x.astype(like.dtype) for x, like in zip(found, (q, k, v), strict=True)), None)


_attend.defvjp(_forward, _backward)


def _scores(q: QueryBlocks, k: Blocks, segments: SegmentBlocks, window: int, i, j) -> Float[Array, "B K G C C"]:
    """Scores of block i of queries over block j of keys; MASKED where a query does not see a key."""
    block = q.shape[4]
    offset = jnp.arange(block, dtype=jnp.int32)
    back = (i - j) * jnp.int32(block) + offset[:, None] - offset[None, :]  # distance from the query back to the key
    seen = (back >= 0) & (back < window) if window else back >= 0
    seen = seen[None] & (segments[i][:, :, None] == segments[j][:, None, :])
    scores = jnp.einsum("bkgth,bksh->bkgts", q[i], k[j], preferred_element_type=jnp.float32)
    return jnp.where(seen[:, None, None], scores, jnp.float32(MASKED))


def _blocks(x: Array, block: int, filling: int = 0) -> Array:
    """[..., T, H] as [N, ..., block, H], the last block padded."""
    *leading, tokens, size = x.shape
    count = -(-tokens // block)
    pad = [(0, 0)] * len(leading) + [(0, count * block - tokens), (0, 0)]
    x = jnp.pad(x, pad, constant_values=filling)
    return jnp.moveaxis(x.reshape(*leading, count, block, size), len(leading), 0)


def _row(x: Array, tokens: int) -> Array:
    """[N, ..., block, H] as [..., T, H]."""
    joined = jnp.moveaxis(x, 0, -3)
    return joined.reshape(*joined.shape[:-3], -1, x.shape[-1])[..., :tokens, :]
