"""The loop against the slow reference decoder and against itself: methods, drafts, batches, exits, ends, limits."""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_case import (
    DRAFT,
    QUICK,
    TARGET,
    VOCABULARY,
    Requests,
    boundary_table,
    is_spoilt,
    rigged,
    run,
    slot_request,
    tiny_params,
    tiny_spec,
)

from specexit_jax.annotation.features import extract
from specexit_jax.annotation.replay import replay
from specexit_jax.decoding.forced.one_at_a_time import ForceSpec, force_answers
from specexit_jax.decoding.loop.closing import closing_table
from specexit_jax.decoding.loop.speculative import decode, head_of
from specexit_jax.decoding.oracle import decode_slowly
from specexit_jax.decoding.sampling import Sampling, token_log_probability
from specexit_jax.exits.policy import NeverExit, Policy, Released, Threshold, unreachable
from specexit_jax.models.draft_layer import DraftBundle
from specexit_jax.models.target import Target

GREEDY = Sampling()
FILTERED = Sampling(temperature=1.1, top_k=20, top_p=0.9, repetition_penalty=1.3)
LATE = dataclasses.replace(DRAFT, signals="draft")
BATCHES = 12  # of 8 rows
PREFIXES = (20,)


def threshold_policy(seed: int) -> Threshold:
    """Thresholds that a random model's signals pass at some boundaries, by the seed of the batch."""
    rng = np.random.default_rng(seed)
    return Threshold(jnp.array([*rng.uniform(0.2, 0.6, 2), rng.uniform(0.5, 3.0)], jnp.float32))


@functools.cache
def oracle(seed: int, row: int, sampling: Sampling, draft=DRAFT, end=(2,), exits=True):
    """One request, decoded by the oracle, which has no drafts."""
    spec, one = tiny_spec(0, sampling=sampling, draft=draft, end_think_ids=end), Requests.random(8, seed).row(row)
    params = params_of(draft, len(end) > 1)
    policy = threshold_policy(seed) if exits else NeverExit()
    return decode_slowly(spec, params, slot_request(spec, one, 0), policy, boundary_table())


@functools.cache
def params_of(draft, in_text=False):
    """in_text: the model's own `</think>` is found in the text; many tokens hold a part of it."""
    if not in_text:
        return tiny_params(draft=draft)
    pieces = (
        "<",
        "</",
        "</thi",
        ")</think",
        "</think",
        "/think>",
        "think>",
        "nk>\n\n",
        "think>\n",
        ">",
        "> a",
        "</think>.",
    )
    texts = [pieces[token % len(pieces)] if token > 6 else "." for token in range(VOCABULARY)]
    return params_of(draft).replace(closing=jnp.asarray(closing_table(texts, "</think>")))


def same(result, row: int, slow) -> bool:
    """Whether a row equals the oracle's. A difference is allowed only where the oracle's choice was nearly a tie."""
    tokens = result.tokens[row, : int(result.length[row])].tolist()
    if tokens != slow.tokens:
        first = next(i for i, (a, b) in enumerate(zip(tokens, slow.tokens, strict=False)) if a != b)
        assert slow.gaps[first - slow.prompt_length] < 1e-4, f"row {row} differs at position {first}"
        return False
    assert bool(result.finished[row]) == slow.finished
    assert (int(result.think_end[row]), int(result.exit_position[row])) == (slow.think_end, slow.exit_position)
    np.testing.assert_allclose(result.exit_signals[row], slow.exit_signals, rtol=1e-4, atol=1e-5)
    return True


def run_case(spec, seed: int, policy):
    return run(spec, params_of(spec.draft), Requests.random(8, seed).rows(), policy, boundary_table())


