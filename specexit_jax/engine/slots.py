"""Slots: the rows of a decode state that stays on the device. A request is admitted to a row, decoded, and read from it.

The loop runs in segments. Between two segments the host reads the lengths and done flags of the rows, and no more.
"""

from collections.abc import Generator, Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from specexit_jax.backend import on_mesh
from specexit_jax.decoding.loop import segments
from specexit_jax.decoding.loop.speculative import make_loop
from specexit_jax.decoding.resizing import resize_caches
from specexit_jax.decoding.rows import PromptRows, SlotRequest
from specexit_jax.decoding.spec import DecodeSpec, LoopContext
from specexit_jax.decoding.state import DecodeResult, DecodeState
from specexit_jax.decoding.timed_programs import TimedPrograms
from specexit_jax.engine import parking
from specexit_jax.engine.methods import Method
from specexit_jax.engine.parking import ParkedRow
from specexit_jax.engine.session import Session
from specexit_jax.engine.specs import limits_of
from specexit_jax.models.cache import Cache

CHUNK = 1024  # prompt tokens of one prefill pass
SHORTEST = 128  # the least padded length of a prompt's last chunk, so that most prompts share a program
BETWEEN = 8  # iterations of the other rows between two chunks of a prompt, which take about as long
READ = object()  # of a prompt that is read to its end: next(slots.admitting(...), READ)
FOREVER = 2**30


