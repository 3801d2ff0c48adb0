"""Compiles all programs of slots before the first request, so that none waits for the compiler."""

from collections.abc import Iterator

import numpy as np

from specexit_jax.decoding.loop import segments
from specexit_jax.decoding.rows import SlotRequest
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.decoding.spec import DecodeSpec
from specexit_jax.engine.lone_slots import LoneSlots
from specexit_jax.engine.slots import CHUNK, SHORTEST, Slots, last_chunk


def warming(slots: Slots | LoneSlots, columns: int) -> Iterator[None]:
    """Calls every program that requests of any length can need, on slots that have none yet, and yields between them.

    columns: of `Slots.written`.
    """
    if isinstance(slots, LoneSlots):
        yield from _warming(slots.full, columns)
        yield from _warming_lone(slots, columns)
    else:
        yield from _warming(slots, columns)


def _warming(slots: Slots, columns: int) -> Iterator[None]:
    spec, prompts = slots.loop.spec, prompts_of_each_kind(slots.loop.spec)
    for live in spec.prefixes:
        for other in spec.prefixes:
            slots.resize(live)
            slots.resize(other)
        for length in prompts:
            before, width = last_chunk(spec, length)
            if spec.prompt_capacity(before + width) <= live:
                slots.resize(live)
                slots.admit(0, _without_answer(length))
                yield
        slots.resize(live)
        slots.run_nothing()
        yield
    _warm_reading(slots, columns)
    slots.resize(spec.prefixes[0])


def _warming_lone(slots: LoneSlots, columns: int) -> Iterator[None]:
    """What `_warming` leaves out: iterations and caches of one row, and its moves between the states."""
    spec, full, lone = slots.loop.spec, slots.full, slots.lone
    for room in spec.prompt_capacities:
        request = _without_answer(max(room - spec.reach, 1))
        lone.adopt(request, full.programs.call(segments.fresh_row, full.loop, room), room)
    for live in spec.prefixes:
        for other in spec.prefixes:
            lone.resize(live)
            lone.resize(other)
        lone.resize(live)
        lone.run_nothing()
        full.resize(live)
        lone.give(0, full, 0)
        full.give(0, lone, 0)
        yield
    _warm_reading(lone, columns)
    full.resize(spec.prefixes[0])


def _warm_reading(slots: Slots, columns: int) -> None:
    slots.result(0)
    slots.written(np.zeros((slots.size,), np.int32), columns)
    slots.stop(0)


def prompts_of_each_kind(spec: DecodeSpec) -> list[int]:
    """Lengths of prompts that together need every program of a prefill."""
    found, known = [], set()
    for before in range(0, spec.buffer_length, CHUNK):
        size = SHORTEST
        while size <= CHUNK:
            length = before + (1 if size == SHORTEST else size // 2 + 1)
            size *= 2
            if length > spec.buffer_length:
                continue
            start, width = last_chunk(spec, length)
            wanted = {("prefill", spec.prompt_capacity(start + width), width)}
            wanted |= {("absorb", spec.prompt_capacity(first + CHUNK)) for first in range(0, start, CHUNK)}
            if not wanted <= known:
                known |= wanted
                found.append(length)
    return found


def _without_answer(length: int) -> SlotRequest:
    return SlotRequest((0,) * length, np.zeros((2,), np.uint32), False, length, Sampling())