@pytest.mark.parametrize(
    ("draft_tokens", "sampling", "batches"),
    [(0, tiny_spec().sampling, BATCHES), (3, tiny_spec().sampling, BATCHES), (1, GREEDY, 8)],
)
def test_equals_the_oracle(draft_tokens, sampling, batches):
    spec = tiny_spec(draft_tokens, sampling=sampling, live_prefixes=PREFIXES if draft_tokens == 3 else ())
    equal, exits, stops = 0, 0, 0
    for seed in range(batches):
        result = run_case(spec, seed, threshold_policy(seed))
        equal += sum(same(result, row, oracle(seed, row, sampling)) for row in range(8))
        exits += int((result.exit_position >= 0).sum())
        stops += int(result.finished.sum())
    assert equal >= 8 * batches - 1
    assert exits >= batches // 2
    assert stops >= batches // 2


def test_a_row_whose_exits_are_not_taken_writes_what_it_writes_without_a_policy():
    spec, params, left = tiny_spec(3, live_prefixes=PREFIXES), params_of(DRAFT), 0
    for seed in range(8):
        rows, taken = Requests.random(8, seed).rows(), np.arange(8) % 2 == seed % 2
        mixed = run(spec, params, rows.replace(may_exit=taken), threshold_policy(seed), boundary_table())
        exiting = run_case(spec, seed, threshold_policy(seed))
        never = run(tiny_spec(3), params, rows, NeverExit(), boundary_table())
        for row in range(8):
            alone = exiting if taken[row] else never
            assert mixed.tokens[row].tolist() == alone.tokens[row].tolist()
            assert mixed.exit_position[row] == alone.exit_position[row]
        left += int((exiting.exit_position[~taken] >= 0).sum())
        slow = dataclasses.replace(slot_request(spec, Requests.random(8, seed), 0), may_exit=bool(taken[0]))
        assert same(mixed, 0, decode_slowly(spec, params, slow, threshold_policy(seed), boundary_table()))
    assert left >= 4


def test_a_tied_table_laid_out_before_the_loop_writes_the_oracles_tokens():
    tied = dataclasses.replace(TARGET, tie_embeddings=True)
    spec, params = tiny_spec(3, target=tied), tiny_params(tied)
    assert head_of(spec, params).shape == (TARGET.hidden_size, VOCABULARY)
    assert head_of(tiny_spec(0, target=tied), params) is None
    equal = 0
    for seed in range(4):
        requests = Requests.random(8, seed)
        result = run(spec, params, requests.rows(), NeverExit(), boundary_table())
        for row in range(8):
            plain = tiny_spec(0, target=tied)
            request = slot_request(plain, requests, row)
            equal += same(result, row, decode_slowly(plain, params, request, NeverExit(), boundary_table()))
    assert equal >= 31


def truths(seed: int, sampling, draft, end):
    """The true tokens of a rigged draft: of the run without exits for even rows, of the run with exits for odd rows."""
    slow = [oracle(seed, row, sampling, draft, end, bool(row % 2)) for row in range(8)]
    return jnp.asarray([row.tokens + [0] * (40 - len(row.tokens)) for row in slow], jnp.int32)


@pytest.mark.parametrize(
    ("draft_tokens", "sampling", "draft", "end"),
    [(5, FILTERED, DRAFT, (2,)), (3, tiny_spec().sampling, LATE, (2, 9, 7))],
    ids=["filtered", "draft-signals-and-three-token-end"],
)
def test_equals_the_oracle_when_drafts_are_good(monkeypatch, draft_tokens, sampling, draft, end):
    run_rigged = rigged(monkeypatch)
    spec = tiny_spec(draft_tokens, sampling=sampling, draft=draft, end_think_ids=end)
    equal, accepted, exits, closed = 0, np.zeros(draft_tokens + 1, int), 0, 0
    for seed in range(8):
        arguments = (Requests.random(8, seed).rows(), threshold_policy(seed), boundary_table())
        params = params_of(draft, len(end) > 1)
        result = run_rigged(spec, params, truths(seed, sampling, draft, end), *arguments)
        equal += sum(same(result, row, oracle(seed, row, sampling, draft, end)) for row in range(8))
        accepted += np.asarray(result.accept_histogram.sum(axis=0))
        exits += int((result.exit_position >= 0).sum())
        closed += int(((result.think_end >= 0) & (result.exit_position < 0)).sum())
    assert equal >= 63 and closed >= 8
    assert accepted.min() > 0, "every acceptance length must occur for the test to mean anything"
    assert exits >= 4


