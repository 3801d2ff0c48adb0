"""The host's part of forced answers in parallel: it prefills the traces in chunks and runs segments until no task is left."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from specexit_jax.decoding.forced import branches
from specexit_jax.decoding.forced.branches import BranchState, Tasks
from specexit_jax.decoding.forced.one_at_a_time import Forced, ForceSpec
from specexit_jax.decoding.timed_programs import TimedPrograms
from specexit_jax.models.cache import Cache

CHUNK = 512  # tokens of a trace that one call prefills: its scores are [CHUNK, prefix], never [T, T]
PREFIX, TASKS = 256, 64  # the least prefix capacity and the least number of boundaries that are compiled for
_NEVER = 2**30
OWN = 32  # the capacity of a branch's own cache at first; it grows fourfold


@dataclasses.dataclass
class ForceCost:
    """What forcing has cost so far.

    boundaries: number of forced boundaries, each under every key. tokens: of the answers. computed: tokens that the target
    computed in steps, idle branches and `</think>` included. reads: passes of a step over the prefix of one trace.
    read_tokens: prefix positions read in these passes. prefilled: tokens of traces. seconds: of everything but compilation,
    which took compile_seconds.
    """

    boundaries: int = 0
    tokens: int = 0
    computed: int = 0
    reads: int = 0
    read_tokens: int = 0
    prefilled: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0


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
        began, compiled = time.perf_counter(), self._programs.compile_seconds
        number = boundaries.shape[1]
        padded = np.full((len(tokens), rung(number, TASKS)), -1, np.int32)
        padded[:, :number] = boundaries
        looked_at = jnp.asarray(tokens, jnp.int32) if self.spec.sampling.penalises else None
        tasks = Tasks(jnp.asarray(padded), keys, jnp.asarray(max_length, jnp.int32), looked_at)
        forced = self.answer(self.prefill(tokens, int(padded.max()) + 1), tasks)
        compiled = self._programs.compile_seconds - compiled
        self.cost.compile_seconds += compiled
        self.cost.seconds += time.perf_counter() - began - compiled
        return Forced(*(part[:, :number] for part in dataclasses.astuple(forced)[:-1]), None)

    def answer(self, prefix: Cache, tasks: Tasks) -> Forced:
        """The answers on traces that are prefilled already. The time is not added to `cost.seconds`."""
        state = self._run(prefix, tasks)
        found = jax.device_get((state.ids, state.counts, state.finished, state.log_probabilities))
        shape = (*tasks.boundaries.shape, tasks.keys.shape[1])
        ids, counts, finished, total = (part.reshape(*shape, -1) for part in found)
        self.cost.boundaries += int((np.asarray(tasks.boundaries) >= 0).sum())
        self.cost.tokens += int(counts.sum())
        return Forced(ids, counts[..., 0], finished[..., 0], (total / np.maximum(counts, 1))[..., 0], None)

    def prefill(self, tokens: np.ndarray, longest: int) -> Cache:
        """A cache with the first `longest` tokens of the traces; its capacity is rounded up (`rung`)."""
        whole = np.zeros((len(tokens), rung(longest, PREFIX)), np.int32)
        width = min(whole.shape[1], tokens.shape[1])
        whole[:, :width] = tokens[:, :width]
        cache, start = None, 0
        while start < longest:
            stop = min(start + CHUNK, whole.shape[1])
            capacity = rung(stop, PREFIX)
            if cache is None:
                cache = self._programs.call(branches.empty_prefix, self.spec.target, len(tokens), capacity)
            cache = self._fitted(cache, capacity)
            chunk = jnp.asarray(whole[:, start:stop])
            cache = self._programs.call(branches.absorb, self.spec.target, self.params, cache, chunk, jnp.int32(start))
            start = stop
        if cache is None:  # no boundary at all
            cache = self._programs.call(branches.empty_prefix, self.spec.target, len(tokens), PREFIX)
        self.cost.prefilled += start * len(tokens)
        return cache

    def _run(self, prefix: Cache, tasks: Tasks) -> BranchState:
        spec, rows = self.spec, tasks.boundaries.shape[0]
        own = self._own(1)
        state = self._programs.call(branches.open_branches, spec, self.branches, own, prefix, tasks)
        active, needed, used, steps = _outlook(tasks, state)
        while active:
            prefix = self._fitted(prefix, rung(needed, PREFIX))
            if used > own or used <= _fewer(own):
                own = self._own(used)
                state = self._programs.call(branches.resize_own, own, state)
            before = steps
            if (prefix.capacity, own) not in self._warm:
                # Compiled by a call without steps, so that no step's time counts as compilation.
                self._warm.add((prefix.capacity, own))
                state, _ = self._segment(prefix, tasks, _NEVER, state)
            state, outlook = self._segment(prefix, tasks, _shorter(prefix.capacity), state)
            active, needed, used, steps = np.asarray(outlook).tolist()
            self.cost.computed += (steps - before) * rows * self.branches
            self.cost.reads += (steps - before) * rows
            self.cost.read_tokens += (steps - before) * rows * prefix.capacity
        return state

    def _segment(self, prefix: Cache, tasks: Tasks, shorter: int, state: BranchState):
        edges = jnp.int32(shorter), jnp.int32(_fewer(state.v[0].shape[3]))
        return self._programs.call(branches.segment, self.spec, self.params, prefix, tasks, *edges, state)

    def _own(self, used: int) -> int:
        """The capacity of a branch's own cache for a step that needs `used` positions."""
        capacity = OWN
        while capacity < used:
            capacity *= 4
        return min(capacity, self.spec.reach)

    def _fitted(self, cache: Cache, capacity: int) -> Cache:
        """The cache with this capacity."""
        return cache if cache.capacity == capacity else self._programs.call(branches.resize_prefix, cache, capacity)


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


def _outlook(tasks: Tasks, state: BranchState) -> list[int]:
    """`branches.outlook` on the host."""
    return np.asarray(jax.jit(branches.outlook)(tasks, state)).tolist()
