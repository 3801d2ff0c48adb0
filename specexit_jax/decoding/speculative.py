"""The decoding loop: verify, accept, decide, commit, draft, from prompt to final answer without leaving the device.

One loop serves every method (specexit.md section 4): `think` is 0 drafts and NeverExit, `probe` 0 drafts and a policy,
`eagle3` K drafts and NeverExit, `specexit` K drafts and a policy. Because sampling is keyed by position, all of them
write the same tokens up to the exit.

Attention reads only a static prefix of the caches: the loop runs for one live prefix after the other, each for as long
as the longest active row fits it.
"""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.backend import on_cpu
from specexit_jax.decoding import drafting, verify
from specexit_jax.decoding.prefill import prefill
from specexit_jax.decoding.sampling import best_token, keyed_sample, perturbed_scores
from specexit_jax.decoding.state import (
    DecodeParams,
    DecodeResult,
    DecodeSpec,
    DecodeState,
    Loop,
    column,
    result_of,
    write_rows,
)
from specexit_jax.exits.policy import NeverExit
from specexit_jax.exits.signals import activate
from specexit_jax.models.cache import Cache, grow
from specexit_jax.models.target import Target


@flax.struct.dataclass
class Verified:
    """One target pass over the candidates: column 0 is the root, columns 1..K its drafts."""

    candidates: Int[Array, "B T"]
    positions: Int[Array, "B T"]
    sampled: Int[Array, "B T"]  # the token of position + 1, whether or not the draft guessed it
    features: Float[Array, "B T A"]
    cache: Cache


@flax.struct.dataclass
class Accepted:
    """What of a step may be committed before the exit policy has spoken."""

    count: Int[Array, " B"]  # leading columns: root, equal drafts; cut after a stop token and at the length limit
    stopped: Bool[Array, " B"]  # the last of them is a stop token
    limited: Bool[Array, " B"]  # the limit cut them
    closing: Int[Array, " B"]  # column that completes the model's own </think>; T where there is none
    valid: Bool[Array, "B T"]  # columns that are still thinking


@flax.struct.dataclass
class Observed:
    """What the policy sees of a step, and the fused features that the draft will want again."""

    fused: Float[Array, "B T E"] | None
    signals: Float[Array, "B T 3"] | None
    boundary: Bool[Array, "B T"]
    draft_cache: Cache | None


@flax.struct.dataclass
class Decision:
    """Where the policy cuts: rows that exit, and the column of the last token they keep."""

    exits: Bool[Array, " B"]
    column: Int[Array, " B"]
    smoothed: Float[Array, "B T 3"]


@functools.partial(jax.jit, static_argnums=0)
def decode(
    spec: DecodeSpec,
    params: DecodeParams,
    prompts: Int[Array, "B P"],
    prompt_length: Int[Array, " B"],
    keys: Array,
    thinking: Bool[Array, " B"],
    max_length: Int[Array, " B"],
    policy: Any,
    boundaries: Any,
) -> DecodeResult:
    """Continues right-padded prompts until a stop token or max_length (tokens in all, prompt included) of each row.

    keys [B]: typed PRNG keys, one a request. thinking [B]: whether the prompt leaves `<think>` open. max_length above
    the buffer is cut to it; a row with max_length <= prompt_length generates nothing (padding rows of a batch).
    """
    if prompts.shape[1] > spec.buffer_length:
        raise ValueError(
            f"Prompts of {prompts.shape[1]} tokens do not fit the buffer of {spec.buffer_length}: enlarge it."
        )
    if policy.needs_signals and not spec.has_signals:
        raise ValueError("This exit policy reads signals, but there is no draft model with signal heads: give one.")
    if not spec.end_think_ids and not isinstance(policy, NeverExit):
        raise ValueError("An exit writes `</think>`, but end_think_ids is empty: give its token ids.")
    loop = Loop(spec, params, policy, boundaries, head_of(spec, params))
    state = prefill(loop, prompts, prompt_length, keys, thinking, max_length)
    for live in spec.prefixes_after(prompts.shape[1]):
        state = state.replace(target_cache=grow(state.target_cache, spec.target_slots(live)))
        state = jax.lax.while_loop(functools.partial(goes_on, spec, live), functools.partial(step, loop, live), state)
    return result_of(state, prompt_length, spec.buffer_length)


def head_of(spec: DecodeSpec, params: DecodeParams) -> Float[Array, "D V"] | None:
    """A tied embedding table transposed, for the products of several tokens on CPU: 3.6 times as fast at V = 1,536.

    The CPU backend would transpose the table in every step; other backends read either layout at one speed.
    """
    if not (spec.draft_tokens and spec.target.tie_embeddings and on_cpu()):
        return None
    return jax.lax.optimization_barrier(params.target["embed"]["embedding"].astype(spec.target.dtype).T)


