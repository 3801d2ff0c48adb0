"""Exits on trial against the slow reference decoder and against forced answers; a failed trial leaves no trace in the
state."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_case import (
    DRAFT,
    END,
    QUICK,
    STOP,
    VOCABULARY,
    Requests,
    is_spoilt,
    run,
    slot_request,
    tiny_params,
    tiny_spec,
)

from specexit_jax.annotation.replay import replay
from specexit_jax.decoding import verify
from specexit_jax.decoding.drafts import drafting
from specexit_jax.decoding.forced.one_at_a_time import ForceSpec, force_answers
from specexit_jax.decoding.keyed import keyed_sample
from specexit_jax.decoding.loop.prefill import empty_state, prefill
from specexit_jax.decoding.loop.segments import result_of_row
from specexit_jax.decoding.loop.speculative import decode, make_loop
from specexit_jax.decoding.loop.step import step
from specexit_jax.decoding.oracle import decode_slowly
from specexit_jax.decoding.rows import PromptRows
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.decoding.state import write_rows
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.exits.boundaries import TokenBoundaries
from specexit_jax.exits.policy import Deer, NeverExit
from specexit_jax.models.target import Target

MAX_ANSWER = 5
GREEDY, SAMPLED = Sampling(), tiny_spec().sampling
LATE = dataclasses.replace(DRAFT, signals="draft")
BOUNDARIES = TokenBoundaries(jnp.arange(VOCABULARY, dtype=jnp.int32) % 4 == 3)
PARAMS = tiny_params()


def deer(seed: int, sampling: Sampling = SAMPLED) -> Deer:
    """A threshold of confidence that some answers of the random model exceed; it depends on the seed of the batch."""
    low, high = (0.13, 0.2) if sampling.greedy else (0.04, 0.1)
    return Deer(jnp.float32(np.random.default_rng(seed).uniform(low, high)), MAX_ANSWER)


@functools.cache
def oracle(seed: int, row: int, sampling: Sampling, end=(END,)):
    one, spec = Requests.random(8, seed).row(row), tiny_spec(0, sampling=sampling, end_think_ids=end)
    return decode_slowly(spec, PARAMS, slot_request(spec, one, 0), deer(seed, sampling), BOUNDARIES)


def assert_same(result, seed: int, sampling: Sampling, end=(END,)) -> None:
    """Every row equals that of the oracle, and so does its number of trial tokens."""
    for row in range(8):
        slow = oracle(seed, row, sampling, end)
        assert result.tokens[row, : int(result.length[row])].tolist() == slow.tokens, (seed, row)
        found = [result.finished, result.think_end, result.exit_position, result.trials, result.trial_tokens]
        expected = [slow.finished, slow.think_end, slow.exit_position, slow.trials, slow.trial_tokens]
        assert [field[row] for field in found] == expected, (seed, row)


def knowing(monkeypatch):
    """`decode` with drafts that are the target's own next tokens, also during trials; some of them are spoilt."""

    def propose(loop, state, pairs, last, live):
        spec, tokens, root, drafts = loop.spec, state.tokens, state.root[:, None], []
        places = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :], tokens.shape)
        for ahead in range(spec.draft_tokens):
            position = state.length[:, None] + jnp.int32(ahead)
            tokens = write_rows(tokens, root, position[:, 0])
            logits = Target(spec.target).apply({"params": loop.params.target}, tokens, places).logits
            logits = jnp.take_along_axis(logits, position[:, :, None], axis=1, mode="clip")
            root = keyed_sample(logits, state.keys, position + 1, state.sampling)
            root = verify.force_end(root, position + 1, state.exit_position, spec.end_think_ids)
            spoilt = is_spoilt(position + 1, jnp.arange(tokens.shape[0], dtype=jnp.int32)[:, None])
            drafts.append(jnp.where(spoilt, (root + 1) % VOCABULARY, root))
        return jnp.concatenate(drafts, axis=1), pairs.cache

    monkeypatch.setattr(drafting, "propose", propose)
    quick = jax.jit(decode.__wrapped__, static_argnums=0, compiler_options=QUICK)
    return lambda spec, params, rows, *rest: jax.device_get(quick(spec.bare, params, spec.rows(rows), *rest))