class Slots:
    """`size` slots, all free at first.

    mesh: what the parameters are sharded over; the caches are then sharded by row and by head. longest: the greatest live prefix
    that the caches may have; None: any. A row that needs a longer one is not decoded further until it is parked. programs: of
    other slots of the same loop and mesh; None: of its own. done, lengths: per slot, whether its request is finished, and the
    tokens of its row, prompt included. live: the live prefix of the caches.
    """

    def __init__(
        self,
        loop: LoopContext,
        size: int,
        mesh: Mesh | None = None,
        longest: int | None = None,
        programs: TimedPrograms | None = None,
    ):
        if size < 1:
            raise ValueError(f"There must be at least 1 slot, not {size}.")
        self.loop, self._mesh = loop, mesh
        self.programs = programs or TimedPrograms(mesh, loop, loop.spec)
        self._warm: set[tuple[int, int]] = set()
        self._limits = limits_of(loop.spec, loop.policy)
        self._state = None
        self.reopen(size, longest)

    def beside(self, size: int) -> "Slots":
        """`size` free slots of the same loop, which share its programs."""
        return Slots(self.loop, size, self._mesh, programs=self.programs)

    def reopen(self, size: int, longest: int | None = None) -> None:
        """Gives the slots up, with all that they hold, and then opens `size` others."""
        self.size, self._longest = size, longest or self.loop.spec.capacity
        self.requests: list[SlotRequest | None] = [None] * size
        self.live, self._state = self.loop.spec.prefixes[0], None
        self._state = self.programs.call(segments.open_slots, self.loop, size, self.live)
        self.done, self.lengths = np.ones((size,), bool), np.zeros((size,), np.int32)

    @property
    def active(self) -> int:
        """The number of slots whose request is not finished."""
        return int((~self.done).sum())

    @property
    def alone(self) -> bool:
        """Whether the next iteration computes one row."""
        return self.size == 1

    @property
    def cache(self) -> Cache:
        """The target's cache. It is valid until the next call that computes, which reuses its memory."""
        return self._state.target_cache

    @property
    def outgrown(self) -> list[int]:
        """The slots of unfinished requests whose next step needs a longer live prefix than the caches may have."""
        return [row for row in map(int, np.flatnonzero(~self.done)) if self.needs(row) > self._longest]

    def takes(self, request: SlotRequest) -> int:
        """The live prefix that a request's prompt needs while it is read, and for the iteration after it."""
        return self.loop.spec.prompt_capacity(sum(last_chunk(self.loop.spec, len(request.prompt))))

    def needs(self, row: int) -> int:
        """The live prefix that a slot's next step needs."""
        return self.loop.spec.prefix_for(int(self.lengths[row]))

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
        return self._admitting(row, request, held)

    def _admitting(self, row: int, request: SlotRequest, held: int) -> Iterator[None]:
        fresh, room = yield from self.reading(request, row, held)
        self.place(row, request, fresh, room)

    def reading(
        self, request: SlotRequest, row: int = 0, held: int = 0
    ) -> Generator[None, None, tuple[DecodeState, int]]:
        """Prefills a prompt chunk by chunk, and yields between two of them. Returns a state of one row, which no slot holds yet,
        and the capacity of its caches. row, held: of the slot whose caches hold tokens of the prompt, and how many."""
        spec, prompt = self.loop.spec, request.prompt
        start = _begin(request, held)
        before, width = last_chunk(spec, len(prompt), start)
        room = spec.prompt_capacity(before + width)
        if held:
            self._grow(room)
            fresh = self.programs.call(segments.held_row, self.loop, room, self._state, np.int32(row))
        else:
            fresh = self.programs.call(segments.fresh_row, self.loop, room)
        while len(prompt) - start > CHUNK:
            live = spec.prompt_capacity(start + CHUNK)
            chunk = np.asarray([prompt[start : start + CHUNK]], np.int32)
            after = np.asarray(prompt[start + CHUNK : start + CHUNK + 1], np.int32)
            fresh = self.programs.call(segments.absorb_row, self.loop, live, fresh, chunk, after, _one(start))
            start += CHUNK
            yield
        rows = PromptRows.of([request], 1, width, start, self._limits)
        return self.programs.call(segments.prefill_rows, self.loop, (room, room), fresh, rows, _one(start)), room

    def fitted(self, state: DecodeState, live: int) -> DecodeState:
        """A state of one row, which is given up, with caches as long as those of the slots: `place` then needs one program for each
        length of these. live: as for `place`."""
        self._grow(live)
        return resize_caches(self.programs, [state], self.loop.spec.capacities_for(self.live))

    def place(self, row: int, request: SlotRequest, state: DecodeState, live: int) -> None:
        """Puts a request's state of one row into a free slot. live: the live prefix that its caches fit."""
        self._grow(live)
        self._state = self.programs.call(segments.put_row, self._state, state, np.int32(row))
        self.requests[row] = request
        self._look()

    def adopt(self, request: SlotRequest, state: DecodeState, live: int) -> None:
        """Holds a request's state of one row, which is given up, instead of that of the only slot. live: as for `place`."""
        self.live, self._state = min(size for size in self.loop.spec.prefixes if size >= live), None
        self._state = resize_caches(self.programs, [state], self.loop.spec.capacities_for(self.live))
        self.requests[0] = request
        self._look()

    def give(self, row: int, other: "Slots", to: int) -> None:
        """Moves a slot's request into a free one of `other`, on the device. One of both has a single slot; where it is this one, it
        has no state then, until it adopts another."""
        request = self.requests[row]
        if self.size == 1:
            state, self._state = self._state, None
            self.done[0] = True
            other.place(to, request, state, self.live)
        else:
            one = self.programs.call(segments.take_row, self._state, np.int32(row))
            self.stop(row)
            other.adopt(request, one, self.live)

    def run(self, steps: int = FOREVER, enough: int | None = None) -> list[int]:
        """Iterates until `enough` slots are done (default: all) or one is outgrown, at most `steps` times. Returns the slots that
        became done."""
        enough, before = self.size if enough is None else enough, self.done.copy()
        while steps > 0 and self.done.sum() < enough and not self.outgrown:
            self.resize(max(self.needs(row) for row in map(int, np.flatnonzero(~self.done))))
            if (self.size, self.live) not in self._warm:
                self.run_nothing()
            count = self._segment(steps, enough)
            self._look()
            steps -= int(count)
        return np.flatnonzero(self.done & ~before).tolist()

    def run_nothing(self) -> None:
        """Compiles the loop for the live prefix, by a call without an iteration, so that none is timed as compilation."""
        self._warm.add((self.size, self.live))
        self._segment(0, self.size)

    def result(self, row: int) -> DecodeResult:
        """What a slot holds so far, as numpy arrays of one row. The request need not be finished."""
        length = _one(len(self.requests[row].prompt))
        arguments = self.loop.spec, _bare(self._state), np.int32(row), length
        return jax.device_get(self.programs.call(segments.result_of_row, *arguments))

    def park(self, row: int) -> ParkedRow:
        """Takes an unfinished request out of its slot, which is free then."""
        length = int(self.lengths[row])
        capacity = self.loop.spec.prompt_capacity(length)
        parked = parking.copied(self.programs, self._state, row, self.requests[row], length, capacity)
        self.stop(row)
        return parked

    def unpark(self, row: int, parked: ParkedRow) -> None:
        """Puts a parked request into a free slot, where it goes on."""
        self._grow(self.loop.spec.prompt_capacity(parked.length))
        state, self._state = self._state, None
        self._state = parking.restored(self.programs, state, row, parked)
        self.requests[row] = parked.request
        self._look()

    def stop(self, row: int) -> None:
        """Ends a slot's request with the tokens that it has."""
        done = self.programs.call(segments.end_row, self._state.done, np.int32(row))
        self._state = self._state.replace(done=done)
        self._look()

    def written(self, since: np.ndarray, width: int) -> segments.Written:
        """What each slot has written, from its token `since` [slots] on, in `width` columns, as numpy arrays."""
        arguments = self.loop.spec, width, _bare(self._state), np.asarray(since, np.int32)
        return jax.device_get(self.programs.call(segments.written, *arguments))

    def _grow(self, live: int) -> None:
        if live > self.live:
            self.resize(live)

    def resize(self, live: int) -> None:
        """Grows or cuts the caches for the live prefix `live`, which every active row must fit."""
        spec = self.loop.spec
        if spec.capacities_for(live) != spec.capacities_for(self.live):
            held, self._state = [self._state], None
            self._state = resize_caches(self.programs, held, spec.capacities_for(live))
        self.live = live

    def _segment(self, steps: int, enough: int) -> jax.Array:
        arguments = self.loop, self.live, self._state, np.int32(steps), np.int32(enough)
        self._state, count = self.programs.call(segments.segment, *arguments)
        return count

    @property
    def compile_seconds(self) -> float:
        """Seconds of compilation so far."""
        return self.programs.compile_seconds

    def _look(self) -> None:
        self.done, self.lengths = map(np.array, jax.device_get((self._state.done, self._state.length)))


