"""Caches that grow or shrink on the device between two calls of the loop, array by array."""

import jax

from specexit_jax.backend import heads_apart
from specexit_jax.decoding.state import DecodeState
from specexit_jax.decoding.timed_programs import TimedPrograms
from specexit_jax.models.cache import VALUE_AXIS, Cache, key_axis, with_positions

# One array of a cache, grown or cut.
resize_array = jax.jit(
    lambda array, capacity, axis: heads_apart(with_positions(array, capacity, axis)), static_argnums=(1, 2)
)


def resize_caches(programs: TimedPrograms, held: list[DecodeState], capacities: tuple[int, int]) -> DecodeState:
    """The only state of `held`, which is taken out of the list, with a target's and a draft's cache of these capacities."""
    state = held.pop()
    caches = {"target_cache": [state.target_cache], "draft_cache": [state.draft_cache]}
    state = state.replace(target_cache=None, draft_cache=None)
    for (name, own), capacity in zip(caches.items(), capacities, strict=True):
        if own[0] is not None and own[0].capacity == capacity:
            state = state.replace(**{name: own.pop()})
        elif own[0] is not None:
            state = state.replace(**{name: resized_in_turn(programs, own, capacity)})
    return state


def resized_in_turn(programs: TimedPrograms, held: list[Cache], capacity: int) -> Cache:
    """The only cache of `held`, with `capacity` positions a row. Takes it out of the list: where the caller holds it nowhere else,
    each array is freed before the next, and the old and the new are never held whole at once."""
    cache = held.pop()
    keys, values, length = list(cache.k), list(cache.v), cache.length
    del cache
    for arrays, axis in ((keys, key_axis()), (values, VALUE_AXIS)):
        for number in range(len(arrays)):
            arrays[number] = programs.call(resize_array, arrays[number], capacity, axis)
    return Cache(tuple(keys), tuple(values), length)
