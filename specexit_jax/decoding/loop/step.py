"""One iteration of the loop: verify, accept, decide, commit, draft. No row depends on another."""

import functools

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.decoding import trees, verify
from specexit_jax.decoding.drafts import drafting, layer_calls, rejection
from specexit_jax.decoding.drafts.layer_calls import Pairs
from specexit_jax.decoding.filters import keyed_sample, perturbed_scores
from specexit_jax.decoding.loop import closing, trials
from specexit_jax.decoding.penalty import penalised_where_asked, seen_by_nodes
from specexit_jax.decoding.sampling import best_token, token_log_probability
from specexit_jax.decoding.spec import DecodeSpec, LoopContext
from specexit_jax.decoding.state import DecodeState, column, write_rows
from specexit_jax.exits.signals import activate, columns_of
from specexit_jax.models.cache import Cache
from specexit_jax.models.target import Target


@flax.struct.dataclass
class Verified:
    """One verify pass of the target: column 0 is the root, columns 1..K are drafts (for a tree, those of the accepted path)."""

    candidates: Int[Array, "B T"]
    positions: Int[Array, "B T"]
    sampled: Int[Array, "B T"]  # the target's sample for position + 1
    equal: Int[Array, " B"]  # leading columns that equal the samples: the root and its accepted drafts
    features: Float[Array, "B T A"]
    cache: Cache
    log_probabilities: Float[Array, "B T"] | None  # of `sampled`; for policies with trials only


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

    fused: the draft's fused features. signals: activated, in the order of the draft's signals. boundary: which candidates are
    boundaries. pairs: the draft layer over the pairs of the `sampled` tokens, where it has run already (late signals).
    """

    fused: Float[Array, "B T E"] | None
    signals: Float[Array, "B T S"] | None
    boundary: Bool[Array, "B T"]
    sampled: Int[Array, "B T"]
    pairs: Pairs | None


@flax.struct.dataclass
class ExitDecision:
    """The rows that exit, the column of the last token that they keep, and the smoothed signals of all columns."""

    exits: Bool[Array, " B"]
    column: Int[Array, " B"]
    smoothed: Float[Array, "B T S"]


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


def verify_candidates(loop: LoopContext, live: int, state: DecodeState) -> Verified:
    """Runs the target over the root and the drafts, samples the token after each, and finds the accepted drafts."""
    spec, topology = loop.spec, state.topology
    nodes = jnp.concatenate([state.root[:, None], state.drafts], axis=1)
    ahead = jnp.arange(nodes.shape[1], dtype=jnp.int32)[None, :] if topology is None else trees.node_depths(topology)
    positions = state.length[:, None] + ahead
    cache = state.target_cache.replace(length=state.length)
    target = functools.partial(Target(spec.target).apply, {"params": loop.params.target})
    visible = None if topology is None else trees.ancestors(topology)
    out = target(nodes, positions, cache, live=live, logits=loop.head is None, visible=visible)
    logits = out.logits
    if loop.head is not None:
        logits = jnp.einsum("btd,dv->btv", out.hidden, loop.head, preferred_element_type=jnp.float32)
    path = jnp.tril(jnp.ones((1, nodes.shape[1], nodes.shape[1]), bool)) if topology is None else visible
    wanted = penalised_where_asked(
        logits, lambda: seen_by_nodes(state.tokens, state.length, nodes, path, logits.shape[-1]), state.sampling
    )
    sampled = sample(loop, state, wanted, positions + 1)
    sampled = verify.force_end(sampled, positions + 1, state.exit_position, spec.end_think_ids)
    logs = token_log_probability(logits, sampled) if loop.tries else None
    if topology is None:
        equal = 1 + verify.accept(state.drafts, sampled)
        found = Verified(nodes, positions, sampled, equal, out.features, out.cache, logs)
    else:
        found = along_path(spec, state, nodes, sampled, logs, out)
    return found if spec.simulate_accept_length is None else simulated(spec, state, found)


def sample(loop: LoopContext, state: DecodeState, logits: Float[Array, "B T V"], positions: Int[Array, "B T"]):
    """The token of each position. positions: those of the sampled tokens, one after the position of the logits' input."""
    if loop.spec.rejects:
        return rejection.sample(loop, state, logits)
    if state.noise is None:
        return keyed_sample(logits, state.keys, positions, state.sampling)
    noise = state.noise
    if state.topology is not None:
        ahead = trees.node_depths(state.topology)
        noise = jnp.take_along_axis(noise, ahead[:, :, None], axis=1)
    return best_token(perturbed_scores(logits, noise, state.sampling))


