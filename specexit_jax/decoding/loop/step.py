"""One iteration of the loop: verify, accept, decide, commit, draft. No row depends on another."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.decoding import verify
from specexit_jax.decoding.drafts import drafting, layer_calls
from specexit_jax.decoding.drafts.layer_calls import Pairs
from specexit_jax.decoding.loop import closing, trials
from specexit_jax.decoding.loop.candidates import Verified, verify_candidates
from specexit_jax.decoding.loop.token_logs import with_logs
from specexit_jax.decoding.spec import DecodeSpec, LoopContext
from specexit_jax.decoding.state import DecodeState, column, write_rows
from specexit_jax.exits.readings import READINGS
from specexit_jax.exits.signals import activate, columns_of
from specexit_jax.models.cache import Cache


@flax.struct.dataclass
class Accepted:
    """What a step may commit if the policy does not exit."""

    count: Int[Array, " B"]  # leading columns: the root and accepted drafts, up to a stop token and the length limit
    stopped: Bool[Array, " B"]  # the last of these columns is a stop token
    limited: Bool[Array, " B"]  # the length limit cut these columns
    closing: Int[Array, " B"]  # the column that completes the model's own </think>, or T
    closing_ids: Int[Array, " B"]  # the number of ids of that </think>
    valid: Bool[Array, "B T"]  # accepted thinking tokens


@flax.struct.dataclass
class Observed:
    """What the policy sees of a step, and what `draft` reuses.

    fused: the draft's fused features. signals: activated, in the order of the draft's signals. readings: of the candidates.
    boundary: which candidates are
    boundaries. pairs: the draft layer over the pairs of the `sampled` tokens, where it has run already (late signals).
    """

    fused: Float[Array, "B T E"] | None
    signals: Float[Array, "B T S"] | None
    readings: Float[Array, "B T 5"] | None
    boundary: Bool[Array, "B T"]
    sampled: Int[Array, "B T"]
    pairs: Pairs | None


@flax.struct.dataclass
class ExitDecision:
    """The rows that exit, the column of the last token that they keep, and the smoothed signals of all columns; the policy's state
    after the accepted thinking tokens, where it has computed that too (else None); the rows whose own budget exits for them (None
    without own rules)."""

    exits: Bool[Array, " B"]
    column: Int[Array, " B"]
    smoothed: Float[Array, "B T S"]
    policy_state: Any
    spent: Bool[Array, " B"] | None


def step(loop: LoopContext, live: int, state: DecodeState) -> DecodeState:
    """One iteration. Rows that are done do not change."""
    verified = verify_candidates(loop, live, state)
    accepted = accept(loop, state, verified)
    observed = observe(loop, live, state, verified)
    decision = decide(loop, state, verified, accepted, observed)
    before = state
    state, committed, count = commit(loop, state, verified, accepted, observed, decision)
    if loop.tries:
        state, observed, committed, count = trials.settle(
            loop, before, state, verified, observed, decision, committed, count
        )
    return draft(loop, live, state, observed, committed, count)


def accept(loop: LoopContext, state: DecodeState, verified: Verified) -> Accepted:
    """The accepted columns, up to a stop token and the length limit, and which of them are thinking tokens."""
    spec, candidates = loop.spec, verified.candidates
    columns = jnp.arange(candidates.shape[1], dtype=jnp.int32)[None, :]
    equal = verified.equal
    stop = verify.first_column(verify.is_any_of(candidates, spec.stop_ids) & (columns < equal[:, None]))
    unlimited = jnp.minimum(equal, stop + 1)
    room = state.max_length - state.length
    count = jnp.where(state.done, 0, jnp.minimum(unlimited, room))
    ends, closing_ids = ends_of_thinking(loop, state, candidates)
    completed = verify.first_column(ends & (columns < count[:, None]) & state.thinking[:, None])
    thinks = columns < jnp.minimum(jnp.minimum(count, stop), completed)[:, None]
    return Accepted(
        count=count,
        stopped=~state.done & (stop < count),
        limited=unlimited > room,
        closing=completed,
        closing_ids=column(closing_ids, completed),
        valid=thinks & state.thinking[:, None],
    )


def ends_of_thinking(loop: LoopContext, state: DecodeState, candidates: Int[Array, "B T"]):
    """(bool [B, T]: the columns that complete a `</think>`; int [B, T]: the number of its ids)."""
    ids, table = loop.spec.end_think_ids, loop.params.closing
    if table is not None:
        return closing.completes_text(candidates, tokens_before(state, table.shape[0] - 1), table)
    ends = verify.completes(candidates, tokens_before(state, len(ids) - 1), ids)
    return ends, jnp.full_like(candidates, len(ids))


def observe(loop: LoopContext, live: int, state: DecodeState, verified: Verified) -> Observed:
    """The signals of the candidates, if the policy or the record needs them, and which candidates are boundaries."""
    fused, raw, pairs = None, None, None
    if loop.reads_signals or loop.runs_draft:
        fused, raw = layer_calls.fuse(loop, verified.features)
    if loop.late_signals:
        # The pair (t, t + 1) yields the signals of token t + 1, so those of column 0 come from the step before. These pairs hold
        # the sampled tokens. Where the commit writes other tokens (an exit), `draft` runs the layer again.
        pairs = layer_calls.run_pairs(loop, state.draft_cache, state.length, fused, verified.sampled, live)
        raw = jnp.concatenate([state.root_signals[:, None], pairs.raw_signals[:, :-1]], axis=1)
    readings = None
    if loop.takes_readings:  # the logits of column j are of the token of column j + 1
        written = jnp.concatenate([state.root_readings[:, None], verified.readings[:, :-1]], axis=1)
        readings = jnp.concatenate([written, verified.ahead], axis=-1)
    return Observed(
        fused=fused,
        signals=activate(raw, loop.spec.draft.signal_names) if loop.reads_signals else None,
        readings=readings,
        boundary=loop.boundaries.mask(verified.candidates, verified.sampled),
        sampled=verified.sampled,
        pairs=pairs,
    )


def signals_read(loop: LoopContext, observed: Observed) -> Float[Array, "B T R"] | None:
    """The columns that the policy reads, in its order; None where no signal is read."""
    if observed.signals is None:
        return None
    values, held = observed.signals, loop.spec.draft.signal_names
    if observed.readings is not None:
        values, held = jnp.concatenate([values, observed.readings], axis=-1), (*held, *READINGS)
    return columns_of(values, held, loop.policy.reads)


def decide(
    loop: LoopContext, state: DecodeState, verified: Verified, accepted: Accepted, observed: Observed
) -> ExitDecision:
    """The policy's exit: at a boundary among the accepted thinking tokens, where all ids of `</think>` still fit. A row's own
    budget exits at the token that spends it, boundary or not, unless the policy does so before."""
    width = verified.candidates.shape[1]
    room = verify.exits_below(state.max_length, len(loop.spec.end_think_ids))
    fits = accepted.valid & (verified.positions < room[:, None])
    valid = fits & state.may_exit[:, None]
    policy = loop.policy if state.own is None else loop.policy.with_limits(state.own.limits)
    closes = accepted.closing < width
    seen = verified.candidates, signals_read(loop, observed), observed.boundary
    (cut, smoothed), after = policy.decide_and_commit(state.policy_state, *seen, valid, accepted.valid, closes)
    spent = None
    if state.own is not None:
        last = verify.first_column(fits & (verified.positions + 1 >= state.own.until[:, None]))
        spent = last < cut
        cut = jnp.minimum(cut, last)
    return ExitDecision(cut < width, cut, smoothed, after, spent)


def commit(
    loop: LoopContext,
    state: DecodeState,
    verified: Verified,
    accepted: Accepted,
    observed: Observed,
    decision: ExitDecision,
) -> tuple[DecodeState, Int[Array, "B U"], Int[Array, " B"]]:
    """Writes the committed tokens, chooses the next root and advances the state of every row.

    Also returns the committed tokens [B, T + 1] (`committed_tokens`) and the number of committed candidates.
    """
    spec, active = loop.spec, ~state.done
    count = jnp.where(decision.exits, decision.column + 1, accepted.count)
    bonus = column(verified.sampled, count - 1)
    root = bonus
    if spec.end_think_ids:
        root = jnp.where(decision.exits, jnp.int32(spec.end_think_ids[0]), bonus)
    length = state.length + count
    committed = committed_tokens(verified.candidates, count, root)
    stopped = accepted.stopped & ~decision.exits  # an exit discards what was accepted after its boundary
    stops = active & ~stopped & verify.is_any_of(root, spec.stop_ids) & (length < state.max_length)
    finished = state.finished | stopped | stops
    closes = ~decision.exits & (accepted.closing < count)
    opening = state.length + accepted.closing + 1 - accepted.closing_ids
    think_end = jnp.where(decision.exits, length, jnp.where(closes, opening, state.think_end))
    kept = jnp.minimum(count, jnp.sum(accepted.valid.astype(jnp.int32), axis=1))  # of thinking
    policy_state = decision.policy_state
    if policy_state is None:
        seen = verified.candidates, signals_read(loop, observed), observed.boundary
        policy_state = loop.policy.commit(state.policy_state, *seen, accepted.valid, count)
    signals = state.signals
    if spec.record_signals:
        seen, own = observed.signals, observed.signals.shape[-1]
        if len(loop.recorded) > own:  # the exit score, which follows the draft's signals
            seen = jnp.concatenate([seen, decision.smoothed[..., own:]], axis=-1)
        signals = write_rows(signals, seen, state.length)
    state = state.replace(
        tokens=write_rows(state.tokens, committed, state.length),
        length=length + stops.astype(jnp.int32),
        root=root,
        root_readings=None if verified.readings is None else column(verified.readings, count - 1),
        target_cache=verified.cache,
        draft_cache=state.draft_cache if observed.pairs is None else observed.pairs.cache,
        policy_state=policy_state,
        thinking=state.thinking & ~decision.exits & ~closes,
        done=state.done | finished | (length >= state.max_length),
        finished=finished,
        think_end=think_end,
        exit_position=jnp.where(decision.exits, length, state.exit_position),
        seen_signals=jnp.where((kept > 0)[:, None], column(decision.smoothed, kept - 1), state.seen_signals),
        steps=state.steps + active.astype(jnp.int32),
        accept_histogram=count_acceptance(spec, state, accepted, decision),
        signals=signals,
        own=None if state.own is None else state.own.replace(spent=state.own.spent | decision.spent),
        logs=with_logs(state.logs, verified.logs, verified.sampled, committed[:, 1:], state.length + 1),
    )
    return state, committed, count


def draft(
    loop: LoopContext,
    live: int,
    state: DecodeState,
    observed: Observed,
    committed: Int[Array, "B U"],
    count: Int[Array, " B"],
) -> DecodeState:
    """Runs the draft over the pairs of the committed tokens, then makes the next drafts."""
    if not loop.runs_draft:
        return state
    start, last, following = state.length - count, count - 1, committed[:, 1:]

    def run(cache: Cache) -> Pairs:
        return layer_calls.run_pairs(loop, cache, start, observed.fused, following, live)

    if observed.pairs is None or loop.tries:  # a failed trial replaces the features
        pairs = run(state.draft_cache)
    else:
        columns = jnp.arange(following.shape[1], dtype=jnp.int32)[None, :]
        others = jnp.any((following != observed.sampled) & (columns < count[:, None]))
        # A loop of one iteration or none: unlike `lax.cond`, it updates the cache in place.
        _, pairs = jax.lax.while_loop(
            lambda carried: carried[0],
            lambda carried: (jnp.zeros_like(others), run(carried[1].cache)),
            (others, observed.pairs.replace(cache=state.draft_cache)),
        )
    return drafting.make_drafts(loop, live, state, pairs, last)


def tokens_before(state: DecodeState, number: int) -> Int[Array, "B M"]:
    """The last `number` committed tokens of each row; -1 before its first token."""
    index = state.length[:, None] + jnp.arange(-number, 0, dtype=jnp.int32)[None, :]
    return jnp.where(index >= 0, jnp.take_along_axis(state.tokens, index, axis=1, mode="clip"), -1)


def committed_tokens(
    candidates: Int[Array, "B T"], count: Int[Array, " B"], root: Int[Array, " B"]
) -> Int[Array, "B U"]:
    """[B, T + 1]: the first `count` candidates, then the new root, repeated as padding."""
    columns = jnp.arange(candidates.shape[1], dtype=jnp.int32)[None, :]
    kept = jnp.where(columns < count[:, None], candidates, root[:, None])
    return jnp.concatenate([kept, root[:, None]], axis=1)


def count_acceptance(spec: DecodeSpec, state: DecodeState, accepted: Accepted, decision: ExitDecision):
    """The acceptance histogram with this step. Steps cut by an exit or by the length limit, and steps that write out a forced
    `</think>`, are not counted."""
    forcing = (state.exit_position >= 0) & (state.length < state.exit_position + len(spec.end_think_ids) - 1)
    counted = ~(state.done | decision.exits | accepted.limited | forcing)
    columns = jnp.arange(spec.draft_tokens + 1, dtype=jnp.int32)[None, :]
    hit = (columns == accepted.count[:, None] - 1) & counted[:, None]
    return state.accept_histogram + hit.astype(jnp.int32)