@pytest.mark.parametrize(
    ("draft_tokens", "sampling", "end"),
    [(0, SAMPLED, (END,)), (0, GREEDY, (END,)), (3, SAMPLED, (END,)), (3, GREEDY, (END,)), (3, SAMPLED, (END, 9, 8))],
)
def test_equals_the_oracle(monkeypatch, draft_tokens, sampling, end):
    decoded, spec = knowing(monkeypatch), tiny_spec(draft_tokens, sampling=sampling, end_think_ids=end)
    failed, stood, steps, tokens = 0, 0, 0, 0
    for seed in range(8):
        requests = Requests.random(8, seed)
        result = decoded(spec, PARAMS, requests.rows(), deer(seed, sampling), BOUNDARIES)
        assert_same(result, seed, sampling, end)
        failed, stood = failed + int(result.trials.sum()), stood + int((result.exit_position >= 0).sum())
        steps, tokens = steps + int(result.steps.sum()), tokens + int(result.trial_tokens.sum())
        tokens += int((result.length - requests.prompt_length).sum())
    assert failed > 12 and stood > 12
    assert steps < (0.75 if draft_tokens else 1.2) * tokens, "drafts must be accepted for the test to mean anything"


def test_trees_are_on_trial_too():
    spec = tiny_spec(3, tree=TreeShape(3, 2, 6))
    for seed in range(3):
        assert_same(run(spec, PARAMS, Requests.random(8, seed).rows(), deer(seed), BOUNDARIES), seed, SAMPLED)


def test_replay_on_forced_answers_gives_the_very_outcome():
    """The first boundary whose forced answer is likely enough, computed without the trials of the loop and of the oracle."""
    spec, exits, failed = tiny_spec(0), 0, 0
    force = ForceSpec(spec.target, spec.sampling, MAX_ANSWER, spec.stop_ids, spec.end_think_ids)
    forced_answers = jax.jit(force_answers.__wrapped__, static_argnums=0, compiler_options=QUICK)
    for seed in range(8):
        requests = Requests.random(8, seed)
        requests = dataclasses.replace(requests, thinking=np.ones((8,), bool))
        rows = requests.rows()
        think = run(spec, PARAMS, rows, NeverExit(), BOUNDARIES)
        traces = [_trace(think, row) for row in range(8)]
        own = [[i for i, t in enumerate(x["ids"][: x["thinking"]]) if bool(BOUNDARIES.always[t])] for x in traces]
        places = np.full((8, 40), -1, np.int32)
        for row, found in enumerate(own):
            places[row, : len(found)] = np.asarray(found, np.int32) + requests.prompt_length[row]
        forced = jax.device_get(
            forced_answers(force, PARAMS.target, think.tokens, places, requests.keys, requests.max_length)
        )
        labels = [_label(trace, found, forced, row) for row, (trace, found) in enumerate(zip(traces, own, strict=True))]
        decoded = run(spec, PARAMS, rows, deer(seed), BOUNDARIES)
        for row, shown in enumerate(replay(deer(seed), traces, labels, None, spec.end_think_ids)):
            start, length = int(requests.prompt_length[row]), int(decoded.length[row])
            left = int(decoded.exit_position[row]) - start if decoded.exit_position[row] >= 0 else None
            ids = tuple(decoded.tokens[row, start:length].tolist())
            assert (shown.exit_index, shown.trial_tokens) == (left, int(decoded.trial_tokens[row]))
            # labels cut answers at max_answer; the loop continues an answer that stands
            assert shown.ids == ids[: len(shown.ids)]
            exits, failed = exits + (left is not None), failed + int(decoded.trials[row])
    assert exits > 12 and failed > 12


def _trace(think, row: int) -> dict:
    start, length, end = (int(x[row]) for x in (think.prompt_length, think.length, think.think_end))
    ids = think.tokens[row, start:length].tolist()
    ended = end - start if end >= 0 else None
    thinking = len(ids) if ended is None else ended
    return {"id": f"{row}", "ids": ids, "think_end": ended, "thinking": thinking, "correct": True, "answer": None}


def _label(trace: dict, places: list[int], forced, row: int) -> dict:
    ids = [forced.ids[row, n, : forced.length[row, n]].tolist() for n in range(len(places))]
    return {
        "id": trace["id"],
        "boundaries": places,
        "forced_ids": ids,
        "forced": [None] * len(ids),
        "correct": [False] * len(ids),
        "logprob": forced.log_probability[row, : len(places)].tolist(),
    }


@functools.partial(jax.jit, compiler_options=QUICK)
def _one_step(loop, state):
    return step(loop, loop.spec.capacity, state)


@functools.partial(jax.jit, compiler_options=QUICK)
def _start(loop, rows):
    state = empty_state(loop, rows.size, loop.spec.capacities_for(loop.spec.capacity))
    return prefill(loop, (rows.prompts.shape[1], loop.spec.capacity), state, rows, rows.prompt_length * 0)


