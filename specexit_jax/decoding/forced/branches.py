"""Forced answers in parallel: many boundaries of a trace at once, on a shared prefix that is only read.

A task is one boundary under one of the trace's keys. Each of N branches decodes the answer of one task, and takes the next
task when that answer ends. Tasks are taken from the last boundary to the first, so the part of the prefix that is read
shrinks. The tokens equal those of `one_at_a_time`. The host calls one segment after the other (`queue`); within a segment
all shapes are fixed.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.decoding import verify
from specexit_jax.decoding.forced.one_at_a_time import ForceSpec, seen_by_traces
from specexit_jax.decoding.keyed import keyed_sample
from specexit_jax.decoding.penalty import penalised, seen_along
from specexit_jax.decoding.sampling import SamplingRows, token_log_probability
from specexit_jax.models.branches import BranchCache, branch_cache, resize_branches
from specexit_jax.models.cache import Cache, put_row
from specexit_jax.models.config import TargetConfig
from specexit_jax.models.target import Target, init_target_cache


@flax.struct.dataclass
class Tasks:
    """The tasks of each row. Task w is boundary w // C under key w % C. Padding boundaries stand last and are never taken."""

    boundaries: Int[Array, "B P"]  # ascending positions of boundary tokens, padded with -1 at the end
    keys: Array  # [B, C] typed PRNG keys
    max_length: Int[Array, " B"]  # of trace and answer together
    tokens: Int[Array, "B L"] | None = None  # the traces; read by a repetition penalty only

    def start(self, task: Int[Array, "B N"]) -> Int[Array, "B N"]:
        """Position of `</think>`, which is the number of prefix positions that the task attends to; 0 for no task (-1)."""
        place = jnp.maximum(task, 0) // self.keys.shape[1]
        return jnp.where(task >= 0, jnp.take_along_axis(self.boundaries, place, axis=1) + 1, 0)

    def key(self, task: Int[Array, "B N"]) -> Array:
        """The typed PRNG keys [B, N] of the tasks."""
        rows = jnp.broadcast_to(jnp.arange(task.shape[0], dtype=jnp.int32)[:, None], task.shape)
        return self.keys[rows, jnp.maximum(task, 0) % self.keys.shape[1]]


@flax.struct.dataclass
class BranchState:
    """The carry of the loop. Branches whose task is -1 idle. The first `waiting` tasks of each row are not taken yet."""

    k: tuple[jax.Array, ...]  # as in BranchCache
    v: tuple[jax.Array, ...]  # as in BranchCache
    used: Int[Array, "B N"]
    task: Int[Array, "B N"]
    waiting: Int[Array, " B"]
    token: Int[Array, "B N"]  # chosen; its keys and values will go to the branch's position `used`
    steps: Int[Array, ""]
    ids: Int[Array, "B X"]  # answers' tokens: W tasks of M each
    log_probabilities: Float[Array, "B W"]  # sums
    counts: Int[Array, "B W"]
    finished: Bool[Array, "B W"]
    seen: Bool[Array, "B N V"] | None = None  # the ids before `token`; with a repetition penalty only


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def absorb(
    config: TargetConfig, target_params: dict, cache: Cache, tokens: Int[Array, "B T"], start: Int[Array, ""]
) -> Cache:
    """Prefills a chunk of the traces, from position `start` on. Attention reads the whole cache."""
    first = jnp.full((tokens.shape[0],), start, jnp.int32)
    positions = first[:, None] + jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :]
    cache = cache.replace(length=first)
    return Target(config).apply({"params": target_params}, tokens, positions, cache, logits=False).cache


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def empty_prefix(config: TargetConfig, rows: int, capacity: int) -> Cache:
    """An empty cache for the traces of `rows` rows."""
    return init_target_cache(config, rows, capacity)