def along_path(spec: DecodeSpec, state: DecodeState, nodes, sampled, logs, out) -> Verified:
    """The verify pass of a tree, reduced to the accepted path. Its keys and values move to the row's next cache positions."""
    if spec.simulate_accept_length is None:
        path, equal = trees.descend(nodes, state.topology, sampled, spec.tree.depth)
    else:
        path = trees.deepest(state.topology, spec.tree.depth)
        equal = 1 + jnp.max(state.topology.depths, axis=1)
    pick = functools.partial(jnp.take_along_axis, axis=1)
    steps = jnp.arange(path.shape[1], dtype=jnp.int32)[None, :]
    return Verified(
        candidates=pick(nodes, path),
        positions=state.length[:, None] + steps,
        sampled=pick(sampled, path),
        equal=equal,
        features=pick(out.features, path[:, :, None]),
        cache=trees.compact(out.cache, state.length, path),
        log_probabilities=None if logs is None else pick(logs, path),
    )


def simulated(spec: DecodeSpec, state: DecodeState, verified: Verified) -> Verified:
    """The step as if it yielded simulate_accept_length tokens on average: its integer part, and one more in some steps."""
    whole, part = divmod(spec.simulate_accept_length, 1.0)
    lucky = ((state.steps * 7 + 3) % 20).astype(jnp.float32) < jnp.float32(20 * part)
    equal = jnp.int32(whole) + lucky.astype(jnp.int32)
    if spec.tree is not None:
        equal = jnp.minimum(equal, verified.equal)
    columns = jnp.arange(verified.candidates.shape[1], dtype=jnp.int32)[None, :]
    following = jnp.roll(verified.candidates, -1, axis=1)
    sampled = jnp.where(columns + 1 < equal[:, None], following, verified.sampled)
    return verified.replace(sampled=sampled, equal=equal)


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
    return Observed(
        fused=fused,
        signals=activate(raw, loop.spec.draft.signal_names) if loop.reads_signals else None,
        boundary=loop.boundaries.mask(verified.candidates, verified.sampled),
        sampled=verified.sampled,
        pairs=pairs,
    )


def signals_read(loop: LoopContext, observed: Observed) -> Float[Array, "B T R"] | None:
    """Those signals of the draft that the policy reads, in the policy's order; None where no signal is read."""
    if observed.signals is None:
        return None
    return columns_of(observed.signals, loop.spec.draft.signal_names, loop.policy.signals)


def decide(
    loop: LoopContext, state: DecodeState, verified: Verified, accepted: Accepted, observed: Observed
) -> ExitDecision:
    """The policy's exit: at a boundary among the accepted thinking tokens, where all ids of `</think>` still fit."""
    width = verified.candidates.shape[1]
    room = verify.exits_below(state.max_length, len(loop.spec.end_think_ids))
    valid = accepted.valid & state.may_exit[:, None] & (verified.positions < room[:, None])
    closes = accepted.closing < width
    cut, smoothed = loop.policy.decide(
        state.policy_state, verified.candidates, signals_read(loop, observed), observed.boundary, valid, closes
    )
    return ExitDecision(exits=cut < width, column=cut, smoothed=smoothed)


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
    signals = state.signals
    if spec.record_signals:
        signals = write_rows(signals, observed.signals, state.length)
    state = state.replace(
        tokens=write_rows(state.tokens, committed, state.length),
        length=length + stops.astype(jnp.int32),
        root=root,
        target_cache=verified.cache,
        draft_cache=state.draft_cache if observed.pairs is None else observed.pairs.cache,
        policy_state=loop.policy.commit(
            state.policy_state,
            verified.candidates,
            signals_read(loop, observed),
            observed.boundary,
            accepted.valid,
            count,
        ),
        thinking=state.thinking & ~decision.exits & ~closes,
        done=state.done | finished | (length >= state.max_length),
        finished=finished,
        think_end=think_end,
        exit_position=jnp.where(decision.exits, length, state.exit_position),
        seen_signals=jnp.where((kept > 0)[:, None], column(decision.smoothed, kept - 1), state.seen_signals),
        steps=state.steps + active.astype(jnp.int32),
        accept_histogram=count_acceptance(spec, state, accepted, decision),
        signals=signals,
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
    return drafting.take_drafts(loop, live, state, pairs, last)


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