def slots_for(session: Session, method: Method, spec: DecodeSpec, size: int) -> Slots:
    """`size` free slots of a session and a method. spec: of `spec_for` or `spec_of`."""
    return Slots(loop_for(session, method, spec), size, session.mesh)


def loop_for(session: Session, method: Method, spec: DecodeSpec) -> LoopContext:
    """What the slots of a session and a method are compiled with."""
    with on_mesh(session.mesh):
        return make_loop(spec, session.params, method.policy, method.boundaries)


def last_chunk(spec: DecodeSpec, length: int, start: int = 0) -> tuple[int, int]:
    """(the tokens before the last chunk of a prompt of `length` tokens that is read from `start` on, its padded width)."""
    rest = length - start
    tail = rest - CHUNK * ((rest - 1) // CHUNK)
    before = length - tail
    return before, min(max(SHORTEST, 1 << (tail - 1).bit_length()), spec.buffer_length - before)


def _bare(state: DecodeState) -> DecodeState:
    """The state without its caches, so that programs that read none are compiled once for all their sizes."""
    return state.replace(target_cache=None, draft_cache=None)


def _one(number: int) -> np.ndarray:
    return np.array([number], np.int32)


def _begin(request: SlotRequest, held: int) -> int:
    """The first token of a prompt to compute. The last held one is computed again: the draft pairs its features with the next
    token, which may differ now."""
    return max(min(held, len(request.prompt)) - 1, 0)