def test_late_signals_are_those_of_what_was_written():
    """Also after an exit, whose `</think>` differs from the sampled token."""
    spec, exits = tiny_spec(3, draft=LATE, record_signals=True), 0
    params = params_of(LATE)
    bundle = DraftBundle(LATE, params.draft, params.d2t)
    for seed in range(4):
        requests = Requests.random(8, seed)
        result = run(spec, params, requests.rows(), threshold_policy(seed), boundary_table())
        written = [result.tokens[row, : int(result.length[row])].tolist() for row in range(8)]
        starts = np.asarray(requests.prompt_length).tolist()
        traces = [
            {"id": row, "prompt_ids": ids[:start], "ids": ids[start:]}
            for row, (ids, start) in enumerate(zip(written, starts, strict=True))
        ]
        found = extract(spec.target, params.target, (2,), traces, bundle).signals
        for row, start in enumerate(starts):
            own = np.asarray(result.signals[row, start : int(result.length[row])])
            # The last token is never an input.
            np.testing.assert_allclose(own[:-1], found[row][:-1, :3], rtol=1e-3, atol=1e-4)
            exits += start <= int(result.exit_position[row]) < int(result.length[row]) - 1
    assert exits >= 4


def test_every_method_writes_the_same_tokens_up_to_the_exit(monkeypatch):
    run_rigged = rigged(monkeypatch)
    cut = 0
    for seed in range(12):
        think = run_case(tiny_spec(0), seed, NeverExit())
        probe = run_case(tiny_spec(0), seed, threshold_policy(seed))
        arguments = (tiny_spec(3), params_of(DRAFT), think.tokens, Requests.random(8, seed).rows())
        eagle3 = run_rigged(*arguments, NeverExit(), boundary_table())
        specexit = run_rigged(*arguments, threshold_policy(seed), boundary_table())
        np.testing.assert_array_equal(eagle3.tokens, think.tokens)
        np.testing.assert_array_equal(specexit.tokens, probe.tokens)
        np.testing.assert_array_equal(specexit.exit_position, probe.exit_position)
        assert int(eagle3.steps.sum()) < 0.6 * int(think.steps.sum())
        for row in np.flatnonzero(np.asarray(specexit.exit_position) >= 0):
            end = int(specexit.exit_position[row])
            np.testing.assert_array_equal(specexit.tokens[row, :end], think.tokens[row, :end])
            cut += 1
    assert cut > 12


def test_a_row_does_not_depend_on_its_batch():
    spec, requests, policy = tiny_spec(3, live_prefixes=PREFIXES), Requests.random(8, 3), threshold_policy(3)
    together = run_case(spec, 3, policy)
    for row in range(8):
        alone = run(spec, params_of(DRAFT), requests.row(row).rows(), policy, boundary_table())
        for field in ("tokens", "length", "finished", "think_end", "exit_position", "steps", "accept_histogram"):
            np.testing.assert_array_equal(getattr(alone, field)[0], getattr(together, field)[row], err_msg=field)


@flax.struct.dataclass
class ExitAfter(Policy):
    """Exits after thinking token number `last` of each row, wherever that is."""

    last: jax.Array

    def init(self, batch):
        return jnp.zeros((batch,), jnp.int32)

    def decide(self, state, tokens, signals, boundary, valid, closes=None):
        column = self.last - state
        width = tokens.shape[1]
        here = jnp.clip(column, 0, width - 1)
        granted = (column >= 0) & (column < width) & jnp.take_along_axis(valid, here[:, None], axis=1)[:, 0]
        return jnp.where(granted, here, width), jnp.zeros((*tokens.shape, 0), jnp.float32)

    def commit(self, state, tokens, signals, boundary, valid, count):
        return state + count


