"""The draft's share of an iteration: fuse features, read signals, run the layer over pairs, propose the next drafts.

A pair is (feature of token t, embedding of token t + 1) at RoPE position and cache slot t; it predicts token t + 2
(eagle3.md). After a step commits tokens up to length - 1 and chooses a new root, the pairs of the committed columns
predict the first draft after the root; the others come from K - 1 steps of the layer on its own output.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specexit_jax.decoding import verify
from specexit_jax.decoding.sampling import best_token, keyed_gumbel, perturbed_scores
from specexit_jax.decoding.state import DecodeSpec, DecodeState, Loop, column
from specexit_jax.models.cache import Cache
from specexit_jax.models.draft import Draft


@flax.struct.dataclass
class Pairs:
    """The draft layer's outputs over the columns of a step: pre-norm hidden, raw signals ('draft' placement), cache."""

    hidden: Float[Array, "B T E"]
    raw_signals: Float[Array, "B T 3"] | None
    cache: Cache


def fuse(loop: Loop, features: Float[Array, "B T A"]):
    """Fused features [B, T, E] and the raw signals [B, T, 3] of placement 'fc' (else None)."""
    return Draft(loop.spec.draft).apply({"params": loop.params.draft}, features, method="fuse")


def run_pairs(
    loop: Loop,
    cache: Cache,
    length: Int[Array, " B"],
    fused: Float[Array, "B T E"],
    following: Int[Array, "B T"],
    live: int | None,
) -> Pairs:
    """The layer over pairs (fused_t, following_t) at positions length .. length + T - 1, written to those slots."""
    out = _layer(loop.spec, loop.params, cache.replace(length=length), fused, following, live)
    return Pairs(out.hidden, out.raw_signals, out.cache)


def propose(
    loop: Loop, state: DecodeState, pairs: Pairs, last: Int[Array, " B"], live: int | None
) -> tuple[Int[Array, "B K"], Cache]:
    """K drafts for the positions after the root; `last` is the column of the last committed pair.

    A draft takes the noise of its position, as the target's sample will: two near distributions then nearly always
    choose the same token, where the draft's likeliest token meets a sampled one only as often as that is sampled.
    """
    spec, params = loop.spec, loop.params
    hidden = column(pairs.hidden, last)[:, None]
    cache = pairs.cache
    noise = None if state.noise is None else state.noise[:, : spec.draft_tokens, params.d2t]
    drafts = [_best(spec, params, hidden, noise, 0)]
    for step in range(spec.draft_tokens - 1):
        # The pair (token t, draft of t + 1) goes to slot t: a draft's keys are as provisional as the draft.
        out = _layer(spec, params, cache.replace(length=state.length + jnp.int32(step)), hidden, drafts[-1], live)
        hidden, cache = out.hidden, out.cache
        drafts.append(_best(spec, params, hidden, noise, step + 1))
    return jnp.concatenate(drafts, axis=1), cache


def take_drafts(loop: Loop, live: int | None, state: DecodeState, pairs: Pairs, last: Int[Array, " B"]) -> DecodeState:
    """The state with new drafts after its root, their noise, and (placement 'draft') the root's signals."""
    spec, cache, drafts = loop.spec, pairs.cache, state.drafts
    if spec.draft_tokens:
        state = state.replace(noise=_noise(spec, state))
        drafts, cache = propose(loop, state, pairs, last, live)
        ahead = state.length[:, None] + jnp.arange(1, spec.draft_tokens + 1, dtype=jnp.int32)[None, :]
        drafts = verify.force_end(drafts, ahead, state.exit_position, spec.end_think_ids)
    root_signals = column(pairs.raw_signals, last) if loop.late_signals else None
    return state.replace(drafts=drafts, draft_cache=cache, root_signals=root_signals)


def _layer(spec, params, cache, fused, following, live):
    embedded = params.draft_embedding[following].astype(fused.dtype)
    positions = cache.length[:, None] + jnp.arange(following.shape[1], dtype=jnp.int32)[None, :]
    return Draft(spec.draft).apply({"params": params.draft}, embedded, fused, positions, cache, live=live)


def _best(spec, params, hidden, noise, index):
    """The draft at `index`, a token of the draft's vocabulary as a target id [B, 1]."""
    logits = Draft(spec.draft).apply({"params": params.draft}, hidden, method="head")
    noise = None if noise is None else noise[:, index : index + 1]
    return params.d2t[best_token(perturbed_scores(logits, noise, spec.sampling))]


def _noise(spec: DecodeSpec, state: DecodeState) -> Float[Array, "B T V"] | None:
    """The noise of the T = K + 1 positions after the root, drawn once for the drafts and for the step that verifies them."""
    if spec.sampling.greedy:
        return None
    positions = state.length[:, None] + jnp.arange(1, spec.draft_tokens + 2, dtype=jnp.int32)[None, :]
    return jax.lax.optimization_barrier(keyed_gumbel(state.keys, positions, spec.target.vocab_size))
