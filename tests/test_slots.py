"""Refilled slots: every request gives the same result as alone, for any slots, order and neighbours."""

import dataclasses
import functools
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_case import SAMPLED, VOCABULARY, Requests, boundary_table, run, slot_request, tiny_params, tiny_spec

from specexit_jax.decoding import resizing
from specexit_jax.decoding.loop import segments
from specexit_jax.decoding.loop.speculative import make_loop
from specexit_jax.decoding.rows import SlotRequest
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.engine.scheduler import serve
from specexit_jax.engine.slots import Slots
from specexit_jax.exits.policy import NeverExit, Threshold

POLICY = Threshold(jnp.array([0.4, 0.4, 1.5], jnp.float32))
FIELDS = ("tokens", "length", "finished", "think_end", "exit_position", "steps", "accept_histogram", "exit_signals")


@functools.cache
def params():
    return tiny_params()


def loop_of(spec, policy=POLICY):
    return make_loop(spec, params(), policy, boundary_table())


def words(seed: int, number: int = 1):
    """The words of the keys of split(key(seed))."""
    return np.asarray(jax.random.key_data(jax.random.split(jax.random.key(seed), number)))


def assert_same(result, alone, row: int, fields=FIELDS):
    for field in fields:
        expected = getattr(alone, field)[row]
        np.testing.assert_allclose(getattr(result, field)[0], expected, rtol=1e-4, atol=1e-6, err_msg=field)


SPECS = {
    "plain": tiny_spec(0, sampling=SAMPLED),
    "chain": tiny_spec(3, sampling=SAMPLED, live_prefixes=(20,)),
    "greedy": tiny_spec(2, sampling=Sampling(repetition_penalty=1.4)),
    "tree": tiny_spec(3, sampling=SAMPLED, tree=TreeShape(3, 2, 6)),
}


@pytest.mark.parametrize("name", SPECS)
def test_every_request_is_what_it_is_alone(name):
    spec = SPECS[name]
    requests = Requests.random(24, 11)
    alone = run(spec, params(), requests.rows(), POLICY, boundary_table())
    order = np.random.default_rng(0).permutation(24)
    slots, found = Slots(loop_of(spec), 3), {}
    for row, result, seconds in serve(slots, ((row, slot_request(spec, requests, row)) for row in order)):
        assert row not in found
        assert seconds >= 0
        found[row] = result
    assert len(found) == 24
    for row, result in found.items():
        assert_same(result, alone, row)


def test_pieces_of_the_loop_change_nothing():
    spec, requests = SPECS["chain"], Requests.random(8, 3)
    alone = run(spec, params(), requests.rows(), POLICY, boundary_table())
    slots = Slots(loop_of(spec), 2)
    for row in range(8):
        slots.admit(1, slot_request(spec, requests, row))
        seen = len(slots.requests[1].prompt)
        while not slots.done[1]:
            slots.run(steps=1)
            result = slots.result(1)
            length = int(result.length[0])
            np.testing.assert_array_equal(result.tokens[0, seen:length], alone.tokens[row, seen:length])
            seen = length
        assert_same(slots.result(1), alone, row)


LONG = dataclasses.replace(SPECS["chain"], buffer_length=80, stop_ids=())


@functools.cache
def long_prompts():
    """(four requests for slots of LONG, what they write in one batch)"""
    prompts = np.random.default_rng(5).integers(7, VOCABULARY, (4, 40)).astype(np.int32)
    lengths, keys = np.array([5, 40, 33, 7], np.int32), jax.random.split(jax.random.key(1), 4)
    limits, thinking = lengths + 30, np.ones((4,), bool)
    alone = run(LONG, params(), Requests(prompts, lengths, keys, thinking, limits).rows(), POLICY, boundary_table())
    asked = [
        SlotRequest(tuple(prompts[row, : lengths[row]].tolist()), words(1, 4)[row], True, int(limits[row]), SAMPLED)
        for row in range(4)
    ]
    return asked, alone


