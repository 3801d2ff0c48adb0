"""A request that is the only one is decoded in a state of one row, and moves between the states while it runs: it writes what it
writes alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_case import SAMPLED, VOCABULARY, boundary_table, tiny_params, tiny_spec

from specexit_jax.decoding.loop.speculative import make_loop
from specexit_jax.decoding.rows import SlotRequest
from specexit_jax.decoding.state import DecodeResult
from specexit_jax.engine.lone_slots import LoneSlots, lone_row_for
from specexit_jax.engine.slots import READ, Slots
from specexit_jax.exits.policy import Threshold

FIELDS = ("tokens", "length", "finished", "think_end", "exit_position", "spent", "steps")


@functools.cache
def loop(prefixes=()):
    spec = tiny_spec(2, buffer_length=60, live_prefixes=prefixes, own_rules=True, logprobs=2).bare
    return make_loop(spec, tiny_params(), Threshold(jnp.array([0.4, 0.4, 1.5], jnp.float32)), boundary_table())


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    monkeypatch.setattr("specexit_jax.engine.slots.CHUNK", 16)
    monkeypatch.setattr("specexit_jax.engine.slots.SHORTEST", 16)


def requests(number: int) -> list[SlotRequest]:
    rng, found = np.random.default_rng(3), []
    for index in range(number):
        length = int(rng.choice([3, 9, 14, 30]))
        prompt, key = tuple(rng.integers(7, VOCABULARY, length).tolist()), np.array([1, index], np.uint32)
        limits = None if index % 3 else tuple(rng.choice([0.3, 0.5, 2.0], 3).tolist())
        own = {"limits": limits, "thinking_budget": None if index % 4 else int(rng.integers(0, 9))}
        found.append(SlotRequest(prompt, key, True, min(length + int(rng.integers(1, 50)), 60), SAMPLED, **own))
    return found


def alone(asked: list[SlotRequest], prefixes) -> list[DecodeResult]:
    slots, found = Slots(loop(prefixes), 1), []
    for request in asked:
        slots.admit(0, request)
        slots.run()
        found.append(slots.result(0))
    return found


class Driver:
    """Requests that come at times, into slots that run for some iterations between. stopped: of those that were ended early."""

    def __init__(self, slots: LoneSlots, asked: list[SlotRequest], seed: int):
        self.slots, self.waiting, self.rng = slots, list(enumerate(asked)), np.random.default_rng(seed)
        self.rows: dict[int, int] = {}
        self.found: dict[int, DecodeResult] = {}
        self.read: dict[int, int] = dict.fromkeys(range(len(asked)), 0)
        self.stopped: set[int] = set()
        self.places: list[bool] = []  # whether each segment was of one row

    def play(self) -> None:
        while self.waiting or self.rows:
            for _ in range(int(self.rng.choice([0, 0, 0, 1, 3])) if self.rows else 1):
                self._admit()
            self._run()

    def _admit(self) -> None:
        free = [row for row in range(self.slots.size) if row not in self.rows]
        if not self.waiting or not free:
            return
        index, request = self.waiting.pop(0)
        row = int(self.rng.choice(free))
        chunks = self.slots.admitting(row, request)
        while next(chunks, READ) is not READ:
            if self.rng.random() < 0.1:  # it leaves before its prompt is read
                self.stopped.add(index)
                self.found[index] = None
                return
            self._run()
        self.rows[row] = index
        self._collect()

    def _run(self) -> None:
        if self.slots.active:
            self.places.append(self.slots.alone)
            self.slots.run(int(self.rng.integers(1, 4)), self.slots.size - self.slots.active + 1)
            assert self.slots.row is None or not self.slots.full.active
            self._look()
        if self.rows and self.rng.random() < 0.03:
            row = int(self.rng.choice(list(self.rows)))
            self.stopped.add(self.rows[row])
            self.slots.stop(row)
        self._collect()

    def _look(self) -> None:
        """What rows have written is what their results say."""
        since = np.zeros((self.slots.size,), np.int32)
        for row, index in self.rows.items():
            since[row] = self.read[index]
        seen, lengths = self.slots.written(since, 12), self.slots.lengths
        for row, index in self.rows.items():
            fresh = seen.tokens[row, : lengths[row] - since[row]]
            result = self.slots.result(row)
            assert int(result.length[0]) == lengths[row]
            np.testing.assert_array_equal(fresh, result.tokens[0, since[row] : since[row] + len(fresh)])
            self.read[index] += len(fresh)

    def _collect(self) -> None:
        for row in [row for row in self.rows if self.slots.done[row]]:
            self.found[self.rows.pop(row)] = self.slots.result(row)


@pytest.mark.parametrize("prefixes", [(), pytest.param((32,), marks=pytest.mark.slow)])
def test_a_row_that_moves_writes_what_it_writes_alone(prefixes, monkeypatch):
    """With own thresholds and budgets, log-probabilities, prompts in chunks, stops; to slots that lie in any order."""
    asked, moves = requests(24), []
    expected = alone(asked, prefixes)
    for name in ("_join", "_leave"):
        own = getattr(LoneSlots, name)
        monkeypatch.setattr(LoneSlots, name, lambda *given, name=name, own=own: moves.append(name) or own(*given))
    driver = Driver(LoneSlots(Slots(loop(prefixes), 3)), asked, 0)
    driver.play()
    assert not driver.slots.active and set(driver.found) == set(range(24))
    assert moves.count("_join") > 3 and moves.count("_leave") > 2 and True in driver.places and False in driver.places
    assert 1 < len(driver.stopped) < 12
    for index, result in driver.found.items():
        told = expected[index]
        if index in driver.stopped:
            length = 0 if result is None else int(result.length[0])
            assert result is None or (result.tokens[0, :length] == told.tokens[0, :length]).all()
            continue
        for field in FIELDS:
            np.testing.assert_array_equal(getattr(result, field), getattr(told, field), err_msg=f"{index} {field}")
        own = slice(len(asked[index].prompt), int(told.length[0]))
        np.testing.assert_allclose(result.logs.chosen[0, own], told.logs.chosen[0, own], rtol=1e-4, atol=1e-5)
    assert any(int(one.exit_position[0]) >= 0 for one in expected) and any(bool(one.spent[0]) for one in expected)


def test_one_request_alone_never_touches_the_full_state(monkeypatch):
    """Nor does one whose neighbour has ended; and a second one brings both into it."""
    slots = LoneSlots(Slots(loop(), 3))
    long = dataclasses.replace(
        requests(1)[0], prompt=tuple(range(7, 12)), max_length=60, limits=None, thinking_budget=None
    )
    long = dataclasses.replace(long, may_exit=False)
    sizes, segment = [], Slots._segment
    monkeypatch.setattr(Slots, "_segment", lambda self, *given: sizes.append(self.size) or segment(self, *given))

    def ran() -> set[int]:
        sizes.clear()
        slots.run(1, 3)
        return set(sizes)

    list(slots.admitting(1, long))
    assert slots.alone and slots.active == 1 and list(slots.done) == [True, False, True] and ran() == {1}
    list(slots.admitting(2, dataclasses.replace(long, max_length=20)))
    assert not slots.alone and list(slots.done) == [True, False, False] and ran() == {3}
    slots.stop(2)
    assert slots.alone and ran() == {1} and list(slots.done) == [True, False, True]
    reading = slots.admitting(0, dataclasses.replace(long, prompt=(7,) * 30))
    next(reading)
    assert slots.alone and ran() == {1}, "the only row goes on by itself while another's prompt is read"
    reading.close()
    slots.stop(1)
    assert not slots.active


@pytest.mark.parametrize(
    "chosen, dtype, slots, wanted",
    [
        ("auto", "float32", 8, True),
        ("auto", "bfloat16", 8, False),
        ("auto", "float32", 1, False),
        ("on", "bfloat16", 8, True),
        ("on", "float32", 1, False),
        ("off", "float32", 8, False),
    ],
)
def test_programs_that_round_differently_are_asked_for(session, chosen, dtype, slots, wanted):
    own = dataclasses.replace(session, target=dataclasses.replace(session.target, dtype=dtype))
    assert lone_row_for(chosen, own, slots) == wanted
    apart = dataclasses.replace(own, mesh=jax.make_mesh((2,), ("data",)))
    assert lone_row_for(chosen, apart, slots) == (wanted and chosen == "on")
