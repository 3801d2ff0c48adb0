"""The loop in segments, between which the host refills slots, streams text or continues a conversation.

The state stays on the device and is donated from call to call: caches are updated in place. What a row writes does not
depend on where segments end, on its slot, or on the other rows.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from specexit_jax.decoding.loop.prefill import absorb, empty_state, prefill, resized
from specexit_jax.decoding.loop.speculative import goes_on
from specexit_jax.decoding.loop.step import step
from specexit_jax.decoding.loop.trials import settled
from specexit_jax.decoding.spec import DecodeSpec, LoopContext
from specexit_jax.decoding.state import DecodeResult, DecodeState, result_of
from specexit_jax.models.cache import Cache, resize


@functools.partial(jax.jit, static_argnums=(1, 2))
def open_slots(loop: LoopContext, batch: int, live: int) -> DecodeState:
    """Empty slots, all of them done."""
    return empty_state(loop, batch, loop.spec.capacities_for(live))


resize_caches = jax.jit(resized, static_argnums=(0, 1))


@functools.partial(jax.jit, static_argnums=1, donate_argnums=2)
def segment(
    loop: LoopContext, live: int, state: DecodeState, steps: Int[Array, ""], enough: Int[Array, ""]
) -> tuple[DecodeState, Int[Array, ""]]:
    """Up to `steps` iterations, and how many they were; ends before where `enough` rows are done or the longest active
    row would outgrow the live prefix."""

    def continues(carry):
        state, count = carry
        return goes_on(loop.spec, live, state) & (count < steps) & (jnp.sum(state.done.astype(jnp.int32)) < enough)

    def one(carry):
        state, count = carry
        return step(loop, live, state), count + 1

    return jax.lax.while_loop(continues, one, (state, jnp.int32(0)))


@functools.partial(jax.jit, static_argnums=1)
def fresh_row(loop: LoopContext, room: int) -> DecodeState:
    """An empty state of one row whose caches have a capacity of `room`: enough for a prompt and a step after it."""
    return empty_state(loop, 1, (room, room))


@functools.partial(jax.jit, static_argnums=1)
def held_row(loop: LoopContext, room: int, state: DecodeState, row: Int[Array, ""]) -> DecodeState:
    """The same, with the tokens of slot `row` and the first `room` positions of its caches: for a prompt that goes on."""

    def cut(cache: Cache | None) -> Cache | None:
        return cache and jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, row, 1), resize(cache, room))

    tokens = jax.lax.dynamic_slice_in_dim(state.tokens, row, 1)
    fresh = empty_state(loop, 1, (0, 0))
    return fresh.replace(tokens=tokens, target_cache=cut(state.target_cache), draft_cache=cut(state.draft_cache))


# `prefill` and `absorb` on a row of its own, which is donated.
prefill_row = jax.jit(prefill, static_argnums=1, donate_argnums=2)
absorb_row = jax.jit(absorb, static_argnums=1, donate_argnums=2)


@functools.partial(jax.jit, donate_argnums=0)
def put_row(state: DecodeState, fresh: DecodeState, row: Int[Array, ""]) -> DecodeState:
    """The state with slot `row` replaced by a row that has been prefilled; caches as far as the row's go.

    A program of its own: in one with the prefill, the compiler copies the caches of all slots.
    """

    def put(leaf, new):
        return jax.lax.dynamic_update_slice(leaf, new, (row,) + (jnp.int32(0),) * (leaf.ndim - 1))

    return jax.tree.map(put, state, fresh)


@functools.partial(jax.jit, static_argnums=0)
def result_of_row(
    spec: DecodeSpec, state: DecodeState, row: Int[Array, ""], prompt_length: Int[Array, " 1"]
) -> DecodeResult:
    """What slot `row` holds, finished or not, as a result of one row; without an answer that may yet be taken back."""
    bare = settled(state).replace(target_cache=None, draft_cache=None, noise=None)
    one = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, row, 1), bare)
    return result_of(one, prompt_length, spec.buffer_length)
