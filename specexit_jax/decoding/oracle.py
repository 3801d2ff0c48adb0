"""The slow oracle: decodes one prompt, one token at a time, with a whole forward pass for each token.

It has no cache, no drafts, no batch and no device loop, so it shares none of the parts of `speculative` that can go wrong.
Tests require equal tokens from both, except where `gaps` shows that the two best perturbed scores nearly tied.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from specexit_jax.decoding.filters import filtered_scores
from specexit_jax.decoding.rows import SlotRequest
from specexit_jax.decoding.sampling import PRNG, Sampling, SamplingRows, token_log_probability
from specexit_jax.decoding.spec import DecodeParams, DecodeSpec
from specexit_jax.decoding.verify import exits_below
from specexit_jax.exits.policy import NeverExit
from specexit_jax.exits.readings import READINGS, readings_ahead, written_readings
from specexit_jax.exits.signals import activate, columns_of
from specexit_jax.models.draft import draft_of
from specexit_jax.models.target import Target


@dataclasses.dataclass
class OracleResult:
    """One decoded request; positions are absolute (prompt included), -1 where there is none.

    gaps[i] is the difference between the best and the second perturbed score of generated token i; 0 where changing top_p by
    1e-5 would change the token, inf where the token was forced. trials: the number that failed; trial_tokens: the answer tokens
    of these.
    """

    tokens: list[int]
    prompt_length: int
    finished: bool = False
    think_end: int = -1
    exit_position: int = -1
    exit_signals: list[float] = dataclasses.field(default_factory=list)
    gaps: list[float] = dataclasses.field(default_factory=list)
    signals: list[list[float]] = dataclasses.field(default_factory=list)
    trials: int = 0
    trial_tokens: int = 0


def decode_slowly(
    spec: DecodeSpec,
    params: DecodeParams,
    request: SlotRequest,
    policy: Any,
    boundaries: Any,
) -> OracleResult:
    """Continues the prompt until a stop token or max_length tokens, prompt included, by the rule of `speculative.decode`."""
    prompt, thinking, key = request.prompt, request.thinking, jax.random.wrap_key_data(request.key, impl=PRNG)
    end, slow = spec.end_think_ids, OracleResult(list(prompt), len(prompt))
    tokens, state, pending = slow.tokens, policy.init(1), []
    limit, held = min(request.max_length, spec.buffer_length), spec.draft.signal_names if spec.has_signals else ()
    reading = None  # WRITTEN, of the last token
    slow.exit_signals = [0.0] * len(policy.signals)
    while len(tokens) < limit:
        following, gap, signal, next_reading, ahead = _look(
            spec, request.sampling, params, _padded(tokens, spec.buffer_length), len(tokens), key
        )
        following = int(following)
        if len(tokens) > len(prompt) and signal is not None:
            slow.signals.append(signal.tolist())
        if len(tokens) > len(prompt) and thinking:
            seen = signal, reading, ahead
            exits, smoothed, state = _consider(held, policy, boundaries, state, tokens[-1], seen, following)
            exits = exits and request.may_exit and len(tokens) - 1 < exits_below(limit, len(end))
            if exits and policy.on_trial:
                exits, answered = _stands(spec, params, tokens, request, limit, policy)
                slow.trials += not exits
                slow.trial_tokens += 0 if exits else answered
            if exits:
                slow.exit_position = slow.think_end = len(tokens)
                slow.exit_signals = smoothed.tolist()
                thinking, pending = False, list(end)
        slow.gaps.append(float("inf") if pending else float(gap))
        tokens.append(pending.pop(0) if pending else following)
        reading = next_reading
        if tokens[-1] in spec.stop_ids:
            slow.finished = True
            break
        if thinking and (ids := _closed_by(end, params.closing, tokens)):
            slow.think_end, thinking = len(tokens) - ids, False
    return slow


def _closed_by(end: tuple[int, ...], table, tokens: list[int]) -> int:
    """The number of ids in the `</think>` that the last token completes; 0 where it completes none."""
    if table is None:
        return len(end) if tuple(tokens[-len(end) :]) == end else 0
    state, run, table = 0, 0, np.asarray(table)
    for token in tokens:
        fresh, state = divmod(int(table[state % len(table), token]), 16)
        run = 0 if not state else 1 if fresh else run + 1
    return run if state == len(table) else 0


def _stands(spec: DecodeSpec, params: DecodeParams, tokens: list[int], request, limit: int, policy) -> tuple[bool, int]:
    """(whether the trial exit after `tokens` stands, the number of answer tokens that this was decided on)."""
    prompt = [*tokens, *spec.end_think_ids]
    limit = min(limit, len(prompt) + policy.max_answer)
    answer = dataclasses.replace(request, prompt=tuple(prompt), thinking=False, max_length=limit)
    answered = decode_slowly(spec, params, answer, NeverExit(), None).tokens
    logs = _log_probabilities(spec, params, _padded(answered, spec.buffer_length))[len(prompt) - 1 : len(answered) - 1]
    mean = logs.mean() if len(logs) else jnp.float32(0)
    return bool(policy.stands(mean, jnp.int32(len(logs)))), len(logs)


@functools.partial(jax.jit, static_argnums=0)
def _log_probabilities(spec: DecodeSpec, params: DecodeParams, tokens):
    """Log-probabilities [S - 1] of all tokens but the first, each given the tokens before it."""
    positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :]
    out = Target(spec.target).apply({"params": params.target}, tokens, positions)
    return token_log_probability(out.logits[:, :-1], tokens[:, 1:])[0]


def _padded(tokens: list[int], width: int) -> jax.Array:
    return jnp.asarray([tokens + [0] * (width - len(tokens))], jnp.int32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _look(spec: DecodeSpec, sampling: Sampling, params: DecodeParams, tokens, length, key):
    """From a whole forward pass: (the next token, its gap to the second best, the signals of the last token or None, the readings
    WRITTEN of the next token and AHEAD of the last).

    tokens: [1, S], padded on the right; causal attention does not see the padding.
    """
    positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :]
    out = Target(spec.target).apply({"params": params.target}, tokens, positions)
    scores = unpenalised = out.logits[0, length - 1]
    if sampling.penalises:
        penalty, places = sampling.repetition_penalty, jnp.arange(tokens.shape[1], dtype=jnp.int32)
        ids = jnp.arange(scores.shape[0], dtype=jnp.int32)
        seen = jnp.any((tokens[0][:, None] == ids[None, :]) & (places < length)[:, None], axis=0)
        scores = jnp.where(seen, jnp.where(scores > 0, scores / penalty, scores * penalty), scores)
    following, gap = _choose(scores, key, length, sampling)
    reading = written_readings(unpenalised[None, None], following[None, None])[0, 0]
    ahead = readings_ahead(unpenalised[None, None], spec.end_think_ids)[0, 0]
    if not spec.has_signals:
        return following, gap, None, reading, ahead
    draft = functools.partial(draft_of(spec.draft).apply, {"params": params.draft})
    fused, raw = draft(out.features, method="fuse")
    if spec.draft.signals == "draft":
        shifted = jnp.concatenate([tokens[:, 1:], tokens[:, :1]], axis=1)
        embedded = params.draft_embedding[shifted].astype(fused.dtype)
        raw = draft(embedded, fused, positions).raw_signals  # of pair t: the signals of token t + 1
        return following, gap, activate(raw[0, length - 2], spec.draft.signal_names), reading, ahead
    return following, gap, activate(raw[0, length - 1], spec.draft.signal_names), reading, ahead


def _choose(logits, key, position, sampling: Sampling):
    """(the keyed sample of one position, its gap to the second best perturbed score)."""
    if sampling.greedy:
        return _lead(logits)
    noise = jax.random.gumbel(jax.random.fold_in(key, position), logits.shape, jnp.float32, mode="high")
    token, gap = _lead(_scores(logits, sampling) + noise)
    for shift in (-1e-5, 1e-5) if sampling.top_p < 1 else ():
        shifted = dataclasses.replace(sampling, top_p=min(max(sampling.top_p + shift, 1e-9), 1.0))
        other, _ = _lead(_scores(logits, shifted) + noise)
        gap = jnp.where(other == token, gap, jnp.float32(0))
    return token, gap


def _scores(logits, sampling: Sampling):
    return filtered_scores(logits, SamplingRows.of([sampling]))


def _lead(scores):
    best, index = jax.lax.top_k(scores, 2)
    return index[0].astype(jnp.int32), best[0] - best[1]


@functools.partial(jax.jit, static_argnums=0)
def _consider(held, policy, boundaries, state, token, seen, following):
    """The policy on one thinking token: (whether it exits after it, the smoothed signals, the policy's next state).

    seen: its signals, or None, and its readings. held: the names of these signals.
    """
    tokens = jnp.asarray(token, jnp.int32).reshape(1, 1)
    after = jnp.asarray(following, jnp.int32).reshape(1, 1)
    boundary = boundaries.mask(tokens, after)
    signals = None
    if seen[0] is not None:
        columns = columns_of(jnp.concatenate(seen), (*held, *READINGS), policy.reads)
        signals = columns.reshape(1, 1, len(policy.reads))
    valid = jnp.ones((1, 1), bool)
    column, smoothed = policy.decide(state, tokens, signals, boundary, valid, jnp.zeros((1,), bool))
    state = policy.commit(state, tokens, signals, boundary, valid, jnp.ones((1,), jnp.int32))
    return column[0] == 0, smoothed[0, 0], state
