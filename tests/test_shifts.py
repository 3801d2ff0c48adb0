"""Slots whose number follows the memory: rows are parked and go on, and every request gives the same result as alone."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from decoding_case import SAMPLED, TARGET, Requests, boundary_table, run, slot_request, tiny_params, tiny_spec
from test_sharded_decoding import FILTERED, WIDE, WIDE_DRAFT, sharded
from test_slots import POLICY, assert_same

from specexit_jax.backend import on_mesh
from specexit_jax.decoding.loop.speculative import make_loop
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.engine.budget import budget_for, row_of
from specexit_jax.engine.levels import Level
from specexit_jax.engine.placement import Auto
from specexit_jax.engine.shifts import Shifts
from specexit_jax.engine.slots import Slots
from specexit_jax.parallel.sharding import make_mesh

SMALL = dataclasses.replace(TARGET, num_layers=2, capture=(0, 1, 1))
LONG = {"target": SMALL, "buffer_length": 80, "live_prefixes": (32,), "stop_ids": ()}
SPECS = {
    "chain": tiny_spec(3, sampling=SAMPLED, record_signals=True, **LONG),
    "tree": tiny_spec(3, sampling=SAMPLED, tree=TreeShape(3, 2, 6), **LONG),
    "plain": tiny_spec(0, sampling=SAMPLED, **LONG),
    "greedy": tiny_spec(2, sampling=Sampling(repetition_penalty=1.4), **LONG),
}
SLOW = pytest.mark.slow


def some_requests(seed: int = 11) -> Requests:
    """24 of them, of up to 80 tokens; half outgrow 24 tokens, after which 32 positions do not fit another step."""
    found = Requests.random(24, seed, buffer_length=80)
    return dataclasses.replace(found, max_length=np.minimum(2 * found.max_length, 80).astype(np.int32))


def loop_of(spec):
    return make_loop(spec, tiny_params(SMALL), POLICY, boundary_table())


@functools.cache
def alone_of(name: str):
    return run(SPECS[name], tiny_params(SMALL), some_requests().rows(), POLICY, boundary_table())


@pytest.fixture(autouse=True)
def one_width(monkeypatch):
    """Prompts are padded to 16 tokens, so that one program reads them."""
    monkeypatch.setattr("specexit_jax.engine.slots.SHORTEST", 16)


def of_two_long_rows(loop) -> int:
    """Bytes that two rows of full length take."""
    return row_of(loop, loop.spec.capacity).held(2)


class Watched:
    """Shifts whose bytes on the device are counted at every call of a program, and whose parked rows are."""

    def __init__(self, loop, requests, parked_bytes=2**30):
        jax.block_until_ready(jax.live_arrays())
        self.before = {id(array) for array in jax.live_arrays()}
        budget = budget_for(loop, None, Auto(16, of_two_long_rows(loop), parked_bytes), len(requests))
        slots = Slots(loop, budget.levels[0].rows, None, budget.levels[0].longest)
        self.shifts, self.levels = Shifts(slots, budget, enumerate(requests)), budget.levels
        self.held, self.parked, self.waiting, self.opened = [], [], [], []
        call, park, reopen = slots.programs.call, slots.park, slots.reopen

        def counted(function, *arguments):
            self.held.append(self.bytes())
            found = call(function, *arguments)
            self.held.append(self.bytes())
            return found

        slots.programs.call = counted
        slots.park = lambda row: self.parked.append(row) or park(row)
        slots.reopen = lambda *given: self.opened.append(given) or reopen(*given)

    def bytes(self) -> int:
        found = [array for array in jax.live_arrays() if id(array) not in self.before]
        return sum(array.nbytes for array in found)

    def found(self):
        for name, result, seconds in self.shifts.served():
            assert seconds >= 0
            self.waiting.append(sum(job.parked.nbytes for job in self.shifts._waiting if job.parked))
            yield name, result


@pytest.mark.parametrize("name", ["chain", *(pytest.param(name, marks=SLOW) for name in ("tree", "plain", "greedy"))])
def test_every_request_is_what_it_is_alone_within_the_memory(name):
    spec = SPECS[name]
    requests, loop, alone = some_requests(), loop_of(spec), alone_of(name)
    watched = Watched(loop, [slot_request(spec, requests, row) for row in range(24)])
    assert watched.levels[-1] == Level(2, spec.capacity) and watched.levels[0].longest == 32
    found = dict(watched.found())
    assert sorted(found) == list(range(24))
    for row, result in found.items():
        assert_same(result, alone, row)
    assert len(watched.parked) > 10 and {rows for rows, _ in watched.opened} == {level.rows for level in watched.levels}
    assert (alone.exit_position >= 0).sum() > 3 and (alone.length > 40).sum() > 3
    assert max(watched.held) <= of_two_long_rows(loop)


@pytest.mark.parametrize("name", ["chain", *(pytest.param(name, marks=SLOW) for name in ("tree", "plain", "greedy"))])
def test_a_parked_row_is_the_same_to_the_last_bit_in_another_slot(name):
    """And so is its end. The other rows are left as they are."""
    spec = SPECS[name]
    requests, loop, alone = some_requests(), loop_of(spec), alone_of(name)
    first, second = np.flatnonzero(alone.length > 40)[:2].tolist()
    slots, others = Slots(loop, 2), Slots(loop, 2)
    slots.admit(0, slot_request(spec, requests, first))
    slots.admit(1, slot_request(spec, requests, second))
    slots.run(steps=3)
    before, length = slots.result(1), slots.lengths[0]
    parked = slots.park(0)
    assert slots.active == 1 and parked.length == length > requests.prompt_length[first]
    others.unpark(1, parked)
    again = others.park(1)
    jax.tree.map(np.testing.assert_array_equal, (again.bare, again.caches), (parked.bare, parked.caches))
    others.unpark(0, again)
    assert others.active == 1 and others.requests[0] is parked.request
    others.run()
    assert_same(others.result(0), alone, first)
    jax.tree.map(np.testing.assert_array_equal, slots.result(1), before)
    slots.run()
    assert_same(slots.result(1), alone, second)
    assert parked.nbytes == sum(leaf.nbytes for leaf in jax.tree.leaves((parked.bare, parked.caches)))


def test_a_host_that_is_full_takes_no_new_request():
    spec = SPECS["chain"]
    requests, loop, alone = some_requests(), loop_of(spec), alone_of("chain")
    watched = Watched(loop, [slot_request(spec, requests, row) for row in range(24)], 1)
    assert watched.shifts.slots.size > 2
    begun = []
    for name, result in watched.found():
        assert_same(result, alone, name)
        begun.append(sum(job.parked is not None for job in watched.shifts._waiting) + len(watched.shifts._rows))
    assert len(watched.parked) > 4 and max(begun) == 0, "one is begun after the other"


@SLOW
def test_rows_over_a_mesh():
    """Numbers of rows are multiples of the devices that share them, the caches of every level are sharded, and ids are the same."""
    spec = tiny_spec(3, sampling=FILTERED, **LONG | {"target": WIDE, "draft": WIDE_DRAFT})
    requests, mesh, plain = some_requests(2), make_mesh(2, 1, 4), tiny_params(WIDE, WIDE_DRAFT)
    alone = run(spec, plain, requests.rows(), POLICY, boundary_table())
    with on_mesh(mesh):
        loop = make_loop(spec, sharded(plain, mesh), POLICY, boundary_table())
    budget = budget_for(loop, mesh, Auto(16, row_of(loop, spec.capacity, 4).held(4, 2)), 24)
    assert [level.rows % 2 for level in budget.levels] == [0] * 2
    slots = Slots(loop, budget.levels[0].rows, mesh, budget.levels[0].longest)
    shifts, opened = Shifts(slots, budget, ((row, slot_request(spec, requests, row)) for row in range(24))), set()
    for row, result, _ in shifts.served():
        np.testing.assert_array_equal(result.tokens[0], alone.tokens[row])
        for array in (*slots.cache.k, *slots.cache.v):
            assert array.addressable_shards[0].data.shape[:2] == (slots.size // 2, 1)
        opened.add(slots.size)
    assert len(opened) > 1
