"""Forced answers one at a time: what the model answers if its thinking is closed at a boundary of a trace.

The trace is prefilled once. Its boundaries are then visited from the last to the first on that one cache, which is rewound
each time. A continuation overwrites only positions after its boundary, so the earlier boundaries keep what they need. Rows do
not wait for each other. Sampling is keyed by position with the trace's own key, so a forced answer is, token for token,
what `decode` writes after an exit there.

Every token reads the whole prefix. Annotation uses `branches`, where many boundaries share one read; this module is the
plain form that tests compare it with.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.decoding import verify
from specexit_jax.decoding.keyed import keyed_sample
from specexit_jax.decoding.penalty import penalised, seen_along, seen_before
from specexit_jax.decoding.sampling import Sampling, SamplingRows, token_log_probability
from specexit_jax.decoding.spec import prefixes_of
from specexit_jax.decoding.state import column, write_rows
from specexit_jax.models.cache import SPARE, Cache
from specexit_jax.models.config import TargetConfig
from specexit_jax.models.target import Target, init_target_cache


@dataclasses.dataclass(frozen=True)
class ForceSpec:
    """What forcing is compiled for. max_answer: the most tokens after `</think>`; live_prefixes: as in `DecodeSpec`."""

    target: TargetConfig
    sampling: Sampling
    max_answer: int
    stop_ids: tuple[int, ...]
    end_think_ids: tuple[int, ...]
    live_prefixes: tuple[int, ...] = ()
    return_features: bool = False

    @property
    def reach(self) -> int:
        """The most tokens of a continuation, `</think>` included."""
        return len(self.end_think_ids) + self.max_answer


@flax.struct.dataclass
class Forced:
    """The answers at N boundaries of each row.

    ids: the tokens after `</think>`, the stop token included, 0 after `length`. finished: the answer ended with a stop token.
    log_probability: the mean over these tokens under the unfiltered softmax at temperature 1 (0 where there are none).
    features: captured at the boundary tokens; None unless the spec says return_features.
    """

    ids: Int[Array, "B N M"]
    length: Int[Array, "B N"]
    finished: Bool[Array, "B N"]
    log_probability: Float[Array, "B N"]
    features: Float[Array, "B N A"] | None


@flax.struct.dataclass
class ForceState:
    """The carry of the loop: each row decodes the answer at boundary number `place` (-1: none is left)."""

    cache: Cache
    place: Int[Array, " B"]
    length: Int[Array, " B"]  # filled positions of the cache
    token: Int[Array, " B"]  # chosen, for position `length`
    ids: Int[Array, "B X"]  # answers' tokens, N of M each, and one entry for tokens that are dropped
    log_probabilities: Float[Array, "B X"]
    counts: Int[Array, "B N"]
    finished: Bool[Array, "B N"]
    seen: Bool[Array, "B 1 V"] | None = None  # the ids before `token`; with a repetition penalty only


@functools.partial(jax.jit, static_argnums=0)
def force_answers(
    spec: ForceSpec,
    target_params: dict,
    tokens: Int[Array, "B P"],
    boundaries: Int[Array, "B N"],
    keys: Array,
    max_length: Int[Array, " B"],
) -> Forced:
    """The answer forced at each boundary of right-padded traces (prompt and generated tokens, absolute positions).

    boundaries: ascending positions of boundary tokens, padded with -1 at the end. keys: typed PRNG keys [B], those that the
    traces were sampled with. max_length: tokens of prompt, trace and answer together, as for `decode`; so an answer ends
    where the answer of an exit there would.
    """
    capacity = prefixes_of(spec.live_prefixes, tokens.shape[1] + spec.reach)[-1] + SPARE
    cache, features = prefill_traces(spec, target_params, tokens, capacity)
    forced = answer_in_turn(spec, target_params, cache, boundaries, keys, max_length, tokens)
    if spec.return_features:
        features = jnp.take_along_axis(features, boundaries[:, :, None], axis=1, mode="clip")
        forced = forced.replace(features=features)
    return forced


def answer_in_turn(
    spec: ForceSpec,
    target_params: dict,
    cache: Cache,
    boundaries: Int[Array, "B N"],
    keys: Array,
    max_length: Int[Array, " B"],
    tokens: Int[Array, "B P"] | None = None,
) -> Forced:
    """The answers of `force_answers` on traces that are prefilled already.

    cache: its capacity must exceed the longest trace by spec.reach and SPARE. tokens: the traces; read by a repetition
    penalty only.
    """
    rows, number = boundaries.shape
    prefixes = prefixes_of(spec.live_prefixes, cache.capacity - SPARE)
    place = jnp.sum((boundaries >= 0).astype(jnp.int32), axis=1) - 1
    state = ForceState(
        cache=cache,
        place=place,
        length=column(boundaries, place) + 1,
        token=jnp.full((rows,), spec.end_think_ids[0], jnp.int32),
        ids=jnp.zeros((rows, number * spec.max_answer + 1), jnp.int32),
        log_probabilities=jnp.zeros((rows, number * spec.max_answer + 1), jnp.float32),
        counts=jnp.zeros((rows, number), jnp.int32),
        finished=jnp.zeros((rows, number), bool),
        seen=seen_by_traces(spec, tokens, (column(boundaries, place) + 1)[:, None]),
    )
    for live, shorter in zip(reversed(prefixes), (*reversed(prefixes[:-1]), 0), strict=True):
        continues = functools.partial(_needs_more_than, spec, boundaries, shorter)
        step = functools.partial(force_token, spec, target_params, boundaries, keys, max_length, live, tokens=tokens)
        state = jax.lax.while_loop(continues, step, state)
    total = state.log_probabilities[:, :-1].reshape(rows, number, -1).sum(axis=2)
    return Forced(
        ids=state.ids[:, :-1].reshape(rows, number, -1),
        length=state.counts,
        finished=state.finished,
        log_probability=total / jnp.maximum(state.counts, 1).astype(jnp.float32),
        features=None,
    )


def prefill_traces(spec: ForceSpec, target_params: dict, tokens: Int[Array, "B P"], capacity: int):
    """(a cache of this capacity with the traces, their captured features [B, P, A])."""
    rows, width = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32)[None, :], tokens.shape)
    cache = init_target_cache(spec.target, rows, capacity)
    out = Target(spec.target).apply({"params": target_params}, tokens, positions, cache, live=width, logits=False)
    return out.cache, out.features


def _needs_more_than(spec: ForceSpec, boundaries, shorter: int, state: ForceState) -> Bool[Array, ""]:
    """Whether the current answer of some row may need more positions than the next shorter live prefix has."""
    reach = jnp.where(state.place >= 0, column(boundaries, state.place) + 1 + spec.reach, 0)
    return jnp.max(reach) > shorter


def force_token(
    spec: ForceSpec, target_params: dict, boundaries, keys, max_length, live: int, state: ForceState, tokens=None
) -> ForceState:
    """One token of every row's current answer. A row whose answer ends goes to the boundary before it."""
    position = state.length[:, None]
    cache = state.cache.replace(length=state.length)
    out = Target(spec.target).apply({"params": target_params}, state.token[:, None], position, cache, live=live)
    start = column(boundaries, state.place) + 1
    logits, seen = out.logits, state.seen
    if spec.sampling.penalises:
        seen = seen_along(seen, state.token[:, None, None])
        logits = penalised(logits, seen, SamplingRows.of([spec.sampling]))
    sampled = keyed_sample(logits, keys, position + 1, SamplingRows.of([spec.sampling]))
    sampled = verify.force_end(sampled, position + 1, start, spec.end_think_ids)
    token, ahead = sampled[:, 0], state.length + 1
    answered = ahead - start - len(spec.end_think_ids)  # this token's index in the answer; below 0: part of `</think>`
    limit = jnp.minimum(max_length, start + spec.reach)
    kept = (state.place >= 0) & (answered >= 0) & (ahead < limit)
    number, spare = boundaries.shape[1], state.ids.shape[1] - 1
    index = jnp.where(kept, state.place * spec.max_answer + answered, spare)
    here = jnp.arange(number, dtype=jnp.int32)[None, :] == state.place[:, None]
    stops = kept & verify.is_any_of(token, spec.stop_ids)
    ends = stops | (ahead + 1 >= limit)
    place = jnp.where(ends, jnp.maximum(state.place - 1, -1), state.place)
    if spec.sampling.penalises:
        fresh = seen_by_traces(spec, tokens, (column(boundaries, place) + 1)[:, None])
        seen = jnp.where(ends[:, None, None], fresh, seen)
    return ForceState(
        cache=out.cache,
        place=place,
        length=jnp.where(ends, column(boundaries, place) + 1, ahead),
        token=jnp.where(ends, jnp.int32(spec.end_think_ids[0]), token),
        ids=write_rows(state.ids, token[:, None], index),
        log_probabilities=write_rows(state.log_probabilities, token_log_probability(out.logits, sampled), index),
        counts=state.counts + (here & kept[:, None]).astype(jnp.int32),
        finished=state.finished | (here & stops[:, None]),
        seen=seen,
    )


def seen_by_traces(spec: ForceSpec, tokens: Int[Array, "B P"] | None, start: Int[Array, "B N"]):
    """Which ids occur before `start` in each trace, bool [B, N, V]; None where there is no repetition penalty."""
    return seen_before(tokens, start, spec.target.vocab_size) if spec.sampling.penalises else None
