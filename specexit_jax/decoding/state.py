"""What the decoding loop carries (DecodeState) and returns (DecodeResult), and how a row's slice of it is read or written."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.decoding.trees import Branches
from specexit_jax.models.cache import Cache


@flax.struct.dataclass
class DecodeState:
    """The carry of the loop: every row in its own state.

    Tokens 0..length-1 are final, their keys and values in the caches; `root`, already chosen, belongs at position
    `length`; `drafts` guess the positions after it. Whatever lies beyond in tokens and caches is dead weight.
    """

    tokens: Int[Array, "B S"]
    length: Int[Array, " B"]
    max_length: Int[Array, " B"]
    keys: Array  # [B] typed PRNG keys, one a request
    root: Int[Array, " B"]
    drafts: Int[Array, "B K"]
    branches: Branches | None  # how they hang together; None for a chain
    noise: Float[Array, "B T V"] | None  # of the positions after `length`; sampled drafts only, which share it
    proposal: Float[Array, "B M W"] | None  # q of the drafts after node 0 .. M - 1; rejection sampling only
    target_cache: Cache
    draft_cache: Cache | None
    root_signals: Float[Array, "B 3"] | None  # raw, of the root; placement 'draft' only, which knows them a step ahead
    policy_state: Any
    thinking: Bool[Array, " B"]
    done: Bool[Array, " B"]
    finished: Bool[Array, " B"]  # a stop token was written
    think_end: Int[Array, " B"]  # position of the first id of </think>; -1 while there is none
    exit_position: Int[Array, " B"]  # the same, where an exit forced it
    exit_signals: Float[Array, "B 3"]  # smoothed, at the boundary that the exit cut after
    steps: Int[Array, " B"]
    accept_histogram: Int[Array, "B T"]
    signals: Float[Array, "B S 3"] | None  # activated, of every generated token; record_signals only


@flax.struct.dataclass
class DecodeResult:
    """What decode() returns; positions are absolute (prompt included), -1 where there is none.

    accept_histogram[b, n] counts the verify steps that accepted n drafts; steps cut by an exit or by the length limit,
    and those that only write out a forced `</think>`, are left out. Tokens at and after `length` are 0.
    """

    tokens: Int[Array, "B S"]
    length: Int[Array, " B"]
    prompt_length: Int[Array, " B"]
    finished: Bool[Array, " B"]
    think_end: Int[Array, " B"]
    exit_position: Int[Array, " B"]
    exit_signals: Float[Array, "B 3"]
    steps: Int[Array, " B"]
    accept_histogram: Int[Array, "B T"]
    signals: Float[Array, "B S 3"] | None


def result_of(state: DecodeState, prompt_length: Int[Array, " B"], buffer_length: int) -> DecodeResult:
    """The finished state without its caches, cut to the buffer and cleared of dead weight."""
    tokens = state.tokens[:, :buffer_length]
    written = jnp.arange(buffer_length, dtype=jnp.int32)[None, :] < state.length[:, None]
    signals = state.signals
    if signals is not None:
        signals = jnp.where(written[:, :, None], signals[:, :buffer_length], jnp.float32(0))
    return DecodeResult(
        tokens=jnp.where(written, tokens, 0),
        length=state.length,
        prompt_length=prompt_length,
        finished=state.finished,
        think_end=state.think_end,
        exit_position=state.exit_position,
        exit_signals=state.exit_signals,
        steps=state.steps,
        accept_histogram=state.accept_histogram,
        signals=signals,
    )


def write_rows(buffer: Array, values: Array, start: Int[Array, " B"]) -> Array:
    """buffer [B, S, ...] with values [B, T, ...] written at start_b .. start_b + T - 1 of each row.

    One row: a dynamic update, which a loop does in place. Several: one fused select over the (small) buffer, where a
    batched dynamic update would become a scatter, and on a CPU a loop over the rows.
    """
    if buffer.shape[0] == 1:
        index = (jnp.int32(0), start[0]) + (jnp.int32(0),) * (buffer.ndim - 2)
        return jax.lax.dynamic_update_slice(buffer, values, index)
    rows, width = values.shape[:2]
    tail = (1,) * (buffer.ndim - 2)
    column = jnp.arange(buffer.shape[1], dtype=jnp.int32)[None, :] - start[:, None]
    for offset in range(width):
        here = (column == offset).reshape(rows, -1, *tail)
        buffer = jnp.where(here, values[:, offset : offset + 1], buffer)
    return buffer


def column(values: Array, index: Int[Array, " B"]) -> Array:
    """values[b, index_b] of every row: [B, T, ...] to [B, ...]; an index outside is clipped (rows that are done)."""
    picker = index.reshape((-1,) + (1,) * (values.ndim - 1))
    return jnp.take_along_axis(values, picker, axis=1, mode="clip")[:, 0]
