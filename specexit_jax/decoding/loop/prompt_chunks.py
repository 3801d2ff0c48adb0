"""Prompts are read in chunks, up to the longest of them: a short prompt costs what it is long, and not what it is padded to."""

import functools

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specexit_jax.backend import on_cpu
from specexit_jax.decoding.drafts import layer_calls
from specexit_jax.decoding.spec import LoopContext
from specexit_jax.decoding.state import column
from specexit_jax.models.cache import Cache
from specexit_jax.models.target import Target

# Columns of a chunk. A CPU computes few of them as fast as its caches allow; an accelerator needs many to be busy.
ON_CPU, ELSEWHERE = 16, 512


@flax.struct.dataclass
class Read:
    """What is left of read prompts: both caches, and of each row's last token the target's hidden state and fused features.

    The last token's pair in the draft's cache is not valid: it needs the token after the prompt.
    """

    target_cache: Cache
    draft_cache: Cache | None
    hidden: Float[Array, "B D"]
    fused: Float[Array, "B E"] | None


def chunk_of(width: int) -> int:
    """The columns of a chunk for prompts padded to `width`."""
    return min(width, ON_CPU if on_cpu() else ELSEWHERE)


def read_prompts(
    loop: LoopContext,
    live: int,
    caches: tuple[Cache, Cache | None],
    prompts: Int[Array, "B P"],
    start: Int[Array, " B"],
    last: Int[Array, " B"],
) -> Read:
    """Runs target and draft over prompts at positions start .. start + P - 1, up to the chunk of the last token of all rows.

    caches: of target and draft. last: the column of each row's last token.
    """
    config, (batch, width) = loop.spec.target, prompts.shape
    size = chunk_of(width)
    target = functools.partial(Target(config).apply, {"params": loop.params.target})
    fused = jnp.zeros((batch, loop.spec.draft.hidden_size), config.dtype) if loop.runs_draft else None
    read = Read(*caches, jnp.zeros((batch, config.hidden_size), config.dtype), fused)
    after = jnp.concatenate([prompts[:, 1:], prompts[:, :1]], axis=1)

    def one(number: Int[Array, ""], read: Read) -> Read:
        first = jnp.minimum(number * size, jnp.int32(width - size))  # the last chunk may lie over the one before it
        cut = lambda values: jax.lax.dynamic_slice_in_dim(values, first, size, 1)  # noqa: E731
        begin = start + first
        positions = begin[:, None] + jnp.arange(size, dtype=jnp.int32)[None, :]
        out = target(cut(prompts), positions, read.target_cache.replace(length=begin), live=live, logits=False)
        within = (last >= first) & (last < first + size)
        keep = lambda values, old: jnp.where(within[:, None], column(values, last - first), old)  # noqa: E731
        read = read.replace(target_cache=out.cache, hidden=keep(out.hidden, read.hidden))
        if not loop.runs_draft:
            return read
        fused, _ = layer_calls.fuse(loop, out.features)
        pairs = layer_calls.run_pairs(loop, read.draft_cache, begin, fused, cut(after), live)
        return read.replace(draft_cache=pairs.cache, fused=keep(fused, read.fused))

    if size == width:
        return one(jnp.int32(0), read)
    chunks = jnp.max(last) // size + 1
    carried = jax.lax.while_loop(
        lambda carried: carried[0] < chunks,
        lambda carried: (carried[0] + 1, one(*carried)),
        (jnp.int32(0), read),
    )
    return carried[1]
