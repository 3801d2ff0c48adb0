"""The loop in segments, between which the host refills slots, streams text or continues a conversation.

The state stays on the device and every call donates it, so caches are updated in place. What a row writes does not depend on
where segments end, on its slot, or on the other rows.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.backend import heads_apart
from specexit_jax.decoding.loop.prefill import absorb, empty_state, prefill
from specexit_jax.decoding.loop.speculative import can_step
from specexit_jax.decoding.loop.step import step
from specexit_jax.decoding.loop.trials import settled
from specexit_jax.decoding.spec import DecodeSpec, LoopContext
from specexit_jax.decoding.state import DecodeResult, DecodeState, TokenLogs, result_of
from specexit_jax.models.cache import Cache, resize, with_positions


@functools.partial(jax.jit, static_argnums=(1, 2))
def open_slots(loop: LoopContext, batch: int, live: int) -> DecodeState:
    """A state of `batch` empty slots, all done, with caches for the live prefix `live`."""
    return empty_state(loop, batch, loop.spec.capacities_for(live))


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


@jax.jit
def end_row(done: Bool[Array, " B"], row: Int[Array, ""]) -> Bool[Array, " B"]:
    """`DecodeState.done` with slot `row` done."""
    return done | (jnp.arange(done.shape[0], dtype=jnp.int32) == row)


@flax.struct.dataclass
class Written:
    """What rows have written lately. tokens: the columns from a place on; those at or past a row's length are stale.

    logs: of these columns. think_end, exit_position, seen_signals, spent: as in `DecodeResult`.
    """

    tokens: Int[Array, "B W"]
    think_end: Int[Array, " B"]
    exit_position: Int[Array, " B"]
    seen_signals: Float[Array, "B R"]
    spent: Bool[Array, " B"] | None
    logs: TokenLogs | None


@functools.partial(jax.jit, static_argnums=(0, 1))
def written(spec: DecodeSpec, width: int, state: DecodeState, since: Int[Array, " B"]) -> Written:
    """`width` tokens of every row from position `since` on. state: without its caches. Not for policies with trials, whose tokens
    may be taken back."""
    places = jnp.minimum(since[:, None] + jnp.arange(width, dtype=jnp.int32)[None, :], spec.capacity - 1)
    spent = None if state.own is None else state.own.spent

    def taken(array: Array) -> Array:
        return jnp.take_along_axis(array, places.reshape(*places.shape, *(1,) * (array.ndim - 2)), axis=1)

    logs = state.logs and jax.tree.map(taken, state.logs)
    return Written(taken(state.tokens), state.think_end, state.exit_position, state.seen_signals, spent, logs)


@jax.jit
def take_row(state: DecodeState, row: Int[Array, ""]) -> DecodeState:
    """Slot `row` of a state, with its keys and values or without, as a state of one row."""
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, row, 1), state)


@functools.partial(jax.jit, static_argnums=(2, 3))
def cut_array(array: Array, row: Int[Array, ""], capacity: int, axis: int) -> Array:
    """Row `row` of one layer's keys or values, cut to `capacity` positions along `axis`."""
    return with_positions(jax.lax.dynamic_slice_in_dim(array, row, 1), capacity, axis)


@functools.partial(jax.jit, donate_argnums=0)
def put_array(array: Array, new: Array, row: Int[Array, ""]) -> Array:
    """One layer's keys or values with those of one row, which may be shorter, in row `row`."""
    return heads_apart(jax.lax.dynamic_update_slice(array, new, (row,) + (jnp.int32(0),) * (array.ndim - 1)))


@functools.partial(jax.jit, static_argnums=0)
def result_of_row(
    spec: DecodeSpec, state: DecodeState, row: Int[Array, ""], prompt_length: Int[Array, " 1"]
) -> DecodeResult:
    """The result of slot `row` so far, as a batch of one row. An answer on trial is left out. state: without its caches."""
    one = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, row, 1), settled(state))
    return result_of(one, prompt_length, spec.buffer_length)


@functools.partial(jax.jit, static_argnums=0)
def result_of_rows(spec: DecodeSpec, state: DecodeState, prompt_length: Int[Array, " B"]) -> DecodeResult:
    """The result of all rows, whose requests are finished."""
    return result_of(state, prompt_length, spec.buffer_length)