put_prefix = jax.jit(put_row, donate_argnums=0)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def open_branches(spec: ForceSpec, branches: int, capacity: int, prefix: Cache, tasks: Tasks) -> BranchState:
    """The state in which every branch has its first task; capacity: of each branch's own cache."""
    empty = branch_cache(prefix, branches, capacity)
    rows, most = tasks.boundaries.shape[0], tasks.boundaries.shape[1] * tasks.keys.shape[1]
    waiting = jnp.sum((tasks.boundaries >= 0).astype(jnp.int32), axis=1) * tasks.keys.shape[1]
    idle = jnp.full((rows, branches), -1, jnp.int32)
    task, waiting = _take(idle, waiting, jnp.ones((rows, branches), bool))
    return BranchState(
        k=empty.k,
        v=empty.v,
        used=empty.used,
        task=task,
        waiting=waiting,
        token=jnp.full((rows, branches), spec.end_think_ids[0], jnp.int32),
        steps=jnp.int32(0),
        ids=jnp.zeros((rows, most * spec.max_answer), jnp.int32),
        log_probabilities=jnp.zeros((rows, most), jnp.float32),
        counts=jnp.zeros((rows, most), jnp.int32),
        finished=jnp.zeros((rows, most), bool),
        seen=seen_by_traces(spec, tasks.tokens, tasks.start(task)),
    )


@functools.partial(jax.jit, static_argnums=0)
def resize_own(capacity: int, state: BranchState) -> BranchState:
    """The state with own caches of `capacity` positions a branch."""
    cache = resize_branches(BranchCache(None, state.k, state.v, state.used, state.used), capacity)
    return state.replace(k=cache.k, v=cache.v)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=8)
def segment(
    spec: ForceSpec,
    target_params: dict,
    prefix: Cache,
    tasks: Tasks,
    shorter: Int[Array, ""],
    fewer: Int[Array, ""],
    last: Int[Array, ""],
    asking: Bool[Array, " B"],
    state: BranchState,
) -> tuple[BranchState, Int[Array, " 5"]]:
    """Runs steps until no task is left, until a row that is `asking` for more has none, until there were `last` steps in all, or
    until the caches should be resized; returns the state and its `outlook`.

    The caches should be resized when a branch needs more own positions than it has, when all branches need at most `shorter`
    positions of the prefix, or when they need at most `fewer` own positions (-1: never).
    """
    capacity = state.v[0].shape[3]

    def continues(state: BranchState) -> Bool[Array, ""]:
        active, prefix_needed, own_needed, steps, waiting = outlook(tasks, state, asking)
        goes_on = (active > 0) & (waiting == 0) & (steps < last)
        return goes_on & (prefix_needed > shorter) & (own_needed <= capacity) & (own_needed > fewer)

    state = jax.lax.while_loop(continues, functools.partial(step, spec, target_params, prefix, tasks), state)
    return state, outlook(tasks, state, asking)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def assign(spec: ForceSpec, tasks: Tasks, given: Bool[Array, " B"], state: BranchState) -> BranchState:
    """The state in which `given` rows, whose tasks were done, begin those of `tasks`; what was found for the others stays."""
    waiting = jnp.sum((tasks.boundaries >= 0).astype(jnp.int32), axis=1) * tasks.keys.shape[1]
    waiting = jnp.where(given, waiting, state.waiting)
    task, waiting = _take(state.task, waiting, jnp.broadcast_to(given[:, None], state.task.shape))
    fresh = lambda values: jnp.where(given[:, None], jnp.zeros((), values.dtype), values)  # noqa: E731
    seen = state.seen
    if spec.sampling.penalises:
        seen = jnp.where(given[:, None, None], seen_by_traces(spec, tasks.tokens, tasks.start(task)), seen)
    return state.replace(
        used=fresh(state.used),
        task=task,
        waiting=waiting,
        token=jnp.where(given[:, None], jnp.int32(spec.end_think_ids[0]), state.token),
        ids=fresh(state.ids),
        log_probabilities=fresh(state.log_probabilities),
        counts=fresh(state.counts),
        finished=fresh(state.finished),
        seen=seen,
    )