@pytest.mark.parametrize("draft", [DRAFT, LATE], ids=["fc", "draft"])
def test_a_failed_trial_leaves_the_row_as_a_prefill_of_its_text_would(draft):
    """Length, root, drafts and late signals are restored, and results read between steps hold no answer on trial."""
    spec, params = tiny_spec(3, draft=draft, record_signals=True), tiny_params(draft=draft)
    loop, requests = make_loop(spec, params, Deer(jnp.float32(1.0), MAX_ANSWER), BOUNDARIES), Requests.random(8, 1)
    requests = dataclasses.replace(requests, max_length=np.full((8,), 40, np.int32), thinking=np.ones((8,), bool))
    think = run(spec, params, requests.rows(), NeverExit(), BOUNDARIES)
    states = [_start(loop, requests.rows())]
    while not bool(states[-1].done.all()):
        states.append(_one_step(loop, states[-1]))
    failed = 0
    for before, state in zip(states[:-1], jax.device_get(states[1:]), strict=True):
        rows = np.flatnonzero((np.asarray(before.trial.start) >= 0) & (state.trial.start < 0))
        for row in np.flatnonzero(state.trial.start >= 0):
            shown = result_of_row(spec, state, jnp.int32(row), jnp.asarray(requests.prompt_length[row : row + 1]))
            assert (int(shown.exit_position[0]), int(shown.think_end[0])) == (-1, -1)
            assert shown.tokens[0].tolist() == (think.tokens[row] * (np.arange(40) < int(shown.length[0]))).tolist()
        if not len(rows):
            continue
        told = (state.length, state.keys, state.thinking, state.max_length, state.sampling, state.may_exit)
        fresh = _start(loop, PromptRows(state.tokens[:, : spec.buffer_length], *told))
        for row in rows:
            assert state.thinking[row] and not state.done[row] and not state.finished[row]
            assert state.length[row] == before.trial.start[row]
            assert state.root[row] == fresh.root[row]
            assert state.accept_histogram[row].tolist() == before.accept_histogram[row].tolist()
            if state.root[row] == STOP:  # prefill writes it at once, a row that was on trial in its next step
                continue
            assert state.drafts[row].tolist() == fresh.drafts[row].tolist()
            if draft is LATE:
                np.testing.assert_allclose(state.root_signals[row], fresh.root_signals[row], rtol=1e-4, atol=1e-5)
            failed += 1
    assert failed > 12
    ended = jax.device_get(states[-1])
    np.testing.assert_array_equal(ended.length, think.length)
    for row, length in enumerate(ended.length):
        start = int(requests.prompt_length[row])
        assert ended.tokens[row, :length].tolist() == think.tokens[row, :length].tolist()
        kept = slice(start, int(length) - 1)  # the stop token may come without a step of its own
        np.testing.assert_allclose(ended.signals[row, kept], think.signals[row, kept], rtol=1e-4, atol=1e-5)


def test_a_row_does_not_depend_on_its_batch():
    spec, requests, policy = tiny_spec(3), Requests.random(8, 2), deer(2)
    together = run(spec, PARAMS, requests.rows(), policy, BOUNDARIES)
    assert int(together.trials.sum()) > 3
    for row in range(8):
        alone = run(spec, PARAMS, requests.row(row).rows(), policy, BOUNDARIES)
        for field in ("tokens", "length", "finished", "exit_position", "steps", "trial_tokens", "accept_histogram"):
            np.testing.assert_array_equal(getattr(alone, field)[0], getattr(together, field)[row], err_msg=field)


def test_plain_decoding_pays_a_step_for_every_token_tried():
    requests = dataclasses.replace(Requests.random(8, 1), max_length=np.full((8,), 40, np.int32))
    think = run(tiny_spec(0), PARAMS, requests.rows(), NeverExit(), BOUNDARIES)
    never = Deer(jnp.float32(1.0), MAX_ANSWER)
    tried = run(tiny_spec(0), PARAMS, requests.rows(), never, BOUNDARIES)
    assert think.trials is None and think.trial_tokens is None
    np.testing.assert_array_equal(tried.tokens, think.tokens)
    extra = tried.steps - think.steps - tried.trial_tokens
    assert int(tried.trial_tokens.sum()) > 20
    # a stop token that follows a boundary is written by a step of its own after the trial
    assert set(extra.tolist()) <= {0, 1}


def test_an_answer_without_a_token_never_stands():
    assert Deer(jnp.float32(0.5)).stands(jnp.zeros((2,)), jnp.array([0, 1], jnp.int32)).tolist() == [False, True]
