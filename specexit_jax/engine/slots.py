"""Slots: the rows of a decode state that stays on the device. A request is admitted to a row, decoded, and read from it.

The loop runs in segments. Between two segments the host reads the lengths and done flags of the rows, and no more.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from specexit_jax.backend import on_mesh
from specexit_jax.decoding.loop import segments
from specexit_jax.decoding.loop.growth import resize_caches
from specexit_jax.decoding.loop.speculative import make_loop
from specexit_jax.decoding.rows import PromptRows, SlotRequest
from specexit_jax.decoding.spec import DecodeSpec, LoopContext
from specexit_jax.decoding.state import DecodeResult
from specexit_jax.decoding.timed_programs import TimedPrograms
from specexit_jax.engine.methods import Method
from specexit_jax.engine.session import Session
from specexit_jax.models.cache import Cache

CHUNK = 1024  # prompt tokens of one prefill pass
SHORTEST = 128  # the least padded length of a prompt's last chunk, so that most prompts share a program
_FOREVER = 2**30


class Slots:
    """`size` slots, all free at first.

    mesh: what the parameters are sharded over; the caches are then sharded by row and by head. done, lengths: per slot,
    whether its request is finished, and the tokens of its row, prompt included.
    """

    def __init__(self, loop: LoopContext, size: int, mesh: Mesh | None = None):
        if size < 1:
            raise ValueError(f"There must be at least 1 slot, not {size}.")
        self.loop, self.size = loop, size
        self.requests: list[SlotRequest | None] = [None] * size
        self._live = loop.spec.prefixes[0]
        self._programs = TimedPrograms(mesh, loop, loop.spec)
        self._warm: set[int] = set()
        with on_mesh(mesh):
            self._state = segments.open_slots(loop, size, self._live)
        self.done, self.lengths = np.ones((size,), bool), np.zeros((size,), np.int32)

    @property
    def active(self) -> int:
        """The number of slots whose request is not finished."""
        return int((~self.done).sum())

    @property
    def cache(self) -> Cache:
        """The target's cache. It is valid until the next call that computes, which reuses its memory."""
        return self._state.target_cache

    def admit(self, row: int, request: SlotRequest, held: int = 0) -> int:
        """Prefills a request's prompt into a slot, as `admitting`, to its end. Returns how many prompt tokens were computed."""
        for _ in self.admitting(row, request, held):
            pass
        return len(request.prompt) - _begin(request, held)

    def admitting(self, row: int, request: SlotRequest, held: int = 0) -> Iterator[None]:
        """Prefills a prompt into a slot chunk by chunk, and yields between two of them, so that the other rows can decode.

        The slot stays done until the last chunk is read. held: tokens at the prompt's beginning that the slot's caches hold
        already. Only a single slot can keep them: with several, each iteration also writes into the caches of idle rows. Raises
        ValueError if the prompt is longer than the buffer.
        """
        spec, prompt = self.loop.spec, request.prompt
        if not 0 < len(prompt) <= spec.buffer_length:
            raise ValueError(f"A prompt of {len(prompt)} tokens does not fit a buffer of {spec.buffer_length}.")
        if held and self.size > 1:
            raise ValueError(f"Only a single slot keeps its tokens from request to request, but there are {self.size}.")
        return self._chunks(row, request, held)

    def _chunks(self, row: int, request: SlotRequest, held: int) -> Iterator[None]:
        spec, prompt = self.loop.spec, request.prompt
        start = _begin(request, held)
        rest = len(prompt) - start
        tail = rest - CHUNK * ((rest - 1) // CHUNK)  # tokens of the last chunk
        width = min(max(SHORTEST, 1 << (tail - 1).bit_length()), spec.buffer_length - (len(prompt) - tail))
        room = self._room(len(prompt) - tail + width)
        if held:
            fresh = self._programs.call(segments.held_row, self.loop, room, self._state, jnp.int32(row))
        else:
            fresh = self._programs.call(segments.fresh_row, self.loop, room)
        while len(prompt) - start > CHUNK:
            live = spec.prompt_capacity(start + CHUNK)
            chunk = np.asarray([prompt[start : start + CHUNK]], np.int32)
            after = np.asarray(prompt[start + CHUNK : start + CHUNK + 1], np.int32)
            fresh = self._programs.call(segments.absorb_row, self.loop, live, fresh, chunk, after, _one(start))
            start += CHUNK
            yield
        rows = PromptRows.of([request], 1, width, start)
        fresh = self._programs.call(segments.prefill_rows, self.loop, (room, room), fresh, rows, _one(start))
        self._room(len(prompt) - tail + width)  # the other rows may have changed the caches since
        self._state = self._programs.call(segments.put_row, self._state, fresh, jnp.int32(row))
        self.requests[row] = request
        self._look()

    def run(self, steps: int = _FOREVER, enough: int | None = None) -> list[int]:
        """Iterates until `enough` slots are done (default: all), at most `steps` times. Returns the slots that became done."""
        enough, before = self.size if enough is None else enough, self.done.copy()
        while steps > 0 and self.done.sum() < enough:
            longest = int(self.lengths[~self.done].max())
            self._resize(self.loop.spec.prefix_for(longest))
            if self._live not in self._warm:
                # Compiled by a call without an iteration, so that no iteration is timed as compilation.
                self._warm.add(self._live)
                self._segment(0, enough)
            count = self._segment(steps, enough)
            self._look()
            steps -= int(count)
        return np.flatnonzero(self.done & ~before).tolist()

    def result(self, row: int) -> DecodeResult:
        """What a slot holds so far, as numpy arrays of one row. The request need not be finished."""
        length = jnp.asarray([len(self.requests[row].prompt)], jnp.int32)
        return jax.device_get(segments.result_of_row(self.loop.spec, self._state, jnp.int32(row), length))

    def stop(self, row: int) -> None:
        """Ends a slot's request with the tokens that it has."""
        self._state = self._state.replace(done=self._state.done.at[row].set(True))
        self._look()

    def _room(self, tokens: int) -> int:
        """The cache capacity for a prompt of so many tokens and the iteration after it. Grows the caches to it."""
        room = self.loop.spec.prompt_capacity(tokens)
        if room > self._live:
            self._resize(room)
        return room

    def _resize(self, live: int) -> None:
        spec = self.loop.spec
        if spec.capacities_for(live) != spec.capacities_for(self._live):
            held, self._state = [self._state], None
            self._state = resize_caches(self._programs.call, held, spec.capacities_for(live))
        self._live = live

    def _segment(self, steps: int, enough: int) -> jax.Array:
        arguments = self.loop, self._live, self._state, jnp.int32(steps), jnp.int32(enough)
        self._state, count = self._programs.call(segments.segment, *arguments)
        return count

    @property
    def compile_seconds(self) -> float:
        """Seconds of compilation so far."""
        return self._programs.compile_seconds

    def _look(self) -> None:
        self.done, self.lengths = jax.device_get((self._state.done, self._state.length))


def slots_for(session: Session, method: Method, spec: DecodeSpec, size: int) -> Slots:
    """`size` free slots of a session and a method. spec: of `spec_for` or `spec_of`."""
    with on_mesh(session.mesh):
        loop = make_loop(spec, session.params, method.policy, method.boundaries)
    return Slots(loop, size, session.mesh)


def _one(number: int) -> np.ndarray:
    return np.array([number], np.int32)


def _begin(request: SlotRequest, held: int) -> int:
    """The first token of a prompt to compute. The last held one is computed again: the draft pairs its features with the next
    token, which may differ now."""
    return max(min(held, len(request.prompt)) - 1, 0)
