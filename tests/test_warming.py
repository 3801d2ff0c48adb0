"""Warm slots: requests of any length compile nothing more."""

import dataclasses

import numpy as np
import pytest
from compilations_case import compilations
from decoding_case import SAMPLED, boundary_table, tiny_params, tiny_spec

from specexit_jax.decoding.loop.speculative import make_loop
from specexit_jax.decoding.rows import SlotRequest
from specexit_jax.engine.lone_slots import LoneSlots
from specexit_jax.engine.scheduler import serve
from specexit_jax.engine.slots import Slots, last_chunk
from specexit_jax.engine.warming import prompts_of_each_kind, warming
from specexit_jax.exits.policy import NeverExit

SPEC = tiny_spec(1, buffer_length=60, live_prefixes=(16, 32), stop_ids=(), own_rules=True)


@pytest.mark.slow
@pytest.mark.parametrize("lone", [False, True])
def test_nothing_is_compiled_once_slots_are_warm(lone, monkeypatch):
    """Short and long prompts and answers, whose live prefixes grow and are cut, and slots that are stopped and read."""
    monkeypatch.setattr("specexit_jax.engine.slots.CHUNK", 16)
    monkeypatch.setattr("specexit_jax.engine.slots.SHORTEST", 8)
    monkeypatch.setattr("specexit_jax.engine.warming.CHUNK", 16)
    monkeypatch.setattr("specexit_jax.engine.warming.SHORTEST", 8)
    slots, rng = Slots(make_loop(SPEC.bare, tiny_params(), NeverExit(), boundary_table()), 2), np.random.default_rng(0)
    slots = LoneSlots(slots) if lone else slots
    for _ in warming(slots, 6):
        pass
    assert not slots.active
    asked = []
    for number in range(24):
        length = int(rng.integers(1, 59))
        prompt, key = tuple(rng.integers(7, 40, length).tolist()), np.array([0, number], np.uint32)
        limit = min(length + int(rng.integers(1, 40)), 60)
        asked.append((number, SlotRequest(prompt, key, True, limit, SAMPLED, thinking_budget=3)))
    with compilations() as compiled:
        assert len(list(serve(slots, asked))) == 24
        for each in asked:
            assert len(list(serve(slots, [each]))) == 1
        list(slots.admitting(1, asked[0][1]))
        slots.written(np.zeros((2,), np.int32), 6)
        slots.stop(1)
        slots.result(1)
    assert not compiled


def test_prompts_of_each_kind_need_what_all_prompts_need():
    for length in (1000, 2048, 5000):
        spec = dataclasses.replace(SPEC.bare, buffer_length=length, live_prefixes=())

        def programs(prompt: int, spec=spec) -> set:
            before, width = last_chunk(spec, prompt)
            read = {spec.prompt_capacity(start + 1024) for start in range(0, before, 1024)}
            return {(spec.prompt_capacity(before + width), width), *read}

        chosen = set().union(*map(programs, prompts_of_each_kind(spec)))
        assert chosen == set().union(*map(programs, range(1, length + 1)))
        assert len(prompts_of_each_kind(spec)) < 40
