"""What the decoding loop carries (DecodeState) and returns (DecodeResult), and reads and writes at row-dependent places."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.decoding.rows import OwnRules
from specexit_jax.decoding.sampling import SamplingRows
from specexit_jax.decoding.trees import Topology
from specexit_jax.models.cache import Cache


@flax.struct.dataclass
class Trial:
    """The current trial of each row (see `trials`), and the cost of failed trials.

    root: the root that the exit discarded. log_probability: the sum over the `length` answer tokens so far, under the
    unfiltered softmax at temperature 1; `</think>` is not part of it.
    """

    start: Int[Array, " B"]  # position of `</think>`; -1 where there is no trial
    root: Int[Array, " B"]
    fused: Float[Array, "B E"] | None  # fused features of the boundary token; where a draft runs only
    log_probability: Float[Array, " B"]
    length: Int[Array, " B"]
    failed: Int[Array, " B"]  # number of failed trials
    failed_tokens: Int[Array, " B"]  # answer tokens of these


@flax.struct.dataclass
class TokenLogs:
    """Log-probabilities of the tokens at each position, and of the N most likely ones there (`loop.token_logs`)."""

    chosen: Float[Array, "B S"]
    best: Int[Array, "B S N"]
    best_logs: Float[Array, "B S N"]


@flax.struct.dataclass
class DecodeState:
    """The carry of the loop.

    Tokens 0 .. length - 1 are committed, and their keys and values are in the caches. `root` is the chosen token of position
    `length`. `drafts` are proposals for the positions after it. All other content of buffers and caches is stale and never
    read.
    """

    tokens: Int[Array, "B S"]
    length: Int[Array, " B"]
    max_length: Int[Array, " B"]
    keys: Array  # [B] typed PRNG keys, one a request
    sampling: SamplingRows
    root: Int[Array, " B"]
    drafts: Int[Array, "B K"]
    topology: Topology | None  # of the draft tree; None for a chain
    proposal: Float[Array, "B M W"] | None  # q of the children of nodes 0 .. M - 1; rejection sampling only
    target_cache: Cache
    draft_cache: Cache | None
    root_signals: Float[Array, "B N"] | None  # raw, of the root; late signals only
    root_readings: Float[Array, "B 3"] | None  # WRITTEN of the root; for policies that see readings
    policy_state: Any
    thinking: Bool[Array, " B"]
    may_exit: Bool[Array, " B"]  # rows whose exits are taken; others decode as if the policy granted none
    done: Bool[Array, " B"]
    finished: Bool[Array, " B"]  # a stop token was written
    think_end: Int[Array, " B"]  # position of the first id of </think>; -1 while there is none
    exit_position: Int[Array, " B"]  # the same for a </think> that an exit forced
    seen_signals: Float[Array, "B R"]  # smoothed, as the policy saw them at the last thinking token
    steps: Int[Array, " B"]
    accept_histogram: Int[Array, "B T"]
    signals: Float[Array, "B S N"] | None  # of every generated token; record_signals only
    trial: Trial | None  # policies with trials only
    own: OwnRules | None  # own_rules only
    logs: TokenLogs | None  # of every generated token; logprobs only


@flax.struct.dataclass
class DecodeResult:
    """The result of `decode`. Positions are absolute (prompt included), -1 where there is none.

    tokens: prompt and generated tokens, 0 from `length` on. exit_signals: the smoothed signals at the exit, 0 where there is
    none. accept_histogram[b, n]: the number of verify steps that accepted n drafts; steps cut by an exit or by the length
    limit, steps that write out a forced `</think>` and steps of trials are left out; `steps` counts all. trials, trial_tokens:
    the number of failed trials and of their answer tokens; None where the policy has no trials. spent: whether the row's own
    thinking budget wrote `</think>`; None without own rules.
    """

    tokens: Int[Array, "B S"]
    length: Int[Array, " B"]
    prompt_length: Int[Array, " B"]
    finished: Bool[Array, " B"]
    think_end: Int[Array, " B"]
    exit_position: Int[Array, " B"]
    exit_signals: Float[Array, "B R"]
    seen_signals: Float[Array, "B R"]  # smoothed, at the last thinking token, exit or not
    steps: Int[Array, " B"]
    accept_histogram: Int[Array, "B T"]
    signals: Float[Array, "B S N"] | None
    trials: Int[Array, " B"] | None
    trial_tokens: Int[Array, " B"] | None
    spent: Bool[Array, " B"] | None
    logs: TokenLogs | None  # where they are kept; stale outside the generated tokens


def result_of(state: DecodeState, prompt_length: Int[Array, " B"], buffer_length: int) -> DecodeResult:
    """The result of a state: without caches, cut to the buffer, with 0 from each row's length on."""
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
        spent=state.own.spent if state.own else None,
        logs=state.logs and jax.tree.map(lambda leaf: leaf[:, :buffer_length], state.logs),
    )


def write_rows(buffer: Array, values: Array, start: Int[Array, " B"]) -> Array:
    """buffer [B, S, ...] with values [B, T, ...] at start_b .. start_b + T - 1 of each row; within a loop updated in place."""
    one = jax.lax.dynamic_update_slice_in_dim
    if buffer.shape[0] == 1:
        return one(buffer, values, start[0], 1)
    return jax.vmap(lambda row, new, first: one(row, new, first, 0))(buffer, values, start)


def column(values: Array, index: Int[Array, " B"]) -> Array:
    """values[b, index_b] of every row: [B, T, ...] to [B, ...]. An index out of range is clipped; rows that are done have some."""
    picker = index.reshape((-1,) + (1,) * (values.ndim - 1))
    return jnp.take_along_axis(values, picker, axis=1, mode="clip")[:, 0]
