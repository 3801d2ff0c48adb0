"""Caches grown or cut between two programs of the host."""

from collections.abc import Callable
from typing import Any

from specexit_jax.decoding.loop import segments
from specexit_jax.decoding.state import DecodeState
from specexit_jax.models.cache import VALUE_AXIS, Cache, key_axis


def resize_caches(call: Callable[..., Any], held: list[DecodeState], capacities: tuple[int, int]) -> DecodeState:
    """The state with a target's and a draft's cache of these capacities, array by array: the old and the new caches are never
    held whole at once.

    held: the state, which is taken out; the caller keeps no reference. call(function, *arguments) runs a program.
    """
    state = held.pop()
    caches = [state.target_cache, state.draft_cache]
    state = state.replace(target_cache=None, draft_cache=None)
    target, draft = (_resized(call, caches, capacity) for capacity in capacities)
    return state.replace(target_cache=target, draft_cache=draft)


def _resized(call: Callable[..., Any], caches: list[Cache | None], capacity: int) -> Cache | None:
    """The first of the caches, which is taken out, with this capacity."""
    cache = caches.pop(0)
    if cache is None:
        return None
    keys, values, length = list(cache.k), list(cache.v), cache.length
    del cache
    for arrays, axis in ((keys, key_axis()), (values, VALUE_AXIS)):
        for number in range(len(arrays)):
            arrays[number] = call(segments.resize_array, arrays[number], capacity, axis)
    return Cache(tuple(keys), tuple(values), length)