@pytest.fixture
def chunks_of_eight(monkeypatch):
    monkeypatch.setattr("specexit_jax.engine.slots.CHUNK", 8)
    monkeypatch.setattr("specexit_jax.engine.slots.SHORTEST", 4)


def test_other_rows_decode_between_the_pieces_of_a_long_prompt(monkeypatch, chunks_of_eight):
    """And every request is what it is alone."""
    monkeypatch.setattr("specexit_jax.engine.scheduler.BETWEEN", 2)
    asked, alone = long_prompts()
    slots, happened = Slots(loop_of(LONG), 2), []
    absorb, decode = segments.absorb_row, slots.run
    monkeypatch.setattr(segments, "absorb_row", lambda *given: happened.append("read") or absorb(*given))
    monkeypatch.setattr(slots, "run", lambda **given: happened.append(given.get("steps")) or decode(**given))
    found = {row: result for row, result, _ in serve(slots, enumerate(asked))}
    assert happened[:6] == ["read", 2] * 3, "a chunk of the second prompt, then two iterations of the first"
    for row in range(4):
        assert_same(found[row], alone, row)


def test_growing_caches_frees_each_array_before_the_next():
    slots = Slots(loop_of(LONG), 2)
    held = [weakref.ref(leaf) for leaf in (*slots.cache.k, *slots.cache.v)]
    call, alive = slots.programs.call, []

    def counted(function, *given):
        if function is resizing.resize_array:
            alive.append(sum(each() is not None for each in held))
        return call(function, *given)

    slots.programs.call = counted
    slots.resize(slots.loop.spec.prefixes[-1])
    assert alive[: len(held)] == list(range(len(held), 0, -1))
    assert slots.cache.capacity == slots.loop.spec.capacities_for(slots.loop.spec.prefixes[-1])[0]


def test_a_long_prompt_goes_in_by_pieces(chunks_of_eight):
    asked, alone = long_prompts()
    slots = Slots(loop_of(LONG), 2)
    for row, request in enumerate(asked):
        slots.admit(0, request)
        slots.run()
        assert_same(slots.result(0), alone, row)


@pytest.mark.parametrize("name", ["chain", "plain", "tree"])
def test_a_prompt_that_goes_on_computes_its_own_tokens(name):
    """The second prompt shares 12 tokens with the first prompt and answer. The tokens after these are computed again."""
    spec = dataclasses.replace(SPECS[name], buffer_length=60)
    slots, key = Slots(loop_of(spec, NeverExit()), 1), words(4)[0]
    first = SlotRequest(tuple(range(7, 17)), key, True, 40, SAMPLED)
    assert slots.admit(0, first) == 10
    slots.run()
    before = slots.result(0).tokens[0]
    second = SlotRequest((*before[:12].tolist(), 30, 31, 32, 33), words(5)[0], True, 60, SAMPLED)
    assert slots.admit(0, second, held=12) == 5
    slots.run()
    fresh = Slots(loop_of(spec, NeverExit()), 1)
    assert fresh.admit(0, second) == 16
    fresh.run()
    assert_same(slots.result(0), fresh.result(0), 0)


def test_stopped_and_refused_requests():
    slots = Slots(loop_of(SPECS["chain"], NeverExit()), 2)
    request = SlotRequest(tuple(range(7, 12)), words(1)[0], True, 40, SAMPLED)
    slots.admit(0, request)
    slots.run(steps=2)
    assert slots.active == 1
    length = int(slots.result(0).length[0])
    slots.stop(0)
    assert slots.active == 0
    slots.run()
    assert int(slots.result(0).length[0]) == length
    with pytest.raises(ValueError, match="does not fit a buffer of 40"):
        slots.admit(1, dataclasses.replace(request, prompt=(7,) * 41))
    with pytest.raises(ValueError, match="single slot"):
        slots.admit(1, request, held=3)
    with pytest.raises(ValueError, match="at least 1 slot"):
        Slots(loop_of(SPECS["chain"]), 0)
