"""Keeps slots full from a queue of requests, so that one long answer never holds the others."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from specexit_jax.decoding.rows import SlotRequest
from specexit_jax.decoding.state import DecodeResult
from specexit_jax.engine.slots import Slots


def serve(slots: Slots, requests: Iterable[tuple[Any, SlotRequest]]) -> Iterator[tuple[Any, DecodeResult, float]]:
    """(name, result, seconds) of every named request, as each is finished; a free slot takes the next one at once.

    seconds: from its admission on, compilation left out. What a request's result is depends on the request alone.
    """
    queue = iter(requests)
    names: list[Any] = [None] * slots.size
    admitted, free = [0.0] * slots.size, list(range(slots.size))
    while True:
        while free and (following := next(queue, None)) is not None:
            row = free.pop(0)
            names[row], request = following
            admitted[row] = time.perf_counter() - slots.compile_seconds
            slots.admit(row, request)
            if slots.done[row]:  # its first token ended it
                yield names[row], slots.result(row), time.perf_counter() - slots.compile_seconds - admitted[row]
                free.append(row)
        if not slots.active:
            return
        for row in slots.run(enough=slots.size - slots.active + 1):
            yield names[row], slots.result(row), time.perf_counter() - slots.compile_seconds - admitted[row]
            free.append(row)