def outlook(tasks: Tasks, state: BranchState, asking: Bool[Array, " B"]) -> Int[Array, " 5"]:
    """(active branches, prefix positions that the next step reads, own positions that it needs, steps so far, `asking` rows
    without a task)."""
    active = state.task >= 0
    used = jnp.where(active, state.used + 1, 0)
    waiting = asking & ~jnp.any(active, axis=1)
    counts = [jnp.sum(flags.astype(jnp.int32)) for flags in (active, waiting)]
    return jnp.stack([counts[0], jnp.max(tasks.start(state.task)), jnp.max(used), state.steps, counts[1]])


def step(spec: ForceSpec, target_params: dict, prefix: Cache, tasks: Tasks, state: BranchState) -> BranchState:
    """One token of every branch's answer. A branch whose answer ends takes its row's next task."""
    rows, branches = state.task.shape
    start = tasks.start(state.task)
    length = start + state.used
    cache = BranchCache(prefix, state.k, state.v, start, state.used)
    out = Target(spec.target).apply({"params": target_params}, state.token, length, cache)
    logits, ahead = out.logits.reshape(rows * branches, 1, -1), length + 1
    flat, seen, wanted = ahead.reshape(-1, 1), state.seen, logits
    if spec.sampling.penalises:
        seen = seen_along(seen, state.token[:, :, None])
        wanted = penalised(logits, seen.reshape(logits.shape), SamplingRows.of([spec.sampling]))
    sampled = keyed_sample(wanted, tasks.key(state.task).reshape(-1), flat, SamplingRows.of([spec.sampling]))
    sampled = verify.force_end(sampled, flat, start.reshape(-1), spec.end_think_ids)
    token = sampled.reshape(rows, branches)
    log_probability = token_log_probability(logits, sampled).reshape(rows, branches)
    answered = ahead - start - len(spec.end_think_ids)  # this token's index in the answer; below 0: part of `</think>`
    limit = jnp.minimum(tasks.max_length[:, None], start + spec.reach)
    kept = (state.task >= 0) & (answered >= 0) & (ahead < limit)
    stops = kept & verify.is_any_of(token, spec.stop_ids)
    ends = stops | (ahead + 1 >= limit) | (state.task < 0)
    nowhere = state.ids.shape[1]  # an index past the end of every buffer: writes to it are dropped
    row = jnp.broadcast_to(jnp.arange(rows, dtype=jnp.int32)[:, None], state.task.shape)
    index = jnp.where(kept, state.task * spec.max_answer + answered, nowhere)
    mine = jnp.where(kept, state.task, nowhere)
    task, waiting = _take(state.task, state.waiting, ends)
    if spec.sampling.penalises:
        seen = jnp.where(ends[:, :, None], seen_by_traces(spec, tasks.tokens, tasks.start(task)), seen)
    return BranchState(
        k=out.cache.k,
        v=out.cache.v,
        used=jnp.where(ends, 0, state.used + 1),
        task=task,
        waiting=waiting,
        token=jnp.where(ends, jnp.int32(spec.end_think_ids[0]), token),
        steps=state.steps + 1,
        ids=state.ids.at[row, index].set(token, mode="drop"),
        log_probabilities=state.log_probabilities.at[row, mine].add(log_probability, mode="drop"),
        counts=state.counts.at[row, mine].add(1, mode="drop"),
        finished=state.finished.at[row, jnp.where(stops, mine, nowhere)].set(True, mode="drop"),
        seen=seen,
    )


def _take(task: Int[Array, "B N"], waiting: Int[Array, " B"], free: Bool[Array, "B N"]):
    """(the tasks after the free branches have taken the last waiting tasks of their row, the tasks that still wait)."""
    rank = jnp.cumsum(free.astype(jnp.int32), axis=1) - 1
    following = jnp.maximum(waiting[:, None] - 1 - rank, -1)
    taken = jnp.sum(free.astype(jnp.int32), axis=1)
    return jnp.where(free, following, task), jnp.maximum(waiting - taken, 0)
