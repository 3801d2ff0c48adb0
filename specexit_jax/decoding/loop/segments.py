"""The loop in segments, between which the host refills slots, streams text or continues a conversation.

The state stays on the device and every call donates it, so caches are updated in place. What a row writes does not depend on
where segments end, on its slot, or on the other rows.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from specexit_jax.backend import heads_apart
from specexit_jax.decoding.loop.prefill import absorb, empty_state, prefill
from specexit_jax.decoding.loop.speculative import can_step
from specexit_jax.decoding.loop.step import step
from specexit_jax.decoding.loop.trials import settled
from specexit_jax.decoding.spec import DecodeSpec, LoopContext
from specexit_jax.decoding.state import DecodeResult, DecodeState, result_of
from specexit_jax.models.cache import Cache, resize, with_positions


@functools.partial(jax.jit, static_argnums=(1, 2))
def open_slots(loop: LoopContext, batch: int, live: int) -> DecodeState:
    """A state of `batch` empty slots, all done, with caches for the live prefix `live`."""
    return empty_state(loop, batch, loop.spec.capacities_for(live))


# One array of a cache, grown or cut.
resize_array = jax.jit(
    lambda array, capacity, axis: heads_apart(with_positions(array, capacity, axis)), static_argnums=(1, 2)
)


@functools.partial(jax.jit, static_argnums=1, donate_argnums=2)
def segment(
    loop: LoopContext, live: int, state: DecodeState, steps: Int[Array, ""], enough: Int[Array, ""]
) -> tuple[DecodeState, Int[Array, ""]]:
    """Runs up to `steps` iterations; returns the state and the number of iterations.

    It stops earlier when `enough` rows are done, or when a step of the longest active row would not fit the live prefix.
    """

    def continues(carry):
        state, count = carry
        return can_step(loop.spec, live, state) & (count < steps) & (jnp.sum(state.done.astype(jnp.int32)) < enough)

    def one(carry):
        state, count = carry
        return step(loop, live, state), count + 1

    return jax.lax.while_loop(continues, one, (state, jnp.int32(0)))


@functools.partial(jax.jit, static_argnums=1)
def fresh_row(loop: LoopContext, capacity: int) -> DecodeState:
    """An empty state of one row, for a prompt. capacity: of both caches."""
    return empty_state(loop, 1, (capacity, capacity))


@functools.partial(jax.jit, static_argnums=1)
def held_row(loop: LoopContext, capacity: int, state: DecodeState, row: Int[Array, ""]) -> DecodeState:
    """A state of one row with the tokens and caches of slot `row`, for a prompt that continues them. capacity: of both
    caches."""

    def cut(cache: Cache | None) -> Cache | None:
        return cache and jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, row, 1), resize(cache, capacity))

    tokens = jax.lax.dynamic_slice_in_dim(state.tokens, row, 1)
    fresh = empty_state(loop, 1, (0, 0))
    return fresh.replace(tokens=tokens, target_cache=cut(state.target_cache), draft_cache=cut(state.draft_cache))


# `prefill` on a state of one row or of a closed batch, and `absorb` on one of a single row; both are donated.
prefill_rows = jax.jit(prefill, static_argnums=1, donate_argnums=2)
absorb_row = jax.jit(absorb, static_argnums=1, donate_argnums=2)


@functools.partial(jax.jit, donate_argnums=0)
def put_row(state: DecodeState, fresh: DecodeState, row: Int[Array, ""]) -> DecodeState:
    """The state with slot `row` replaced by a prefilled row. The row's caches may be shorter than the state's.

    This is a program of its own: in one program with the prefill, the compiler would copy the caches of all slots.
    """

    def put(leaf, new):
        return jax.lax.dynamic_update_slice(leaf, new, (row,) + (jnp.int32(0),) * (leaf.ndim - 1))

    return jax.tree.map(put, state, fresh)


@functools.partial(jax.jit, static_argnums=0)
def result_of_row(
    spec: DecodeSpec, state: DecodeState, row: Int[Array, ""], prompt_length: Int[Array, " 1"]
) -> DecodeResult:
    """The result of slot `row` so far, as a batch of one row. An answer on trial is left out."""
    bare = settled(state).replace(target_cache=None, draft_cache=None)
    one = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, row, 1), bare)
    return result_of(one, prompt_length, spec.buffer_length)


@functools.partial(jax.jit, static_argnums=0)
def result_of_rows(spec: DecodeSpec, state: DecodeState, prompt_length: Int[Array, " B"]) -> DecodeResult:
    """The result of all rows, whose requests are finished."""
    return result_of(state, prompt_length, spec.buffer_length)
