"""The verify pass of a step: the target over the root and its drafts, the sample after each, and the drafts that equal them."""

import functools

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from specexit_jax.decoding import trees, verify
from specexit_jax.decoding.drafts import rejection
from specexit_jax.decoding.filters import perturbed_scores
from specexit_jax.decoding.keyed import keyed_sample
from specexit_jax.decoding.loop.token_logs import StepLogs, step_logs
from specexit_jax.decoding.penalty import penalised_if_any, seen_by_nodes
from specexit_jax.decoding.sampling import best_token, noise_for, token_log_probability
from specexit_jax.decoding.spec import DecodeSpec, LoopContext
from specexit_jax.decoding.state import DecodeState
from specexit_jax.exits.readings import readings_ahead, written_readings
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
    readings: Float[Array, "B T 3"] | None  # WRITTEN, of `sampled`; for policies that see readings
    ahead: Float[Array, "B T 2"] | None  # AHEAD, of the candidates; likewise
    logs: StepLogs | None  # where the spec keeps log-probabilities


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
    wanted = penalised_if_any(
        logits, lambda: seen_by_nodes(state.tokens, state.length, nodes, path, logits.shape[-1]), state.sampling
    )
    sampled = sample(loop, state, wanted, positions + 1)
    sampled = verify.force_end(sampled, positions + 1, state.exit_position, spec.end_think_ids)
    logs = token_log_probability(logits, sampled) if loop.tries else None
    kept = step_logs(spec, logits, sampled)
    readings, seen_ahead = None, None
    if loop.takes_readings:
        readings, seen_ahead = written_readings(logits, sampled), readings_ahead(logits, spec.end_think_ids)
    if topology is None:
        equal = 1 + verify.accept(state.drafts, sampled)
        found = Verified(nodes, positions, sampled, equal, out.features, out.cache, logs, readings, seen_ahead, kept)
    else:
        found = along_path(spec, state, nodes, sampled, logs, (readings, seen_ahead), kept, out)
    return found if spec.simulate_accept_length is None else simulated(spec, state, found)


def sample(loop: LoopContext, state: DecodeState, logits: Float[Array, "B T V"], positions: Int[Array, "B T"]):
    """The token of each position. positions: those of the sampled tokens, one after the position of the logits' input."""
    if loop.spec.rejects:
        return rejection.sample(loop, state, logits)
    if state.topology is None:
        return keyed_sample(logits, state.keys, positions, state.sampling)
    ahead = state.length[:, None] + jnp.arange(1, loop.spec.draft_tokens + 2, dtype=jnp.int32)[None, :]
    noise = noise_for(state.keys, ahead, logits.shape[-1], state.sampling)  # of each depth once
    noise = jnp.take_along_axis(noise, trees.node_depths(state.topology)[:, :, None], axis=1)
    return best_token(perturbed_scores(logits, noise, state.sampling))


def along_path(spec: DecodeSpec, state: DecodeState, nodes, sampled, logs, readings, kept, out) -> Verified:
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
        readings=None if readings[0] is None else pick(readings[0], path[:, :, None]),
        ahead=None if readings[1] is None else pick(readings[1], path[:, :, None]),
        logs=kept and jax.tree.map(lambda leaf: pick(leaf, path.reshape(*path.shape, *(1,) * (leaf.ndim - 2))), kept),
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
