"""Before the loop: empty buffers, the prompts in the caches, the first root and the first drafts."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from specexit_jax.decoding import drafting, verify
from specexit_jax.decoding.sampling import keyed_sample
from specexit_jax.decoding.state import DecodeState, Loop, column, write_rows
from specexit_jax.models.cache import SPARE, init_cache
from specexit_jax.models.target import Target, init_target_cache


def prefill(
    loop: Loop,
    prompts: Int[Array, "B P"],
    prompt_length: Int[Array, " B"],
    keys: Array,
    thinking: Bool[Array, " B"],
    max_length: Int[Array, " B"],
) -> DecodeState:
    """The prompts in the caches, the first token chosen as root, the first drafts made."""
    spec, params = loop.spec, loop.params
    batch, width = prompts.shape
    state = empty_state(loop, batch, width, prompt_length, keys, thinking, max_length)
    positions = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32)[None, :], (batch, width))
    target = functools.partial(Target(spec.target).apply, {"params": params.target})
    out = target(prompts, positions, state.target_cache, live=width, logits=False)
    last = prompt_length - 1
    logits = target(column(out.hidden, last)[:, None], method="head")
    root = keyed_sample(logits, keys, prompt_length[:, None], spec.sampling)[:, 0]
    stops = ~state.done & verify.is_any_of(root, spec.stop_ids)
    tokens = jax.lax.dynamic_update_slice(state.tokens, prompts, (0, 0))
    state = state.replace(
        tokens=write_rows(tokens, root[:, None], prompt_length),
        length=prompt_length + stops.astype(jnp.int32),
        root=root,
        target_cache=out.cache,
        done=state.done | stops,
        finished=stops,
    )
    if not loop.runs_draft:
        return state
    fused, _ = drafting.fuse(loop, out.features)
    following = jnp.concatenate([prompts[:, 1:], prompts[:, :1]], axis=1)
    following = jnp.where(positions == last[:, None], root[:, None], following)
    pairs = drafting.run_pairs(loop, state.draft_cache, jnp.zeros_like(last), fused, following, width)
    return drafting.take_drafts(loop, spec.prefixes_after(width)[0], state, pairs, last)


def empty_state(loop: Loop, batch: int, width: int, prompt_length, keys, thinking, max_length) -> DecodeState:
    """A state of empty buffers, whose rows are already done where they may generate nothing."""
    spec = loop.spec
    target_slots = spec.target_slots(spec.prefixes_after(width)[0])
    max_length = jnp.minimum(max_length, jnp.int32(spec.buffer_length))
    config = spec.draft
    draft_cache = None
    if loop.runs_draft:
        draft_cache = init_cache(1, config.num_kv_heads, config.head_dim, batch, spec.slots + SPARE, config.dtype)
    nowhere = jnp.full((batch,), -1, jnp.int32)
    return DecodeState(
        tokens=jnp.zeros((batch, spec.slots), jnp.int32),
        length=prompt_length,
        max_length=max_length,
        keys=keys,
        root=jnp.zeros((batch,), jnp.int32),
        drafts=jnp.zeros((batch, spec.draft_tokens), jnp.int32),
        noise=None,
        target_cache=init_target_cache(spec.target, batch, target_slots),
        draft_cache=draft_cache,
        root_signals=jnp.zeros((batch, 3), jnp.float32) if loop.late_signals else None,
        policy_state=loop.policy.init(batch),
        thinking=thinking,
        done=prompt_length >= max_length,
        finished=jnp.zeros((batch,), bool),
        think_end=nowhere,
        exit_position=nowhere,
        exit_signals=jnp.zeros((batch, 3), jnp.float32),
        steps=jnp.zeros((batch,), jnp.int32),
        accept_histogram=jnp.zeros((batch, spec.draft_tokens + 1), jnp.int32),
        signals=jnp.zeros((batch, spec.slots, 3), jnp.float32) if spec.record_signals else None,
    )
