"""Steps 3 and 4 of a request's way in slots: a queue keeps them full, so that a long answer delays no other request."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from specexit_jax.decoding.rows import SlotRequest
from specexit_jax.decoding.state import DecodeResult
from specexit_jax.engine.budget import budget_for
from specexit_jax.engine.outcomes import Outcome, outcome_of
from specexit_jax.engine.placement import Auto, Clock, Placement
from specexit_jax.engine.requests import PreparedRequests
from specexit_jax.engine.shifts import Shifts
from specexit_jax.engine.slots import BETWEEN, READ, Slots, loop_for
from specexit_jax.engine.specs import spec_of


def decode_in_slots(prepared: PreparedRequests, placement: Placement, clock: Clock) -> Iterator[Outcome]:
    """Decodes the requests in slots of one buffer length, which is enough for each of them."""
    if not prepared.requests:
        return
    session, rows = prepared.session, placement.batch_size
    loop = loop_for(session, prepared.method, spec_of(prepared))
    queue = ((index, request.in_buffer(loop.spec.buffer_length)) for index, request in enumerate(prepared.requests))
    if isinstance(rows, Auto):
        budget = budget_for(loop, session.mesh, rows, len(prepared.requests))
        slots = Slots(loop, budget.levels[0].rows, session.mesh, budget.levels[0].longest)
        served = Shifts(slots, budget, queue).served()
    else:
        slots = Slots(loop, rows, session.mesh)
        served = serve(slots, queue)
    found = _outcomes(prepared, slots, served, clock)
    yield from _in_order(found) if placement.in_order else (outcome for _, outcome in found)


def serve(slots: Slots, requests: Iterable[tuple[Any, SlotRequest]]) -> Iterator[tuple[Any, DecodeResult, float]]:
    """(name, result, seconds) of every named request when it is finished. A free slot takes the next request at once.

    A long prompt is read in chunks, and the other rows decode between them. seconds: from its admission, without compilation. A
    result depends on its request alone.
    """
    queue = iter(requests)
    names: list[Any] = [None] * slots.size
    admitted, free = [0.0] * slots.size, list(range(slots.size))
    entering: tuple[int, Iterator[None]] | None = None  # the slot whose prompt is being read, and what is left of it

    def finished(row: int) -> tuple[Any, DecodeResult, float]:
        free.append(row)
        return names[row], slots.result(row), time.perf_counter() - slots.compile_seconds - admitted[row]

    while True:
        while entering or (free and (following := next(queue, None)) is not None):
            if entering is None:
                row = free.pop(0)
                names[row], request = following
                admitted[row] = time.perf_counter() - slots.compile_seconds
                entering = row, slots.admitting(row, request)
            row, chunks = entering
            if next(chunks, READ) is not READ:
                break
            entering = None
            if slots.done[row]:  # finished by its first token
                yield finished(row)
        if slots.active:
            steps = {"steps": BETWEEN} if entering else {}
            for row in slots.run(**steps, enough=slots.size - slots.active + 1):
                yield finished(row)
        elif not entering:
            return


def _outcomes(
    prepared: PreparedRequests, slots: Slots, served: Iterator[tuple[int, DecodeResult, float]], clock: Clock
) -> Iterator[tuple[int, Outcome]]:
    """(index of the request, outcome) when each is finished."""
    began = time.perf_counter() - slots.compile_seconds
    for index, result, seconds in served:
        clock.seconds = time.perf_counter() - slots.compile_seconds - began
        yield index, outcome_of(prepared, prepared.requests[index], result, 0, seconds)


def _in_order(found: Iterator[tuple[int, Outcome]]) -> Iterator[Outcome]:
    """The outcomes by index. One that is finished early waits for those before it."""
    waiting, following = {}, 0
    for index, outcome in found:
        waiting[index] = outcome
        while following in waiting:
            yield waiting.pop(following)
            following += 1
