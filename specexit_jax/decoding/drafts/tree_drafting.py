"""A dynamic draft tree (EAGLE-2, arXiv 2406.16858): the most likely nodes of each depth are expanded, and of all drawn nodes
the most likely ones are verified.

A node's worth is the log-probability of its path under the draft: its own plus that of its ancestors. Where tokens are
sampled, probabilities are the softmax of the perturbed scores. All nodes of a depth share the noise of their position, and
the target will add the same noise, so the perturbed scores predict its sample better than the plain ones.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specexit_jax.decoding.drafts import layer_calls
from specexit_jax.decoding.filters import perturbed_scores
from specexit_jax.decoding.sampling import noise_for
from specexit_jax.decoding.spec import LoopContext
from specexit_jax.decoding.state import DecodeState, column
from specexit_jax.decoding.trees import Topology
from specexit_jax.models.cache import Cache


def propose_tree(
    loop: LoopContext, state: DecodeState, pairs: layer_calls.Pairs, last: Int[Array, " B"], live: int
) -> tuple[Int[Array, "B N"], Topology, Cache]:
    """(N drafts after the root, the topology of their tree, the draft's cache); last: the column of the last committed pair."""
    spec, shape = loop.spec, loop.spec.tree
    k, batch = shape.top_k, state.root.shape[0]
    hidden, cache = column(pairs.hidden, last)[:, None], pairs.cache
    tokens, worth = _children(loop, state, hidden, 0)
    tokens, worth = tokens[:, 0], worth[:, 0]
    drawn = [(tokens, worth, jnp.zeros_like(tokens), jnp.ones_like(tokens))]
    numbers = jnp.broadcast_to(jnp.arange(1, k + 1, dtype=jnp.int32)[None, :], (batch, k))
    hidden = jnp.broadcast_to(hidden, (batch, k, hidden.shape[-1]))
    own = jnp.broadcast_to(jnp.eye(k, dtype=bool)[None], (batch, k, k))
    seen = jnp.zeros((batch, k, 0), bool)
    for depth in range(1, shape.depth):
        seen = jnp.concatenate([seen, own], axis=2)
        start = state.length + jnp.int32((depth - 1) * k)
        positions = jnp.broadcast_to((state.length + jnp.int32(depth - 1))[:, None], (batch, k))
        out = layer_calls.layer(loop, cache.replace(length=start), hidden, tokens, live, positions, seen)
        cache = out.cache
        children, odds = _children(loop, state, out.hidden, depth)
        odds = (odds + worth[:, :, None]).reshape(batch, k * k)
        children = children.reshape(batch, k * k)
        parents = jnp.repeat(numbers, k, axis=1)
        drawn.append((children, odds, parents, jnp.full_like(parents, depth + 1)))
        worth, best = jax.lax.top_k(odds, k)
        numbers = jnp.int32(1 + k + (depth - 1) * k * k) + best
        tokens = jnp.take_along_axis(children, best, axis=1)
        hidden = jnp.take_along_axis(out.hidden, (best // k)[:, :, None], axis=1)
        seen = jnp.take_along_axis(seen, (best // k)[:, :, None], axis=1)
    return (*_kept(spec.tree.total, *(jnp.concatenate(parts, axis=1) for parts in zip(*drawn, strict=True))), cache)


def _children(loop: LoopContext, state: DecodeState, hidden: Float[Array, "B k E"], depth: int):
    """(the top_k most likely tokens [B, k, top_k] after each node of a depth as target ids, their log-probabilities)."""
    spec, params = loop.spec, loop.params
    logits = layer_calls.head(loop, hidden)
    positions = state.length[:, None] + jnp.int32(depth + 1)
    noise = noise_for(state.keys, positions, spec.target.vocab_size, state.sampling, params.d2t)
    scores = jax.nn.log_softmax(perturbed_scores(logits, noise, state.sampling), axis=-1)
    worth, best = jax.lax.top_k(scores, spec.tree.top_k)
    return params.d2t[best], worth


def _kept(total: int, tokens, worth, parents, depths) -> tuple[Int[Array, "B N"], Topology]:
    """The `total` most likely of the drawn nodes, in the order in which they were drawn, and their topology.

    The parent of a kept node is kept too: no node is more likely than its parent, and of equals the first drawn wins.
    """
    _, best = jax.lax.top_k(worth, total)
    best = jnp.sort(best, axis=1)
    tokens, parents, depths = (jnp.take_along_axis(values, best, axis=1) for values in (tokens, parents, depths))
    # The new number of a node is its rank among the kept; the root stays 0.
    numbers = jnp.sum((best[:, None, :] + 1 <= parents[:, :, None]).astype(jnp.int32), axis=2)
    return tokens, Topology(numbers, depths)