def goes_on(spec: DecodeSpec, live: int, state: DecodeState) -> Bool[Array, ""]:
    """Whether some row is unfinished and a step of the longest such row stays within the live prefix."""
    longest = jnp.max(jnp.where(state.done, 0, state.length))
    return ~jnp.all(state.done) & (longest + spec.reach <= live)


def step(loop: Loop, live: int, state: DecodeState) -> DecodeState:
    """One iteration; rows that are done go through it unchanged."""
    verified = verify_candidates(loop, live, state)
    accepted = accept(loop.spec, state, verified)
    observed = observe(loop, live, state, verified)
    decision = decide(loop, state, verified, accepted, observed)
    state, window, count = commit(loop, state, verified, accepted, observed, decision)
    return draft(loop, live, state, observed, window, count)


def verify_candidates(loop: Loop, live: int, state: DecodeState) -> Verified:
    """The target over root and drafts, and the keyed sample of every position they lead to."""
    candidates = jnp.concatenate([state.root[:, None], state.drafts], axis=1)
    positions = state.length[:, None] + jnp.arange(candidates.shape[1], dtype=jnp.int32)[None, :]
    cache = state.target_cache.replace(length=state.length)
    target = functools.partial(Target(loop.spec.target).apply, {"params": loop.params.target})
    out = target(candidates, positions, cache, live=live, logits=loop.head is None)
    logits = out.logits
    if loop.head is not None:
        logits = jnp.einsum("btd,dv->btv", out.hidden, loop.head, preferred_element_type=jnp.float32)
    if state.noise is None:
        sampled = keyed_sample(logits, state.keys, positions + 1, loop.spec.sampling)
    else:
        sampled = best_token(perturbed_scores(logits, state.noise, loop.spec.sampling))
    sampled = verify.force_end(sampled, positions + 1, state.exit_position, loop.spec.end_think_ids)
    return Verified(candidates, positions, sampled, out.features, out.cache)


def accept(spec: DecodeSpec, state: DecodeState, verified: Verified) -> Accepted:
    """Drafts equal to the keyed sample, up to a stop token and the length limit; which of them are thinking."""
    candidates = verified.candidates
    columns = jnp.arange(candidates.shape[1], dtype=jnp.int32)[None, :]
    equal = 1 + verify.accept(state.drafts, verified.sampled)
    stop = verify.first_column(verify.is_any_of(candidates, spec.stop_ids) & (columns < equal[:, None]))
    unlimited = jnp.minimum(equal, stop + 1)
    room = state.max_length - state.length
    count = jnp.where(state.done, 0, jnp.minimum(unlimited, room))
    ends = verify.completes(candidates, tokens_before(state, len(spec.end_think_ids) - 1), spec.end_think_ids)
    closing = verify.first_column(ends & (columns < count[:, None]) & state.thinking[:, None])
    thinks = columns < jnp.minimum(jnp.minimum(count, stop), closing)[:, None]
    return Accepted(
        count=count,
        stopped=~state.done & (stop < count),
        limited=unlimited > room,
        closing=closing,
        valid=thinks & state.thinking[:, None],
    )


def observe(loop: Loop, live: int, state: DecodeState, verified: Verified) -> Observed:
    """Signals of the candidates where anyone reads them, and which candidates are boundaries."""
    fused, raw, cache = None, None, state.draft_cache
    if loop.reads_signals or loop.runs_draft:
        fused, raw = drafting.fuse(loop, verified.features)
    if loop.late_signals:
        # Pair (t, t + 1) tells the signals of token t + 1, so column 0's were read a step ago. These pairs still hold
        # the sampled tokens: after a decision the committed ones are run again over what was really written.
        pairs = drafting.run_pairs(loop, cache, state.length, fused, verified.sampled, live)
        raw = jnp.concatenate([state.root_signals[:, None], pairs.raw_signals[:, :-1]], axis=1)
        cache = pairs.cache
    return Observed(
        fused=fused,
        signals=activate(raw) if loop.reads_signals else None,
        boundary=boundary_mask(loop.boundaries, verified.candidates, verified.sampled),
        draft_cache=cache,
    )


def decide(loop: Loop, state: DecodeState, verified: Verified, accepted: Accepted, observed: Observed) -> Decision:
    """The first boundary of the accepted thinking tokens that the policy grants and that leaves room for </think>."""
    width = verified.candidates.shape[1]
    valid = accepted.valid & (verified.positions + 1 < state.max_length[:, None])
    closes = accepted.closing < width
    cut, smoothed = loop.policy.decide(
        state.policy_state, verified.candidates, observed.signals, observed.boundary, valid, closes
    )
    return Decision(exits=cut < width, column=cut, smoothed=smoothed)


