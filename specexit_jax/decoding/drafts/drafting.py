"""The draft model's part of an iteration: from the pairs of the committed tokens to the next drafts.

A step commits tokens up to position length - 1 and chooses a new root. The draft layer over the committed pairs predicts the
first draft after the root. Further steps of the layer, each on its own last output, predict the others.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specexit_jax.decoding import verify
from specexit_jax.decoding.drafts import layer_calls
from specexit_jax.decoding.drafts.layer_calls import Pairs
from specexit_jax.decoding.drafts.sampled_drafts import draw
from specexit_jax.decoding.drafts.tree_drafting import propose_tree
from specexit_jax.decoding.keyed import keyed_sample
from specexit_jax.decoding.spec import LoopContext
from specexit_jax.decoding.state import DecodeState, column
from specexit_jax.models.cache import Cache


def propose(
    loop: LoopContext, state: DecodeState, pairs: Pairs, last: Int[Array, " B"], live: int | None
) -> tuple[Int[Array, "B K"], Cache]:
    """A chain of K drafts for the positions after the root; `last` is the column of the last committed pair.

    A draft is the argmax of the draft's scores plus the noise of its position. The target adds the same noise when it
    samples that position, so similar distributions nearly always choose the same token. Without the noise, the draft's
    most likely token would be accepted only with the probability that the target samples it.
    """
    spec = loop.spec
    hidden = column(pairs.hidden, last)[:, None]
    cache = pairs.cache
    drafts = [_best(loop, state, hidden, 0)]
    for step in range(spec.draft_tokens - 1):
        out = layer_calls.chain_step(loop, cache, state.length, step, hidden, drafts[-1], live)
        hidden, cache = out.hidden, out.cache
        drafts.append(_best(loop, state, hidden, step + 1))
    return jnp.concatenate(drafts, axis=1), cache


def make_drafts(
    loop: LoopContext, live: int | None, state: DecodeState, pairs: Pairs, last: Int[Array, " B"]
) -> DecodeState:
    """The state with new drafts after its root and (signal placement 'draft') the root's raw signals."""
    spec, cache, drafts = loop.spec, pairs.cache, state.drafts
    if spec.draft_tokens:
        if spec.rejects:
            state, drafts, cache = draw(loop, state, pairs, last, live)
        elif spec.tree is None:
            drafts, cache = propose(loop, state, pairs, last, live)
        else:
            drafts, topology, cache = propose_tree(loop, state, pairs, last, live)
            state = state.replace(topology=topology)
        if spec.tree is None:
            depths = jnp.arange(1, spec.draft_tokens + 1, dtype=jnp.int32)[None, :]
        else:
            depths = state.topology.depths
        ahead = state.length[:, None] + depths
        drafts = verify.force_end(drafts, ahead, state.exit_position, spec.end_think_ids)
    root_signals = column(pairs.raw_signals, last) if loop.late_signals else None
    return state.replace(drafts=drafts, draft_cache=cache, root_signals=root_signals)


def _best(loop: LoopContext, state: DecodeState, hidden: Float[Array, "B 1 E"], index: int) -> Int[Array, "B 1"]:
    """The draft at `index` of the chain, as a target id."""
    logits, positions = layer_calls.head(loop, hidden), state.length[:, None] + jnp.int32(index + 1)
    vocabulary, names = loop.spec.target.vocab_size, loop.params.d2t
    return names[keyed_sample(logits, state.keys, positions, state.sampling, vocabulary, names)]