def test_an_exit_discards_a_stop_token_that_was_accepted_after_it(monkeypatch):
    """Exits just before the model's own stop token, mostly in the same step: the row continues with its answer."""
    run_rigged, discarded = rigged(monkeypatch), 0
    for seed in range(4):
        requests = dataclasses.replace(Requests.random(8, seed), thinking=np.ones((8,), bool))
        think = run_case_of(tiny_spec(0), requests, NeverExit())
        last = np.where(think.finished & (think.think_end < 0), think.length - think.prompt_length - 2, 1000)
        policy = ExitAfter(jnp.asarray(last, jnp.int32))
        plain = run_case_of(tiny_spec(0), requests, policy)
        arguments = (params_of(DRAFT), think.tokens, requests.rows(), policy, boundary_table())
        drafted = run_rigged(tiny_spec(3), *arguments)
        for field in ("tokens", "length", "finished", "exit_position"):
            np.testing.assert_array_equal(getattr(drafted, field), getattr(plain, field), err_msg=field)
        discarded += int((plain.exit_position >= 0).sum())
    assert discarded > 4


def run_case_of(spec, requests, policy):
    return run(spec, params_of(DRAFT), requests.rows(), policy, boundary_table())


def test_forced_answers_are_what_an_exit_writes():
    end = (2, 9)
    spec = tiny_spec(0, draft=None, end_think_ids=end)
    requests = Requests.random(8, 5)
    requests = dataclasses.replace(requests, thinking=np.ones((8,), bool))
    rows, params = requests.rows(), params_of(DRAFT)
    trace = run(spec, params, rows, NeverExit(), boundary_table())
    think_end = np.where(trace.think_end >= 0, trace.think_end, trace.length)
    last = np.stack([np.array([0, 2, 3, 7]) for _ in range(8)])
    boundaries = np.asarray(requests.prompt_length)[:, None] + last
    boundaries = np.where(boundaries < np.minimum(think_end, np.asarray(trace.length) - 1)[:, None], boundaries, -1)
    force = ForceSpec(spec.target, spec.sampling, 12, spec.stop_ids, end, live_prefixes=(24,), return_features=True)
    places = jnp.asarray(boundaries, jnp.int32)
    forced = _forced(force, params.target, trace.tokens, places, requests.keys, requests.max_length)
    forced, checked = jax.device_get(forced), 0
    for number in range(4):
        exited = run(spec, params, rows, ExitAfter(jnp.asarray(last[:, number], jnp.int32)), boundary_table())
        exited, features, logs = jax.device_get((exited, *_score(force.target, params.target, exited.tokens)))
        for row in np.flatnonzero(boundaries[:, number] >= 0):
            start, length = boundaries[row, number] + 1, int(forced.length[row, number])
            first = start + len(end)
            assert int(exited.exit_position[row]) == start
            expected = exited.tokens[row, first : int(exited.length[row])][:12].tolist()
            assert forced.ids[row, number, :length].tolist() == expected
            np.testing.assert_allclose(forced.features[row, number], features[row, start - 1], rtol=1e-4, atol=1e-5)
            mean = logs[row, first - 1 : first - 1 + length].mean() if length else 0.0
            np.testing.assert_allclose(forced.log_probability[row, number], mean, rtol=1e-4, atol=1e-5)
            checked += length
    assert checked > 60
    assert (forced.length[boundaries < 0] == 0).all()


_forced = jax.jit(force_answers.__wrapped__, static_argnums=0, compiler_options=QUICK)