def commit(
    loop: Loop, state: DecodeState, verified: Verified, accepted: Accepted, observed: Observed, decision: Decision
) -> tuple[DecodeState, Int[Array, "B U"], Int[Array, " B"]]:
    """Writes the kept tokens, chooses the next root and advances every row's bookkeeping.

    Also returns the written window [B, T + 1] (kept candidates, then the new root) and how many candidates were kept.
    """
    spec, active = loop.spec, ~state.done
    count = jnp.where(decision.exits, decision.column + 1, accepted.count)
    bonus = column(verified.sampled, count - 1)
    root = bonus
    if spec.end_think_ids:
        root = jnp.where(decision.exits, jnp.int32(spec.end_think_ids[0]), bonus)
    length = state.length + count
    window = window_of(verified.candidates, count, root)
    stops = active & ~accepted.stopped & verify.is_any_of(root, spec.stop_ids) & (length < state.max_length)
    finished = state.finished | accepted.stopped | stops
    closes = ~decision.exits & (accepted.closing < count)
    opening = state.length + accepted.closing - (len(spec.end_think_ids) - 1)
    think_end = jnp.where(decision.exits, length, jnp.where(closes, opening, state.think_end))
    signals = state.signals
    if spec.record_signals:
        signals = write_rows(signals, observed.signals, state.length)
    state = state.replace(
        tokens=write_rows(state.tokens, window, state.length),
        length=length + stops.astype(jnp.int32),
        root=root,
        target_cache=verified.cache,
        draft_cache=observed.draft_cache,
        policy_state=loop.policy.commit(
            state.policy_state, verified.candidates, observed.signals, observed.boundary, accepted.valid, count
        ),
        thinking=state.thinking & ~decision.exits & ~closes,
        done=state.done | finished | (length >= state.max_length),
        finished=finished,
        think_end=think_end,
        exit_position=jnp.where(decision.exits, length, state.exit_position),
        exit_signals=jnp.where(decision.exits[:, None], column(decision.smoothed, decision.column), state.exit_signals),
        steps=state.steps + active.astype(jnp.int32),
        accept_histogram=count_acceptance(spec, state, accepted, decision),
        signals=signals,
    )
    return state, window, count


def draft(
    loop: Loop, live: int, state: DecodeState, observed: Observed, window: Int[Array, "B U"], count: Int[Array, " B"]
) -> DecodeState:
    """The draft over the committed features and the tokens after them, then its own steps: the next drafts."""
    if not loop.runs_draft:
        return state
    start, last = state.length - count, count - 1
    pairs = drafting.run_pairs(loop, state.draft_cache, start, observed.fused, window[:, 1:], live)
    return drafting.take_drafts(loop, live, state, pairs, last)


def tokens_before(state: DecodeState, number: int) -> Int[Array, "B M"]:
    """The last `number` committed tokens of each row, -1 before the first."""
    index = state.length[:, None] + jnp.arange(-number, 0, dtype=jnp.int32)[None, :]
    return jnp.where(index >= 0, jnp.take_along_axis(state.tokens, index, axis=1, mode="clip"), -1)


def boundary_mask(boundaries: Any, tokens: Int[Array, "B T"], following: Int[Array, "B T"]) -> Bool[Array, "B T"]:
    """Which tokens end a step; `following` is the token after each, if the step keeps it."""
    return boundaries.mask(tokens, following) if hasattr(boundaries, "mask") else boundaries[tokens]


def window_of(candidates: Int[Array, "B T"], count: Int[Array, " B"], root: Int[Array, " B"]) -> Int[Array, "B U"]:
    """[B, T + 1]: the first `count` candidates, then the new root (repeated to the end as filler)."""
    columns = jnp.arange(candidates.shape[1], dtype=jnp.int32)[None, :]
    kept = jnp.where(columns < count[:, None], candidates, root[:, None])
    return jnp.concatenate([kept, root[:, None]], axis=1)


def count_acceptance(spec: DecodeSpec, state: DecodeState, accepted: Accepted, decision: Decision):
    """The histogram with this step's accepted drafts, of rows whose step neither an exit nor the limit cut short."""
    forcing = (state.exit_position >= 0) & (state.length < state.exit_position + len(spec.end_think_ids) - 1)
    counted = ~(state.done | decision.exits | accepted.limited | forcing)
    columns = jnp.arange(spec.draft_tokens + 1, dtype=jnp.int32)[None, :]
    hit = (columns == accepted.count[:, None] - 1) & counted[:, None]
    return state.accept_histogram + hit.astype(jnp.int32)
