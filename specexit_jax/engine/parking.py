"""Parked rows: all that a decode state holds of one request, on the host, from where it goes on as if it had never left.

Keys and values are copied array by array, so that a device holds one array of one row beside its state.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from specexit_jax.decoding.loop import segments
from specexit_jax.decoding.rows import SlotRequest
from specexit_jax.decoding.sampling import PRNG
from specexit_jax.decoding.state import DecodeState
from specexit_jax.decoding.timed_programs import TimedPrograms
from specexit_jax.models.cache import VALUE_AXIS, Cache, key_axis

_CACHES = ("target_cache", "draft_cache")


@dataclasses.dataclass(frozen=True, eq=False)
class ParkedRow:
    """A request and its row, as host arrays of one row. length: its tokens, prompt included.

    bare: the state without keys and values, its PRNG key as two words. caches: keys and values of both caches, cut to a
    capacity that fits one more step; () where there is no draft's.
    """

    request: SlotRequest
    length: int
    bare: DecodeState
    caches: tuple[tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]], ...]

    @property
    def nbytes(self) -> int:
        """Bytes on the host."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves((self.bare, self.caches)))


def copied(
    programs: TimedPrograms, state: DecodeState, row: int, request: SlotRequest, length: int, capacity: int
) -> ParkedRow:
    """Slot `row` of a state, which stays as it is. capacity: positions of it that are kept."""
    place, bare = jnp.int32(row), _without_arrays(state)
    bare = jax.device_get(programs.call(segments.take_row, bare.replace(keys=jax.random.key_data(bare.keys)), place))

    def cut(array: jax.Array, axis: int) -> np.ndarray:
        return np.array(programs.call(segments.cut_array, array, place, min(capacity, array.shape[axis]), axis))

    caches = tuple(
        (tuple(cut(array, key_axis()) for array in cache.k), tuple(cut(array, VALUE_AXIS) for array in cache.v))
        if (cache := getattr(state, name))
        else ()
        for name in _CACHES
    )
    return ParkedRow(request, length, bare, caches)


def restored(programs: TimedPrograms, state: DecodeState, row: int, parked: ParkedRow) -> DecodeState:
    """The state with the parked row in slot `row`. The state is donated; its caches are at least as long as the row's."""
    place = jnp.int32(row)
    bare = parked.bare.replace(keys=jax.random.wrap_key_data(parked.bare.keys, impl=PRNG))
    arrays = {name: (cache.k, cache.v) for name in _CACHES if (cache := getattr(state, name))}
    state = programs.call(segments.put_row, _without_arrays(state), bare, place)
    for name, own in zip(_CACHES, parked.caches, strict=True):
        if not own:
            continue
        keys, values = (
            tuple(programs.call(segments.put_array, array, new, place) for array, new in zip(whole, part, strict=True))
            for whole, part in zip(arrays.pop(name), own, strict=True)
        )
        state = state.replace(**{name: getattr(state, name).replace(k=keys, v=values)})
    return state


def _without_arrays(state: DecodeState) -> DecodeState:
    """The state with caches that hold no keys and values, but their lengths."""

    def bare(cache: Cache | None) -> Cache | None:
        return cache and cache.replace(k=(), v=())

    return state.replace(**{name: bare(getattr(state, name)) for name in _CACHES})
