"""What the decoding loop carries (DecodeState) and returns (DecodeResult), and how a row's slice of it is read or written."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.decoding.sampling import SamplingRows
from specexit_jax.decoding.trees import Topology
from specexit_jax.models.cache import Cache


@flax.struct.dataclass
class Trial:
    """The exits on trial (see `trials`), and what the trials that failed have cost.

    root: the token that the exit discarded. log_probability: the sum over the `length` tokens answered so far, under the
    unfiltered softmax at temperature 1; `</think>` is not counted.
    """

    start: Int[Array, " B"]  # position of `</think>`; -1 where there is no trial
    root: Int[Array, " B"]
    fused: Float[Array, "B E"] | None  # of the boundary token; only where a draft runs
    log_probability: Float[Array, " B"]
    length: Int[Array, " B"]
    failed: Int[Array, " B"]  # trials
    failed_tokens: Int[Array, " B"]  # answered in them


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
    sampling: SamplingRows
    root: Int[Array, " B"]
    drafts: Int[Array, "B K"]
    topology: Topology | None  # how they hang together; None for a chain
    noise: Float[Array, "B T V"] | None  # of the positions after `length`; keyed drafts only, which share it
    proposal: Float[Array, "B M W"] | None  # q of the drafts after node 0 .. M - 1; rejection sampling only
    target_cache: Cache
    draft_cache: Cache | None
    root_signals: Float[Array, "B N"] | None  # raw, of the root; placement 'draft' only, which knows them a step ahead
    policy_state: Any
    thinking: Bool[Array, " B"]
    may_exit: Bool[Array, " B"]  # rows whose exits are taken; others decode as if the policy granted none
    done: Bool[Array, " B"]
    finished: Bool[Array, " B"]  # a stop token was written
    think_end: Int[Array, " B"]  # position of the first id of </think>; -1 while there is none
    exit_position: Int[Array, " B"]  # the same, where an exit forced it
    seen_signals: Float[Array, "B R"]  # what the policy saw at the last thinking token; stays after an exit
    steps: Int[Array, " B"]
    accept_histogram: Int[Array, "B T"]
    signals: Float[Array, "B S N"] | None  # activated, of every generated token; record_signals only
    trial: Trial | None  # policies that try only


@flax.struct.dataclass
class DecodeResult:
    """What decode() returns; positions are absolute (prompt included), -1 where there is none.

    accept_histogram[b, n] counts the verify steps that accepted n drafts; steps cut by an exit or by the length limit,
    those that only write out a forced `</think>` and those of trials are left out; `steps` counts them all. Tokens at and
    after `length` are 0. trials, trial_tokens: those that failed, and the tokens answered in them; None where the policy
    never tries.
    """

    tokens: Int[Array, "B S"]
    length: Int[Array, " B"]
    prompt_length: Int[Array, " B"]
    finished: Bool[Array, " B"]
    think_end: Int[Array, " B"]
    exit_position: Int[Array, " B"]
    exit_signals: Float[Array, "B R"]
    seen_signals: Float[Array, "B R"]  # what the policy saw last, exit or not
    steps: Int[Array, " B"]
    accept_histogram: Int[Array, "B T"]
    signals: Float[Array, "B S N"] | None
    trials: Int[Array, " B"] | None
    trial_tokens: Int[Array, " B"] | None


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
        exit_signals=jnp.where(state.exit_position[:, None] >= 0, state.seen_signals, jnp.float32(0)),
        seen_signals=state.seen_signals,
        steps=state.steps,
        accept_histogram=state.accept_histogram,
        signals=signals,
        trials=state.trial.failed if state.trial else None,
        trial_tokens=state.trial.failed_tokens if state.trial else None,
    )


def write_rows(buffer: Array, values: Array, start: Int[Array, " B"]) -> Array:
    """buffer [B, S, ...] with values [B, T, ...] written at start_b .. start_b + T - 1 of each row, in place in a loop."""
    one = jax.lax.dynamic_update_slice_in_dim
    if buffer.shape[0] == 1:
        return one(buffer, values, start[0], 1)
    return jax.vmap(lambda row, new, first: one(row, new, first, 0))(buffer, values, start)


def column(values: Array, index: Int[Array, " B"]) -> Array:
    """values[b, index_b] of every row: [B, T, ...] to [B, ...]; an index outside is clipped (rows that are done)."""
    picker = index.reshape((-1,) + (1,) * (values.ndim - 1))
    return jnp.take_along_axis(values, picker, axis=1, mode="clip")[:, 0]
