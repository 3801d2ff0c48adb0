"""What runs before the loop: empty buffers, prefill of the prompts, the first root and the first drafts."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from specexit_jax.decoding import verify
from specexit_jax.decoding.drafts import drafting, layer_calls
from specexit_jax.decoding.keyed import keyed_sample
from specexit_jax.decoding.loop.prompt_chunks import read_prompts
from specexit_jax.decoding.loop.token_logs import no_logs, step_logs, with_logs
from specexit_jax.decoding.loop.trials import no_trials
from specexit_jax.decoding.penalty import penalised_if_any, seen_before
from specexit_jax.decoding.rows import OwnRules, PromptRows
from specexit_jax.decoding.sampling import Sampling, SamplingRows, placeholder_keys
from specexit_jax.decoding.spec import DecodeSpec, LoopContext
from specexit_jax.decoding.state import DecodeState, write_rows
from specexit_jax.decoding.trees import Topology
from specexit_jax.exits.readings import WRITTEN, written_readings
from specexit_jax.models.cache import resize
from specexit_jax.models.draft import init_draft_cache
from specexit_jax.models.target import Target, init_target_cache


def empty_state(loop: LoopContext, batch: int, capacities: tuple[int, int]) -> DecodeState:
    """A state of empty buffers whose rows are all done. capacities: of the target's cache and of the draft's."""
    spec = loop.spec
    zero, never = jnp.zeros((batch,), jnp.int32), jnp.zeros((batch,), bool)
    nowhere = jnp.full((batch,), -1, jnp.int32)
    drafts = jnp.zeros((batch, spec.drafted), jnp.int32)
    proposal = None
    if spec.rejects:
        nodes = 1 + spec.drafted - (spec.tree.sizes[-1] if spec.tree else 1)
        proposal = jnp.zeros((batch, nodes, spec.draft.draft_vocab_size), jnp.float32)
    draft_cache = None
    if loop.runs_draft:
        draft_cache = init_draft_cache(spec.draft, batch, capacities[1])
    return DecodeState(
        tokens=jnp.zeros((batch, spec.capacity), jnp.int32),
        length=zero,
        max_length=zero,
        keys=placeholder_keys(0, batch),
        sampling=jax.tree.map(jnp.asarray, SamplingRows.of([Sampling()] * batch)),
        root=zero,
        drafts=drafts,
        topology=Topology(drafts, drafts) if spec.tree else None,
        proposal=proposal,
        target_cache=init_target_cache(spec.target, batch, capacities[0]),
        draft_cache=draft_cache,
        root_signals=jnp.zeros((batch, spec.draft.signal_rows), jnp.float32) if loop.late_signals else None,
        root_readings=jnp.zeros((batch, len(WRITTEN)), jnp.float32) if loop.takes_readings else None,
        policy_state=loop.policy.init(batch),
        thinking=never,
        may_exit=never,
        done=~never,
        finished=never,
        think_end=nowhere,
        exit_position=nowhere,
        seen_signals=jnp.zeros((batch, len(loop.policy.signals)), jnp.float32),
        steps=zero,
        accept_histogram=jnp.zeros((batch, spec.draft_tokens + 1), jnp.int32),
        signals=jnp.zeros((batch, spec.capacity, len(loop.recorded)), jnp.float32) if spec.record_signals else None,
        trial=no_trials(loop, batch),
        own=OwnRules.none(batch, len(loop.policy.signals)) if spec.own_rules else None,
        logs=no_logs(spec, batch),
    )


def resized(spec: DecodeSpec, live: int, state: DecodeState) -> DecodeState:
    """The state with caches for the live prefix `live`, grown or cut (`spec.capacities_for`)."""
    capacities = spec.capacities_for(live)
    draft_cache = state.draft_cache and resize(state.draft_cache, capacities[1])
    return state.replace(target_cache=resize(state.target_cache, capacities[0]), draft_cache=draft_cache)


def prefill(
    loop: LoopContext,
    live: tuple[int, int],
    state: DecodeState,
    rows: PromptRows,
    start: Int[Array, " B"],
) -> DecodeState:
    """Prefills the prompts into a fresh `state`, chooses the first token as root, and makes the first drafts.

    rows.prompts: the tokens from position `start` on; those before it are in the state's tokens and caches already, and
    prompt_length counts them too. live: the live prefixes of the prefill and of the first drafts. A row whose max_length is at
    most its prompt_length stays done.
    """
    spec, prompts, prompt_length = loop.spec, rows.prompts, rows.prompt_length
    last = prompt_length - 1 - start
    state = state.replace(tokens=write_rows(state.tokens, prompts, start))
    read = read_prompts(loop, live[0], (state.target_cache, state.draft_cache), prompts, start, last)
    max_length = jnp.minimum(rows.max_length, jnp.int32(spec.buffer_length))
    done = prompt_length >= max_length
    logits = Target(spec.target).apply({"params": loop.params.target}, read.hidden[:, None], method="head")
    wanted = penalised_if_any(
        logits, lambda: seen_before(state.tokens, prompt_length[:, None], logits.shape[-1]), rows.sampling
    )
    sampled = keyed_sample(wanted, rows.keys, prompt_length[:, None], rows.sampling)
    logs, root = step_logs(spec, logits, sampled), sampled[:, 0]
    spent = None if rows.own is None else without_thinking(spec, rows, max_length) & ~done
    if spent is not None and spec.end_think_ids:
        root = jnp.where(spent, jnp.int32(spec.end_think_ids[0]), root)
    stops = ~done & verify.is_any_of(root, spec.stop_ids)
    state = state.replace(
        tokens=write_rows(state.tokens, root[:, None], prompt_length),
        length=prompt_length + stops.astype(jnp.int32),
        max_length=max_length,
        keys=rows.keys,
        sampling=rows.sampling,
        root=root,
        target_cache=read.target_cache,
        root_readings=written_readings(logits, root[:, None])[:, 0] if loop.takes_readings else None,
        thinking=rows.thinking,
        may_exit=rows.may_exit,
        done=done | stops,
        finished=stops,
        logs=with_logs(state.logs, logs, sampled, root[:, None], prompt_length),
    )
    if spent is not None:
        opening = jnp.where(spent, prompt_length, jnp.int32(-1))
        state = state.replace(
            thinking=rows.thinking & ~spent,
            think_end=opening,
            exit_position=opening,
            own=rows.own.replace(spent=spent),
        )
    if not loop.runs_draft:
        return state
    pairs = layer_calls.run_pairs(loop, read.draft_cache, start + last, read.fused[:, None], root[:, None], live[0])
    return drafting.make_drafts(loop, live[1], state, pairs, jnp.zeros_like(last))


def without_thinking(spec: DecodeSpec, rows: PromptRows, max_length: Int[Array, " B"]) -> Bool[Array, " B"]:
    """The rows whose own budget allows no thinking token: `</think>` is the first that they write, if it fits."""
    fits = rows.prompt_length <= verify.exits_below(max_length, len(spec.end_think_ids))
    return rows.thinking & fits & (rows.own.until <= rows.prompt_length)


def absorb(
    loop: LoopContext,
    live: int,
    state: DecodeState,
    chunk: Int[Array, "B P"],
    following: Int[Array, " B"],
    start: Int[Array, " B"],
) -> DecodeState:
    """Prefills a part of a long prompt: P tokens from position `start` on. following: the token after them."""
    positions = start[:, None] + jnp.arange(chunk.shape[1], dtype=jnp.int32)[None, :]
    target = functools.partial(Target(loop.spec.target).apply, {"params": loop.params.target})
    out = target(chunk, positions, state.target_cache.replace(length=start), live=live, logits=False)
    state = state.replace(tokens=write_rows(state.tokens, chunk, start), target_cache=out.cache)
    if not loop.runs_draft:
        return state
    fused, _ = layer_calls.fuse(loop, out.features)
    after = jnp.concatenate([chunk[:, 1:], following[:, None]], axis=1)
    return state.replace(draft_cache=layer_calls.run_pairs(loop, state.draft_cache, start, fused, after, live).cache)
