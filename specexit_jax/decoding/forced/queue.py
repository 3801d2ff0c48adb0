"""The host's part of forced answers in parallel: it prefills the traces in chunks and runs segments until no task is left."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from specexit_jax.decoding.forced import branches
from specexit_jax.decoding.forced.branches import BranchState, Tasks
from specexit_jax.decoding.forced.cost import ForceCost
from specexit_jax.decoding.forced.one_at_a_time import Forced, ForceSpec
from specexit_jax.decoding.resizing import resized_in_turn
from specexit_jax.decoding.timed_programs import TimedPrograms
from specexit_jax.models.cache import Cache

CHUNK = 512  # tokens of a trace that one call prefills: its scores are [CHUNK, prefix], never [T, T]
PREFIX, TASKS = 256, 64  # the least prefix capacity and the least number of boundaries that are compiled for
_NEVER = 2**30
_POLLED = 16  # steps between questions to a row whose next boundaries are not known yet
# of a row and its new answers (None where there are none): the boundaries to force next; [] ends it, None: not known yet
Ask = Callable[[int, Forced | None], list[int] | None]
OWN = 32  # the capacity of a branch's own cache at first; it grows fourfold


@dataclasses.dataclass(frozen=True)
class Read:
    """A trace that a row reads: its tokens, keys [C], the greatest length of trace and answer, and how far it is read at most."""

    tokens: np.ndarray
    keys: jax.Array
    max_length: int
    longest: int


class Forcer:
    """Forces answers on `branches` boundaries of each trace at once.

    mesh: what the parameters are sharded over. Raises ValueError where there is no branch.
    """

    def __init__(self, spec: ForceSpec, target_params: dict, branches: int, mesh: Mesh | None = None):
        if branches < 1:
            raise ValueError(f"There must be at least 1 branch, not {branches}.")
        self.spec, self.params, self.branches = spec, target_params, branches
        self.cost = ForceCost()
        self._programs = TimedPrograms(mesh, target_params)
        self._warm: set[tuple] = set()

    def force(self, tokens: np.ndarray, boundaries: np.ndarray, keys: jax.Array, max_length: np.ndarray) -> Forced:
        """The answers of `force_answers`, under each of C keys [B, C], as host arrays [B, N, C, ...] without features."""
        with self._timed():
            number = boundaries.shape[1]
            padded = np.full((len(tokens), rung(number, TASKS)), -1, np.int32)
            padded[:, :number] = boundaries
            prefix = self.prefill(tokens, int(padded.max()) + 1)
            forced = self.answer(prefix, self._tasks(tokens, padded, keys, max_length))
        return Forced(*(part[:, :number] for part in dataclasses.astuple(forced)[:-1]), None)

    def force_asked(
        self, rows: int, most: int, following: Callable[[int], Read | None], ask: Ask, wait: Callable[[], None]
    ) -> Iterator[None]:
        """`force` where the boundaries of a trace depend on its answers so far. Rows do not wait for each other: one whose trace
        is done takes the next. Yields now and then, so that the caller can use what it was told.

        most: boundaries of a trace that are asked for at a time. following(row): the trace that the row has next, None where no
        one is left. wait: called where no row has an answer to decode, and the next boundaries of some are not known yet.
        """
        reads = [read for row in range(rows) if (read := following(row)) is not None]
        if not reads:
            return
        with self._timed():
            tokens = np.zeros((rows, max(len(read.tokens) for read in reads)), np.int32)
            for row, read in enumerate(reads):
                tokens[row, : len(read.tokens)] = read.tokens
            held = [self.prefill(tokens, max(read.longest for read in reads))]
        boundaries, state, forced = np.full((rows, most), -1, np.int32), None, None
        asking, busy, done = np.arange(rows) < len(reads), np.zeros(rows, bool), np.zeros(rows, bool)
        reads += reads[:1] * (rows - len(reads))  # of rows that stay empty
        while asking.any():
            given = np.zeros(rows, bool)
            for row in map(int, np.flatnonzero(asking & ~busy)):
                own = ask(row, forced if done[row] else None)
                while own == [] and (read := following(row)) is not None:
                    with self._timed():
                        self._reread(held, row, read)
                        reads[row] = read
                    own = ask(row, None)
                if own is not None:
                    asking[row] = given[row] = bool(own)
                    boundaries[row] = [*own, *[-1] * (most - len(own))]
            busy, done = busy | given, np.zeros(rows, bool)
            yield
            if not busy.any():
                if asking.any():
                    wait()
                continue
            with self._timed():
                tasks = self._tasks_of(reads, boundaries)
                if state is None:
                    state = self._opened(held[0], tasks)
                elif given.any():
                    state = self._programs.call(branches.assign, self.spec, tasks, jnp.asarray(given), state)
                state = self._run(held[0], tasks, state, busy, _POLLED if (asking & ~busy).any() else _NEVER)
                done = busy & np.asarray(state.task < 0).all(axis=1)
                if done.any():
                    forced = self._found(state, tasks)
                    self.cost.tokens += int(forced.length[done].sum())
            self.cost.boundaries += int((boundaries[given] >= 0).sum())
            busy &= ~done

    def _reread(self, held: list[Cache], row: int, read: Read) -> None:
        """Puts another trace into a row of the only cache of `held`."""
        one = [self.prefill(read.tokens[None], read.longest)]
        capacity = max(held[0].capacity, one[0].capacity)
        self._fit(held, capacity)
        self._fit(one, capacity)
        held[0] = self._programs.call(branches.put_prefix, held[0], one[0], jnp.int32(row))

    def _tasks_of(self, reads: Sequence[Read], boundaries: np.ndarray) -> Tasks:
        tokens = np.zeros((len(reads), rung(max(len(read.tokens) for read in reads), PREFIX)), np.int32)
        for row, read in enumerate(reads):
            tokens[row, : len(read.tokens)] = read.tokens
        keys, limits = jnp.stack([read.keys for read in reads]), np.array([read.max_length for read in reads])
        return self._tasks(tokens, boundaries, keys, limits)

    def _tasks(self, tokens: np.ndarray, boundaries: np.ndarray, keys: jax.Array, max_length: np.ndarray) -> Tasks:
        looked_at = jnp.asarray(tokens, jnp.int32) if self.spec.sampling.penalises else None
        return Tasks(jnp.asarray(boundaries), keys, jnp.asarray(max_length, jnp.int32), looked_at)

    @contextlib.contextmanager
    def _timed(self):
        """Adds what the block takes to `cost`, compilation apart."""
        began, compiled = time.perf_counter(), self._programs.compile_seconds
        yield
        compiled = self._programs.compile_seconds - compiled
        self.cost.compile_seconds += compiled
        self.cost.seconds += time.perf_counter() - began - compiled

    def answer(self, prefix: Cache, tasks: Tasks) -> Forced:
        """The answers on traces that are prefilled already. The time is not added to `cost.seconds`."""
        forced = self._found(self._run(prefix, tasks, self._opened(prefix, tasks)), tasks)
        self.cost.boundaries += int((np.asarray(tasks.boundaries) >= 0).sum())
        self.cost.tokens += int(forced.length.sum())
        return forced

    def _found(self, state: BranchState, tasks: Tasks) -> Forced:
        """What the state holds of the answers, on the host."""
        found = jax.device_get((state.ids, state.counts, state.finished, state.log_probabilities))
        shape = (*tasks.boundaries.shape, tasks.keys.shape[1])
        # copied: the state's buffers are donated to its next step
        ids, counts, finished, total = (np.array(part).reshape(*shape, -1) for part in found)
        return Forced(ids, counts[..., 0], finished[..., 0], (total / np.maximum(counts, 1))[..., 0], None)

    def prefill(self, tokens: np.ndarray, longest: int) -> Cache:
        """A cache with the first `longest` tokens of the traces; its capacity is rounded up (`rung`)."""
        whole = np.zeros((len(tokens), rung(longest, PREFIX)), np.int32)
        width = min(whole.shape[1], tokens.shape[1])
        whole[:, :width] = tokens[:, :width]
        held, start = [], 0
        while start < longest:
            stop = min(start + CHUNK, whole.shape[1])
            capacity = rung(stop, PREFIX)
            if not held:
                held.append(self._programs.call(branches.empty_prefix, self.spec.target, len(tokens), capacity))
            self._fit(held, capacity)
            chunk = jnp.asarray(whole[:, start:stop])
            held[0] = self._programs.call(
                branches.absorb, self.spec.target, self.params, held[0], chunk, jnp.int32(start)
            )
            start = stop
        if not held:  # no boundary at all
            held.append(self._programs.call(branches.empty_prefix, self.spec.target, len(tokens), PREFIX))
        self.cost.prefilled += start * len(tokens)
        return held[0]

    def _opened(self, prefix: Cache, tasks: Tasks) -> BranchState:
        return self._programs.call(branches.open_branches, self.spec, self.branches, self._own(1), prefix, tasks)

    def _run(
        self, whole: Cache, tasks: Tasks, state: BranchState, asking: np.ndarray | None = None, most: int = _NEVER
    ) -> BranchState:
        """The state once no task is left, a row that is asking for more (None: none is) has none, or after `most` steps."""
        rows, own, held = tasks.boundaries.shape[0], state.v[0].shape[3], [whole]
        waits = np.zeros(rows, bool) if asking is None else asking
        active, needed, used, steps, waiting = _outlook(tasks, state, waits)
        last = min(steps + most, _NEVER)
        while active and not waiting and steps < last:
            capacity = rung(needed, PREFIX)
            if capacity > held[0].capacity:
                held = [whole]
            self._fit(held, capacity)
            if used > own or used <= _fewer(own):
                own = self._own(used)
                state = self._programs.call(branches.resize_own, own, state)
            before = steps
            if (capacity, own) not in self._warm:
                # Compiled by a call without steps, so that no step's time counts as compilation.
                self._warm.add((capacity, own))
                state, _ = self._segment(held[0], tasks, _NEVER, last, waits, state)
            state, outlook = self._segment(held[0], tasks, _shorter(capacity), last, waits, state)
            active, needed, used, steps, waiting = np.asarray(outlook).tolist()
            self.cost.computed += (steps - before) * rows * self.branches
            self.cost.reads += (steps - before) * rows
            self.cost.read_tokens += (steps - before) * rows * capacity
        return state

    def _segment(self, prefix: Cache, tasks: Tasks, shorter: int, last: int, waits: np.ndarray, state: BranchState):
        edges = jnp.int32(shorter), jnp.int32(_fewer(state.v[0].shape[3])), jnp.int32(last), jnp.asarray(waits)
        return self._programs.call(branches.segment, self.spec, self.params, prefix, tasks, *edges, state)

    def _own(self, used: int) -> int:
        """The capacity of a branch's own cache for a step that needs `used` positions."""
        capacity = OWN
        while capacity < used:
            capacity *= 4
        return min(capacity, self.spec.reach)

    def _fit(self, held: list[Cache], capacity: int) -> None:
        """Gives the only cache of `held` this capacity, array by array."""
        if held[0].capacity != capacity:
            held.append(resized_in_turn(self._programs, held, capacity))


def rung(number: int, least: int) -> int:
    """The first of least, 1.5 least, 2 least, 3 least, 4 least, 6 least ... that is at least `number`.

    So there are few shapes to compile, and above `least` at most a third of a shape is padding.
    """
    size = least
    while size < number:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def _shorter(capacity: int) -> int:
    """The next smaller value of `rung`; 0 where there is none."""
    if capacity <= PREFIX:
        return 0
    return capacity * 2 // 3 if capacity & (capacity - 1) else capacity * 3 // 4


def _fewer(own: int) -> int:
    """The number of used own positions at or below which the branches' caches shrink; -1: never."""
    return own // 8 if own > OWN else -1


def _outlook(tasks: Tasks, state: BranchState, asking: np.ndarray) -> list[int]:
    """`branches.outlook` on the host."""
    return np.asarray(jax.jit(branches.outlook)(tasks, state, jnp.asarray(asking))).tolist()
