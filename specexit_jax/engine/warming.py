"""Compiles all programs of slots before the first request, so that none waits for the compiler."""

import concurrent.futures
from collections.abc import Callable, Iterator

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
    if not isinstance(slots, LoneSlots):
        yield from _warming(slots, columns, slots.admit)
        return
    full, lone = slots.full, slots.lone
    with concurrent.futures.ThreadPoolExecutor(1) as pool:  # one thread traces while the other loads or compiles
        beside = pool.submit(_warm_lone, lone, columns)
        known: set[tuple[int, int]] = set()

        def read(row: int, request: SlotRequest) -> None:
            """Reads a prompt of each kind once: where it goes depends on the length of the caches alone."""
            kind = last_chunk(full.loop.spec, len(request.prompt))
            if kind not in known:
                known.add(kind)
                for _ in full.reading(request):
                    pass

        yield from _warming(full, columns, read)
        beside.result()
    for live in slots.loop.spec.prefixes:  # a row moves between the states
        lone.resize(live)
        full.resize(live)
        lone.give(0, full, 0)
        full.give(0, lone, 0)
        yield
    full.resize(slots.loop.spec.prefixes[0])


def _warming(slots: Slots, columns: int, admit: Callable[[int, SlotRequest], object]) -> Iterator[None]:
    """admit: reads a prompt, and puts it into slots whose caches fit it."""
    spec, prompts = slots.loop.spec, prompts_of_each_kind(slots.loop.spec)
    for live in spec.prefixes:
        for other in spec.prefixes:
            slots.resize(live)
            slots.resize(other)
        for length in prompts:
            before, width = last_chunk(spec, length)
            if spec.prompt_capacity(before + width) <= live:
                slots.resize(live)
                admit(0, _without_answer(length))
                yield
        slots.resize(live)
        slots.run_nothing()
        yield
    _warm_reading(slots, columns)
    slots.resize(spec.prefixes[0])


def _warm_lone(lone: Slots, columns: int) -> None:
    """Iterations and caches of one row. Its prefill is read by `warming`."""
    spec = lone.loop.spec
    for room in spec.prompt_capacities:
        for live in [live for live in spec.prefixes if live >= room]:
            fresh = lone.programs.call(segments.fresh_row, lone.loop, room)
            lone.adopt(_without_answer(1), fresh, live)
    for live in spec.prefixes:
        for other in spec.prefixes:
            lone.resize(live)
            lone.resize(other)
        lone.resize(live)
        lone.run_nothing()
    _warm_reading(lone, columns)


def _warm_reading(slots: Slots, columns: int) -> None:
    slots.requests[0] = _without_answer(1)
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
