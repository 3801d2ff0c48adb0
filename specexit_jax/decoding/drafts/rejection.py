"""Rejection sampling: the token after each node when the drafts were sampled from the draft's own distribution q.

The children x_1, x_2, ... of a node are drawn from q without replacement and tried in that order. x_i is accepted with
probability min(1, p(x_i) / q(x_i)). If it is rejected, p becomes max(p - q, 0), x_i is removed from q, and both are
normalised again. If no child is accepted, the token is sampled from p. (Leviathan et al., arXiv 2211.17192, for one child;
Jeon et al., arXiv 2402.14160, for several.)

The result is treated like the sample of position-keyed sampling: a draft is accepted if it equals the token after its
parent. A rejected draft never does, because the residual distribution is 0 there.

The random numbers are keyed by request, position and purpose. All nodes of a depth share them. That is sound because at most
one node of a depth is accepted.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.decoding import trees
from specexit_jax.decoding.filters import distribution_scores
from specexit_jax.decoding.sampling import ACCEPT, RESIDUAL, best_token, keyed_gumbel, keyed_uniform
from specexit_jax.decoding.spec import LoopContext
from specexit_jax.decoding.state import DecodeState


def sample(loop: LoopContext, state: DecodeState, logits: Float[Array, "B T V"]) -> Int[Array, "B T"]:
    """The token after each node: its first accepted child, or else a sample from the residual of the target's distribution.

    logits: of the target, of all nodes, the root first. Returns target ids [B, T].
    """
    spec = loop.spec
    children = spec.tree.siblings if spec.tree else 1
    topology = chain(state.drafts) if state.topology is None else state.topology
    depths = trees.node_depths(topology)
    ahead = state.length[:, None] + jnp.arange(1, spec.draft_tokens + 2, dtype=jnp.int32)[None, :]
    noise = keyed_gumbel(state.keys, ahead, logits.shape[-1], RESIDUAL)
    chances = keyed_uniform(state.keys, ahead, children, ACCEPT)
    noise, chances = (jnp.take_along_axis(values, depths[:, :, None], axis=1) for values in (noise, chances))
    p = jax.nn.softmax(distribution_scores(logits, state.sampling), axis=-1)
    q = full_vocabulary(state.proposal, loop.params.d2t, p.shape)
    found = jnp.zeros(p.shape[:2], bool)
    accepted = jnp.zeros(p.shape[:2], jnp.int32)
    for turn in range(children):
        child, exists = nth_child(topology, state.drafts, turn)
        at_p, at_q = (jnp.take_along_axis(law, child[:, :, None], axis=2)[:, :, 0] for law in (p, q))
        tried = exists & ~found & (at_q > 0)  # at_q is 0 where q has fewer tokens than children: not drawn
        taken = tried & (chances[:, :, turn] * at_q < at_p)
        accepted, found = jnp.where(taken, child, accepted), found | taken
        rejected = (tried & ~taken)[:, :, None]
        p, q = jnp.where(rejected, residual(p, q), p), jnp.where(rejected, without(q, child), q)
    return jnp.where(found, accepted, best_token(jnp.log(p) + noise))


def residual(p: Float[Array, "B T V"], q: Float[Array, "B T V"]) -> Float[Array, "B T V"]:
    """max(p - q, 0), normalised; p itself where that is 0 everywhere, which only rounding errors can cause."""
    left = jnp.maximum(p - q, 0)
    total = jnp.sum(left, axis=-1, keepdims=True)
    return jnp.where(total > 0, left / jnp.where(total > 0, total, 1), p)


def without(q: Float[Array, "B T V"], token: Int[Array, "B T"]) -> Float[Array, "B T V"]:
    """q without `token`, normalised; 0 everywhere where q had no other token."""
    ids = jnp.arange(q.shape[-1], dtype=jnp.int32)[None, None, :]
    left = jnp.where(ids == token[:, :, None], 0, q)
    total = jnp.sum(left, axis=-1, keepdims=True)
    return left / jnp.where(total > 0, total, 1)


def full_vocabulary(
    proposal: Float[Array, "B M W"], d2t: Int[Array, " W"], shape: tuple[int, int, int]
) -> Float[Array, "B T V"]:
    """q over the target's ids; 0 for ids outside the draft vocabulary, and for the nodes from M on, which have no children."""
    return jnp.zeros(shape, jnp.float32).at[:, : proposal.shape[1], d2t].set(proposal)


def chain(drafts: Int[Array, "B K"]) -> trees.Topology:
    """The topology of a chain: each node is the only child of the one before it."""
    parents = jnp.broadcast_to(jnp.arange(drafts.shape[1], dtype=jnp.int32)[None, :], drafts.shape)
    return trees.Topology(parents, parents + 1)


def nth_child(
    topology: trees.Topology, drafts: Int[Array, "B N"], turn: int
) -> tuple[Int[Array, "B T"], Bool[Array, "B T"]]:
    """(the token of every node's child number `turn`, whether there is one). Children count from 0, by node number."""
    parents = topology.parents
    elder = jnp.tril(parents[:, :, None] == parents[:, None, :], -1)
    rank = jnp.sum(elder.astype(jnp.int32), axis=2)
    nodes = jnp.arange(parents.shape[1] + 1, dtype=jnp.int32)
    born = (parents[:, None, :] == nodes[None, :, None]) & (rank == turn)[:, None, :]
    return jnp.sum(jnp.where(born, drafts[:, None, :], 0), axis=2), born.any(axis=2)
