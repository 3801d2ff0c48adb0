"""One iteration of the loop: verify, accept, decide, commit, draft; every row in its own state."""

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
    """One target pass: column 0 is the root, columns 1..K its drafts (of a tree: those on the path that the samples walk)."""

    candidates: Int[Array, "B T"]
    positions: Int[Array, "B T"]
    sampled: Int[Array, "B T"]  # the token of position + 1, whether or not the draft guessed it
    equal: Int[Array, " B"]  # leading columns to keep, by the samples alone: the root and its accepted drafts
    features: Float[Array, "B T A"]
    cache: Cache
    log_probabilities: Float[Array, "B T"] | None  # of `sampled`; policies that try only


@flax.struct.dataclass
class Accepted:
    """What of a step may be committed before the exit policy has spoken."""

    count: Int[Array, " B"]  # leading columns: root, equal drafts; cut after a stop token and at the length limit
    stopped: Bool[Array, " B"]  # the last of them is a stop token
    limited: Bool[Array, " B"]  # the limit cut them
    closing: Int[Array, " B"]  # column that completes the model's own </think>; T where there is none
    closing_ids: Int[Array, " B"]  # ids that it is written in
    valid: Bool[Array, "B T"]  # columns that are still thinking


@flax.struct.dataclass
class Observed:
    """What the policy sees of a step, and what the draft will want again: the fused features, and the layer's outputs where it
    has run already, over the sampled tokens."""

    fused: Float[Array, "B T E"] | None
    signals: Float[Array, "B T S"] | None
    boundary: Bool[Array, "B T"]
    sampled: Int[Array, "B T"]
    pairs: Pairs | None


@flax.struct.dataclass
class ExitDecision:
    """Where the policy cuts: rows that exit, and the column of the last token they keep."""

    exits: Bool[Array, " B"]
    column: Int[Array, " B"]
    smoothed: Float[Array, "B T S"]


def step(loop: LoopContext, live: int, state: DecodeState) -> DecodeState:
    """One iteration; rows that are done go through it unchanged."""
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
    """The target over root and drafts, the sample of every position they lead to, and the drafts that equal theirs."""
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
    """The token of each position: `positions` are those of the tokens being sampled."""
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
    """A tree's pass cut down to the path of its samples, whose keys and values move to the row's next positions."""
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
    """The step as if the target had agreed to simulate_accept_length tokens of it on average, at irregular turns."""
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
    """Drafts equal to the keyed sample, up to a stop token and the length limit; which of them are thinking."""
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
    """Columns [B, T] at which a `</think>` is complete, and the number of ids [B, T] that it then has."""
    ids, table = loop.spec.end_think_ids, loop.params.closing
    if table is not None:
        return closing.completes_text(candidates, tokens_before(state, table.shape[0] - 1), table)
    ends = verify.completes(candidates, tokens_before(state, len(ids) - 1), ids)
    return ends, jnp.full_like(candidates, len(ids))


def observe(loop: LoopContext, live: int, state: DecodeState, verified: Verified) -> Observed:
    """Signals of the candidates where anyone reads them, and which candidates are boundaries."""
    fused, raw, pairs = None, None, None
    if loop.reads_signals or loop.runs_draft:
        fused, raw = layer_calls.fuse(loop, verified.features)
    if loop.late_signals:
        # Pair (t, t + 1) tells the signals of token t + 1, so column 0's were read a step ago. These pairs hold the sampled
        # tokens: where a decision writes others, the committed ones are run again (`draft`).
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
    """The signals that the policy reads, of all that the draft has."""
    if observed.signals is None:
        return None
    return columns_of(observed.signals, loop.spec.draft.signal_names, loop.policy.signals)


def decide(
    loop: LoopContext, state: DecodeState, verified: Verified, accepted: Accepted, observed: Observed
) -> ExitDecision:
    """The first boundary of the accepted thinking tokens that the policy grants and that leaves room for </think>, whole."""
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
    """Writes the kept tokens, chooses the next root and advances every row's bookkeeping.

    Also returns the committed tokens [B, T + 1] (kept candidates, then the new root) and how many candidates were kept.
    """
    spec, active = loop.spec, ~state.done
    count = jnp.where(decision.exits, decision.column + 1, accepted.count)
    bonus = column(verified.sampled, count - 1)
    root = bonus
    if spec.end_think_ids:
        root = jnp.where(decision.exits, jnp.int32(spec.end_think_ids[0]), bonus)
    length = state.length + count
    committed = committed_tokens(verified.candidates, count, root)
    stopped = accepted.stopped & ~decision.exits  # an exit discards a stop token that was accepted after its boundary
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
    """The draft over the committed features and the tokens after them, then its own steps: the next drafts."""
    if not loop.runs_draft:
        return state
    start, last, following = state.length - count, count - 1, committed[:, 1:]

    def run(cache: Cache) -> Pairs:
        return layer_calls.run_pairs(loop, cache, start, observed.fused, following, live)

    if observed.pairs is None or loop.tries:  # a trial may have put other features in place
        pairs = run(state.draft_cache)
    else:
        columns = jnp.arange(following.shape[1], dtype=jnp.int32)[None, :]
        others = jnp.any((following != observed.sampled) & (columns < count[:, None]))
        # A loop of one turn or none: unlike a branch, it updates the cache in place.
        _, pairs = jax.lax.while_loop(
            lambda carried: carried[0],
            lambda carried: (jnp.zeros_like(others), run(carried[1].cache)),
            (others, observed.pairs.replace(cache=state.draft_cache)),
        )
    return drafting.take_drafts(loop, live, state, pairs, last)


def tokens_before(state: DecodeState, number: int) -> Int[Array, "B M"]:
    """The last `number` committed tokens of each row, -1 before the first."""
    index = state.length[:, None] + jnp.arange(-number, 0, dtype=jnp.int32)[None, :]
    return jnp.where(index >= 0, jnp.take_along_axis(state.tokens, index, axis=1, mode="clip"), -1)


def committed_tokens(
    candidates: Int[Array, "B T"], count: Int[Array, " B"], root: Int[Array, " B"]
) -> Int[Array, "B U"]:
    """[B, T + 1]: the first `count` candidates, then the new root (repeated to the end as filler)."""
    columns = jnp.arange(candidates.shape[1], dtype=jnp.int32)[None, :]
    kept = jnp.where(columns < count[:, None], candidates, root[:, None])
    return jnp.concatenate([kept, root[:, None]], axis=1)


def count_acceptance(spec: DecodeSpec, state: DecodeState, accepted: Accepted, decision: ExitDecision):
    """The histogram with this step's accepted drafts, of rows whose step neither an exit nor the limit cut short."""
    forcing = (state.exit_position >= 0) & (state.length < state.exit_position + len(spec.end_think_ids) - 1)
    counted = ~(state.done | decision.exits | accepted.limited | forcing)
    columns = jnp.arange(spec.draft_tokens + 1, dtype=jnp.int32)[None, :]
    hit = (columns == accepted.count[:, None] - 1) & counted[:, None]
    return state.accept_histogram + hit.astype(jnp.int32)
