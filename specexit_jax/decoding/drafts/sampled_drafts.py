"""Drafts sampled from the draft's distribution q, for rejection sampling, which also needs q itself."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specexit_jax.decoding.drafts import layer_calls
from specexit_jax.decoding.drafts.layer_calls import Pairs
from specexit_jax.decoding.filters import distribution_scores
from specexit_jax.decoding.sampling import DRAFT, best_token, keyed_gumbel
from specexit_jax.decoding.spec import LoopContext
from specexit_jax.decoding.state import DecodeState, column
from specexit_jax.decoding.trees import Topology
from specexit_jax.models.cache import Cache


def draw(
    loop: LoopContext, state: DecodeState, pairs: Pairs, last: Int[Array, " B"], live: int | None
) -> tuple[DecodeState, Int[Array, "B N"], Cache]:
    """(the state with the q of the drafts and, for a tree, its topology; the drafts after the root; the draft's cache).

    last: the column of the last committed pair.
    """
    if loop.spec.tree is None:
        drafts, proposal, cache = draw_chain(loop, state, pairs, last, live)
        return state.replace(proposal=proposal), drafts, cache
    drafts, topology, proposal, cache = draw_tree(loop, state, pairs, last, live)
    return state.replace(proposal=proposal, topology=topology), drafts, cache


def draw_chain(
    loop: LoopContext, state: DecodeState, pairs: Pairs, last: Int[Array, " B"], live: int | None
) -> tuple[Int[Array, "B K"], Float[Array, "B K W"], Cache]:
    """A chain of K drafts and the q of each."""
    hidden, cache = column(pairs.hidden, last)[:, None], pairs.cache
    drafts, proposal = [], []
    for step in range(loop.spec.draft_tokens):
        if step:
            out = layer_calls.chain_step(loop, cache, state.length, step - 1, hidden, drafts[-1], live)
            hidden, cache = out.hidden, out.cache
        scores, noise = _scores(loop, state, hidden, step)
        drafts.append(loop.params.d2t[best_token(scores + noise)])
        proposal.append(jax.nn.softmax(scores, axis=-1))
    return jnp.concatenate(drafts, axis=1), jnp.concatenate(proposal, axis=1), cache


def draw_tree(
    loop: LoopContext, state: DecodeState, pairs: Pairs, last: Int[Array, " B"], live: int | None
) -> tuple[Int[Array, "B N"], Topology, Float[Array, "B M W"], Cache]:
    """A tree of N drafts, its topology, and the q of its first M nodes (all nodes but those of the last depth).

    Whether a draft is verified must not depend on its token. Otherwise the verified drafts are not a sample from q, and
    rejection sampling is biased: EAGLE-2, which verifies the most likely of all drawn nodes, cannot be used here. Instead
    each depth has a fixed number of nodes (`TreeShape.sizes`), and `children_per_node` decides how many children each
    parent gets before any of them is drawn.
    """
    tree, batch = loop.spec.tree, state.root.shape[0]
    hidden, cache = column(pairs.hidden, last)[:, None], pairs.cache
    worth, seen = jnp.zeros((batch, 1), jnp.float32), jnp.zeros((batch, 1, 0), bool)
    first, drafts, parents, proposal = 0, [], [], []  # first: the number of the first node of the depth before
    for depth, size in enumerate(tree.sizes):
        if depth:
            out = _expand(loop, state, cache, hidden, drafts[-1], seen, depth, live)
            hidden, cache = out.hidden, out.cache
        scores, noise = _scores(loop, state, hidden, depth)
        odds = jax.nn.log_softmax(scores, axis=-1)
        places = children_per_node(worth, odds, size, tree.top_k)
        owners = places // tree.top_k
        _, drawn = jax.lax.top_k(scores + noise, tree.top_k)  # without replacement, in the order of their draw
        gained = jnp.take_along_axis(odds, drawn, axis=2).reshape(batch, -1)
        proposal.append(jax.nn.softmax(scores, axis=-1))
        drafts.append(loop.params.d2t[_pick(drawn.reshape(batch, -1), places)])
        parents.append(jnp.int32(first) + owners)
        first += worth.shape[1]
        worth = _pick(worth, owners) + _pick(gained, places)
        hidden, seen = (_pick(values, owners[:, :, None]) for values in (hidden, seen))
        own = jnp.broadcast_to(jnp.eye(size, dtype=bool)[None], (batch, size, size))
        seen = jnp.concatenate([seen, own], axis=2)
    depths = [jnp.full((batch, size), depth + 1, jnp.int32) for depth, size in enumerate(tree.sizes)]
    topology = Topology(jnp.concatenate(parents, axis=1), jnp.concatenate(depths, axis=1))
    return jnp.concatenate(drafts, axis=1), topology, jnp.concatenate(proposal, axis=1), cache


def children_per_node(
    worth: Float[Array, "B n"], odds: Float[Array, "B n W"], size: int, top_k: int
) -> Int[Array, "B size"]:
    """Which children a depth gets, as ascending numbers: child j (from 0) of the parent with index i is i * top_k + j.

    worth: log-probability of each parent's path under the draft; odds: log q of each parent. A child counts as likely as
    its parent's path times the j-th largest value of q. This is known before anything is drawn. The children of a parent
    are always taken in order, because the j-th largest value falls with j.
    """
    largest, _ = jax.lax.top_k(odds, top_k)
    _, best = jax.lax.top_k((worth[:, :, None] + largest).reshape(worth.shape[0], -1), size)
    return jnp.sort(best, axis=1)


def _expand(
    loop: LoopContext, state: DecodeState, cache: Cache, hidden, drafts: Int[Array, "B n"], seen, depth: int, live
):
    """The draft layer over the nodes of a depth. Their keys and values follow those of the earlier depths in the cache; a
    node attends to the committed pairs and to its ancestors."""
    positions = jnp.broadcast_to((state.length + jnp.int32(depth - 1))[:, None], drafts.shape)
    start = state.length + jnp.int32(seen.shape[2] - drafts.shape[1])
    return layer_calls.layer(loop, cache.replace(length=start), hidden, drafts, live, positions, seen)


def _scores(loop: LoopContext, state: DecodeState, hidden: Float[Array, "B n E"], depth: int):
    """(the scores [B, n, W] whose softmax is q, the noise [B, 1, W] of the position that they predict)."""
    positions = state.length[:, None] + jnp.int32(depth + 1)
    scores = distribution_scores(layer_calls.head(loop, hidden), state.sampling)
    return scores, keyed_gumbel(state.keys, positions, scores.shape[-1], DRAFT)


def _pick(values: Array, index: Int[Array, "B n ..."]) -> Array:
    return jnp.take_along_axis(values, index, axis=1)