def test_an_exit_needs_room_for_all_of_the_end_in_loop_oracle_and_replay():
    """One request under length limits near its exit: under none is a part of `</think>` written."""
    end, last, row = (2, 9), 3, 0
    spec, params = tiny_spec(0, draft=None, end_think_ids=end), params_of(DRAFT)
    one = Requests.random(8, 5).row(row)
    start = int(one.prompt_length[0])
    limits = (start + last + 1 + np.arange(8)).astype(np.int32)
    same = [np.repeat(values, 8, axis=0) for values in (one.prompts, one.prompt_length)]
    requests = Requests(*same, jnp.repeat(one.keys, 8), np.ones((8,), bool), limits)
    rows = requests.rows()
    think = run(spec, params, rows, NeverExit(), boundary_table())
    decoded = run(spec, params, rows, ExitAfter(jnp.full((8,), last, jnp.int32)), boundary_table())
    assert (decoded.exit_position >= 0).tolist() == [False, False, *[True] * 6] and think.think_end.max() < 0
    places = np.full((8, 4), -1, np.int32)
    places[:, 0] = start + last
    force = ForceSpec(spec.target, spec.sampling, 12, spec.stop_ids, end, live_prefixes=(24,), return_features=True)
    forced = jax.device_get(_forced(force, params.target, think.tokens, places, requests.keys, limits))
    for row, limit in enumerate(limits.tolist()):
        trace = {"id": "a", "task": "a", "ids": think.tokens[row, start : int(think.length[row])].tolist()}
        trace |= {"think_end": None, "correct": False, "answer": None}
        ids = forced.ids[row, 0, : int(forced.length[row, 0])].tolist()
        label = {"id": "a", "boundaries": [last], "forced_ids": [ids], "forced": [None], "correct": [False]}
        label |= {"finished": [bool(ids)]}
        written = decoded.tokens[row, start : int(decoded.length[row])].tolist()
        for told in ({}, {"exits_before": limit - start - len(end)}):
            (shown,) = replay(ExitAfter(jnp.int32(last)), [trace], [label | told], None, end)
            assert list(shown.ids) == written and (shown.exit_index is None) == (row < 2)
        if row in (1, 2):
            policy = ExitAfter(jnp.int32(last))
            slow = decode_slowly(spec, params, slot_request(spec, requests, row), policy, boundary_table())
            assert slow.tokens[start:] == written


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def _score(config, params, tokens):
    """Features of every token, and the log-probability of every token but the first, from one plain forward pass."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :], tokens.shape)
    out = Target(config).apply({"params": params}, tokens, positions)
    return out.features, token_log_probability(out.logits[:, :-1], tokens[:, 1:])


def test_released_rule_follows_the_verify_steps(monkeypatch):
    """The released rule, simulated on the host over the steps that the rigged draft causes."""
    run_rigged, draft_tokens, exits = rigged(monkeypatch), 3, 0
    policy = Released(jnp.array([0.4, 0.3, 2.5], jnp.float32))
    recording, table = tiny_spec(0, record_signals=True), np.asarray(boundary_table().always)
    for seed in range(8):
        requests = Requests.random(8, seed)
        think = run_case(recording, seed, NeverExit())
        arguments = (tiny_spec(draft_tokens), params_of(DRAFT), think.tokens, requests.rows())
        result = run_rigged(*arguments, policy, boundary_table())
        for row in range(8):
            expected = _released_exit(think, requests, row, table, draft_tokens, np.asarray(policy.thresholds))
            assert int(result.exit_position[row]) == expected
            exits += expected >= 0
    assert exits > 8


def _released_exit(think, requests, row, table, draft_tokens, thresholds) -> int:
    """Position of the forced `</think>`. Scores of earlier steps decide at the first boundary of a step."""
    tokens, signals = np.asarray(think.tokens[row]), np.asarray(think.signals[row], np.float64)
    stop, score = int(think.length[row]), None
    position = int(requests.prompt_length[row])
    if not bool(requests.thinking[row]):
        return -1
    while position < stop:
        width = 1
        while width <= draft_tokens and not is_spoilt(position + width, row) and position + width < stop:
            width += 1
        step = range(position, min(position + width, stop))
        if 2 in tokens[step]:
            return -1
        split = next((t for t in step if table[tokens[t]]), None)
        passed = score is not None and (score[:2] > thresholds[:2]).all() and score[2] < thresholds[2]
        if split is not None and passed and split + 1 < int(requests.max_length[row]):
            return split + 1
        mean = signals[list(step)].mean(axis=0)
        score = mean if score is None else 0.1 * mean + 0.9 * score
        position += width
    return -1


def test_limits_and_empty_rows():
    spec, requests = tiny_spec(3, live_prefixes=PREFIXES), Requests.random(8, 7)
    limits = requests.prompt_length + np.arange(8, dtype=np.int32) - 1
    result = run_case_with(spec, dataclasses.replace(requests, max_length=limits))
    full = run_case_with(spec, dataclasses.replace(requests, max_length=np.full((8,), 10_000, np.int32)))
    assert int(full.length.max()) == spec.buffer_length
    for row in range(8):
        length = int(result.length[row])
        assert length <= max(int(limits[row]), int(requests.prompt_length[row]))
        np.testing.assert_array_equal(result.tokens[row, :length], full.tokens[row, :length])
        assert bool(result.finished[row]) or length == max(int(limits[row]), int(requests.prompt_length[row]))
    assert int(result.steps[0]) == 0


def run_case_with(spec, requests):
    return run(spec, params_of(DRAFT), requests.rows(), unreachable(), boundary_table())


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="no draft model"):
        tiny_spec(3, draft=None)
    spec, rows = tiny_spec(3, buffer_length=8), Requests.random(8, 0).rows()
    with pytest.raises(ValueError, match="do not fit the buffer of 8"):
        decode(spec, params_of(DRAFT), rows, NeverExit(), boundary_table())
    with pytest.raises(ValueError, match="end_think_ids is empty"):
        decode(tiny_spec(3, end_think_ids=()), params_of(DRAFT), rows, unreachable(), boundary_table())
    with pytest.raises(ValueError, match="reads signals"):
        silent = dataclasses.replace(DRAFT, signals="none")
        decode(tiny_spec(3, draft=silent), params_of(DRAFT), rows, threshold_policy(0), boundary_table())


def test_a_model_that_does_not_think_is_decoded():
    requests = Requests.random(8, 0)
    requests = dataclasses.replace(requests, thinking=jnp.zeros_like(requests.thinking))
    plain = run_case_of(tiny_spec(3), requests, NeverExit())
    found = run_case_of(tiny_spec(3, end_think_ids=()), requests, NeverExit())
    assert found.tokens.tolist() == plain.tokens.tolist()
    assert (found.think_end == -1).all() and (found.exit_position == -1).all()


def test_a_draft_may_read_a_table_of_its_own():
    requests, params = Requests.random(8, 0), params_of(DRAFT)
    arguments = (requests.rows(), NeverExit(), boundary_table())
    table = params.target["embed"]["embedding"]
    shared = run(tiny_spec(3), params, *arguments)
    for own, same_steps in ((table, True), (-table, False)):
        found = run(tiny_spec(3), params.replace(draft=params.draft | {"embed": {"embedding": own}}), *arguments)
        assert found.tokens.tolist() == shared.tokens.tolist()
        assert (found.steps.tolist() == shared.steps.tolist()) == same_steps


def test_drafts_share_the_noise_of_their_positions():
    """With equal logits of draft and target (here all zero) every draft is accepted, because both add the same
    noise."""
    draft = dataclasses.replace(DRAFT, draft_vocab_size=VOCABULARY)
    params = tiny_params(draft=draft)
    target = params.target | {"lm_head": jnp.zeros_like(params.target["lm_head"])}
    silent = params.draft | {"lm_head": jnp.zeros_like(params.draft["lm_head"])}
    params = params.replace(target=target, draft=silent)
    result = run(tiny_spec(3, draft=draft), params, Requests.random(8, 0).rows(), NeverExit(), boundary_table())
    assert result.accept_histogram[:, :3].sum() <= result.finished.sum()  # a stop token ends a step as well
    assert result.accept_histogram[:, 3].sum() > 20
