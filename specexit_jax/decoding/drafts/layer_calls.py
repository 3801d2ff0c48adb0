"""The draft's layer and heads, as the loop calls them.

The input at RoPE position t and cache position t is a pair: the hidden of token t and the embedding of token t + 1. The
output predicts token t + 2 (docs/method.md §8).
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.backend import platform
from specexit_jax.decoding.spec import LoopContext
from specexit_jax.models.cache import Cache
from specexit_jax.models.config import DraftConfig
from specexit_jax.models.draft import draft_of
from specexit_jax.models.draft_layer import DraftOutput


@flax.struct.dataclass
class Pairs:
    """The draft layer's outputs over the T columns of a step.

    hidden: what the next step reads; raw_signals: only with signal placement 'draft'; cache: the draft's, T positions longer.
    """

    hidden: Float[Array, "B T E"]
    raw_signals: Float[Array, "B T S"] | None
    cache: Cache


def fuse(loop: LoopContext, features: Float[Array, "B T A"]):
    """Fused features [B, T, E] and the raw signals [B, T, S] of placement 'fc' (else None)."""
    return draft_of(loop.spec.draft).apply({"params": loop.params.draft}, features, method="fuse")


def head(loop: LoopContext, hidden: Float[Array, "B T E"]) -> Float[Array, "B T W"]:
    """Logits over the draft's vocabulary."""
    config = loop.spec.draft
    shared = None if config.own_head else loop.target_head
    return draft_of(config).apply({"params": loop.params.draft}, hidden, shared, method="head")


def run_pairs(
    loop: LoopContext,
    cache: Cache,
    length: Int[Array, " B"],
    fused: Float[Array, "B T E"],
    following: Int[Array, "B T"],
    live: int | None,
) -> Pairs:
    """The layer over the pairs (fused_t, following_t); their keys and values go to positions length .. length + T - 1."""
    out = layer(loop, cache.replace(length=length), fused, following, live)
    return Pairs(out.hidden, out.raw_signals, out.cache)


def chain_step(
    loop: LoopContext,
    cache: Cache,
    committed: Int[Array, " B"],
    step: int,
    hidden: Float[Array, "B 1 E"],
    token: Int[Array, "B 1"],
    live: int | None,
) -> DraftOutput:
    """Step number `step` (from 0) of the draft on its own output, after the `committed` pairs of each row.

    The input is the pair (hidden of the last step, embedding of the last draft). Its keys and values go to position
    committed + step. The next committed pairs overwrite them, whether or not the draft is accepted. A sliding window stays
    where the last committed pair has it, as in training-time test: the draft's own steps are visible in addition to it.
    """
    visible = None
    if loop.spec.draft.sliding_window:
        visible = jnp.ones((token.shape[0], 1, step + 1), bool)
    return layer(loop, cache.replace(length=committed + jnp.int32(step)), hidden, token, live, visible=visible)


def layer(
    loop: LoopContext,
    cache: Cache,
    hidden: Float[Array, "B T E"],
    following: Int[Array, "B T"],
    live: int | None,
    positions: Int[Array, "B T"] | None = None,
    visible: Bool[Array, "B T M"] | None = None,
) -> DraftOutput:
    """The layer over pairs whose keys and values go to cache positions cache.length .. cache.length + T - 1.

    positions: the RoPE positions; None: the cache positions. visible: see `models.layers.cached_bias`; None: causal.
    """
    embedded = loop.params.draft_embedding[following].astype(hidden.dtype)
    if positions is None:
        positions = cache.length[:, None] + jnp.arange(following.shape[1], dtype=jnp.int32)[None, :]
    return _layer(loop.spec.draft, platform(), live, loop.params.draft, embedded, hidden, positions, cache, visible)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), inline=True)
def _layer(
    config: DraftConfig, platform: str, live: int | None, params: dict, embedded, hidden, positions, cache, visible
):
    """Traced once for all steps of one shape; platform: what is traced for."""
    return draft_of(config).apply({"params": params}, embedded, hidden, positions, cache, live=live, visible=visible)
