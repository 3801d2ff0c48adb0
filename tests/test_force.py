"""Forced answers in parallel against the sequential form, token for token, and what they read."""

import dataclasses
import functools
import weakref

import jax
import numpy as np
import pytest
from decoding_case import QUICK
from random_params import random_params

from specexit_jax.decoding import resizing
from specexit_jax.decoding.forced import branches, queue
from specexit_jax.decoding.forced.one_at_a_time import Forced, ForceSpec, force_answers
from specexit_jax.decoding.forced.queue import Forcer, Read, rung
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.models.cache import Cache
from specexit_jax.models.config import TargetConfig
from specexit_jax.models.target import init_target

VOCABULARY = 24
TARGET = TargetConfig("qwen3", VOCABULARY, 16, 24, 2, 4, 2, 8, qk_norm=True, capture=(0, 1, 1))
SPEC = ForceSpec(TARGET, Sampling(temperature=1.0), 13, (1,), (2,))
SAMPLINGS = [
    Sampling(),
    Sampling(0.9),
    Sampling(1.3, top_k=6),
    Sampling(1.0, top_p=0.8),
    Sampling(1.1, min_p=0.05, repetition_penalty=1.4),
]


@pytest.fixture(scope="module")
def params():
    return random_params(init_target, TARGET, 0)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Compiles with QUICK, which takes less time."""
    for name, static in {"absorb": 0, "assign": 0, "segment": 0, "open_branches": (0, 1, 2)}.items():
        plain = getattr(branches, name).__wrapped__
        monkeypatch.setattr(branches, name, jax.jit(plain, static_argnums=static, compiler_options=QUICK))


@pytest.fixture
def small(monkeypatch):
    """Sizes at which a trace of 180 tokens needs every kind of chunk and segment."""
    for name, size in {"CHUNK": 128, "PREFIX": 64, "TASKS": 4, "OWN": 4}.items():
        monkeypatch.setattr(queue, name, size)


def ragged(seed: int, rows: int = 4, longest: int = 100):
    """Traces of different lengths with 0 to 20 boundaries each, and limits that cut some answers short."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(3, VOCABULARY, (rows, longest)).astype(np.int32)
    boundaries = np.full((rows, 20), -1, np.int32)
    lengths = np.array([longest, *rng.integers(12, longest, rows - 1)])
    for row, length in enumerate(lengths):
        tokens[row, length:] = 0
        count = 20 if row == 0 else rng.integers(0, 12)
        boundaries[row, :count] = np.sort(rng.choice(length - 1, min(count, length - 1), replace=False))
    keys = jax.random.split(jax.random.key(seed), rows)
    return tokens, boundaries, keys, (lengths + rng.integers(0, 20, rows)).astype(np.int32)


def assert_same(ours, one, key: int = 0) -> None:
    np.testing.assert_array_equal(ours.length[:, :, key], one.length)
    np.testing.assert_array_equal(ours.ids[:, :, key], one.ids)
    np.testing.assert_array_equal(ours.finished[:, :, key], one.finished)
    np.testing.assert_allclose(ours.log_probability[:, :, key], one.log_probability, atol=1e-4)


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def in_turn(spec, *arguments):
    return force_answers.__wrapped__(spec, *arguments)


def compare(forcer: Forcer, params, seed: int, longest: int = 100):
    """The answers of the sequential form; those of the branches must be equal."""
    tokens, boundaries, keys, limit = ragged(seed, longest=longest)
    one = jax.device_get(in_turn(forcer.spec, params, tokens, boundaries, keys, limit))
    assert_same(forcer.force(tokens, boundaries, keys[:, None], limit), one)
    return one


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=lambda s: f"{s.temperature}-{s.top_k}-{s.top_p}-{s.min_p}")
def test_branches_write_what_the_sequential_form_writes(params, sampling):
    spec = dataclasses.replace(SPEC, sampling=sampling, live_prefixes=(128,))
    forcer = Forcer(spec, params, 1 if sampling.greedy else 3)
    found = [compare(forcer, params, seed) for seed in range(3)]
    cut = sum(int(((one.length > 0) & ~one.finished).sum()) for one in found)
    stopped = sum(int(one.finished.sum()) for one in found)
    assert cut > 5 and (stopped > 5 or sampling.greedy)
    assert forcer.cost.tokens == sum(int(one.length.sum()) for one in found) > 150


def test_chunks_segments_and_long_ends_change_nothing(params, small):
    """`</think>` of several ids; the prefix in several chunks, read less and less; own capacity that grows and shrinks."""
    spec = dataclasses.replace(SPEC, end_think_ids=(2, 9, 4), max_answer=30, live_prefixes=(256,))
    forcer, shapes = Forcer(spec, params, 5), []
    segment = branches.segment
    forcer._programs.call = lambda function, *arguments: (
        shapes.append((arguments[2].capacity, arguments[-1].v[0].shape[3])) if function is segment else None,
        function(*arguments),
    )[1]
    one = compare(forcer, params, 0, longest=180)
    assert (one.length > 16).any(), "answers must outgrow the first own capacity"
    assert len({prefix for prefix, _ in shapes}) > 2 and len({own for _, own in shapes}) > 2


def test_every_key_is_a_run_of_its_own(params):
    spec, forcer = dataclasses.replace(SPEC, live_prefixes=(128,)), Forcer(SPEC, params, 4)
    tokens, boundaries, _, limit = ragged(3)
    keys = jax.random.split(jax.random.key(7), (4, 3))
    ours = forcer.force(tokens, boundaries, keys, limit)
    for key in range(3):
        assert_same(ours, jax.device_get(in_turn(spec, params, tokens, boundaries, keys[:, key], limit)), key)
    assert (ours.ids[:, :, 0] != ours.ids[:, :, 1]).any()


def test_what_was_read_is_counted(params):
    """Answers of exactly 4 tokens, so that every count is known beforehand."""
    forcer = Forcer(dataclasses.replace(SPEC, max_answer=4, stop_ids=()), params, 4)
    tokens, limit = np.full((2, 50), 5, np.int32), np.full((2,), 90, np.int32)
    boundaries = np.full((2, 9), -1, np.int32)
    boundaries[0], boundaries[1, :2] = np.arange(9) * 5, (3, 8)
    forcer.force(tokens, boundaries, jax.random.split(jax.random.key(0), (2, 1)), limit)
    cost = forcer.cost
    steps = 3 * 4  # 9 boundaries on 4 branches take three turns of 4 steps, while the other row idles
    assert (cost.boundaries, cost.tokens) == (11, 44)
    assert (cost.reads, cost.computed) == (steps * 2, steps * 2 * 4)
    assert (cost.read_tokens, cost.prefilled) == (steps * 2 * 256, 2 * 256)


def asked_of(forcer, tokens, boundaries, keys, limit, most, ask, wait=None, rows=None):
    """`force_asked` of these traces; ask is told the number of a trace instead of a row's."""
    longest = [int(own.max()) + 1 for own in boundaries]
    left, of = iter(reversed(range(len(tokens)))), {}  # the longest last, so that the prefix grows

    def following(row):
        of[row] = next(left, None)
        number = of[row]
        return None if number is None else Read(tokens[number], keys[number], int(limit[number]), longest[number])

    def asked(row, forced):
        return ask(of[row], forced and Forced(*[part[[row]] for part in dataclasses.astuple(forced)[:-1]], None))

    for _ in forcer.force_asked(rows or len(tokens), most, following, asked, wait):
        pass


@pytest.mark.parametrize(("penalty", "rows"), [(1.0, 4), (1.4, 2)])
def test_rows_that_ask_for_more_do_not_wait(params, monkeypatch, penalty, rows):
    """Answers that are asked for one after the other are those that are forced at once. Every row goes on by itself, and takes the
    next trace when its own is done."""
    monkeypatch.setattr(queue, "PREFIX", 64)
    spec = dataclasses.replace(SPEC, sampling=Sampling(1.0, repetition_penalty=penalty))
    forcer, (tokens, boundaries, keys, limit) = Forcer(spec, params, 2), ragged(5)
    every = Forcer(spec, params, 3).force(tokens, boundaries, keys[:, None], limit)
    wanted = [[int(place) for place in row[row >= 0]] for row in boundaries]
    rng = np.random.default_rng(0)
    left, found = [list(rng.permutation(len(row))) for row in wanted], [{} for _ in wanted]
    last: list[list[int]] = [[] for _ in wanted]
    steps = [0] * len(wanted)  # that each row takes by itself

    def ask(row, forced):
        steps[row] += max((forced.length[0, at, 0] for at in range(len(last[row]))), default=0)
        for at, number in enumerate(last[row]):
            found[row][number] = [part[0, at] for part in (forced.ids, forced.length, forced.finished)]
        last[row] = sorted(left[row].pop() for _ in range(min(len(left[row]), 1 if row else 2)))
        return [wanted[row][number] for number in last[row]]

    asked_of(forcer, tokens, boundaries, keys[:, None], limit, 2, ask, rows=rows)
    for row, own in enumerate(found):
        assert own.keys() == set(range(len(wanted[row])))
        for number, (ids, length, finished) in own.items():
            np.testing.assert_array_equal(ids, every.ids[row, number])
            assert length == every.length[row, number] and finished == every.finished[row, number]
    assert forcer.cost.tokens == every.length.sum() and forcer.cost.boundaries == (boundaries >= 0).sum()
    # With a round for all rows, every row would take as long as the longest answer of each round.
    busy = [0] * rows
    for taken in reversed(steps):
        busy[busy.index(min(busy))] += taken
    assert forcer.cost.reads == rows * max(busy)


def test_a_row_that_does_not_know_what_comes_next_holds_up_no_other(params, monkeypatch):
    """The first row, whose answers are graded last of all: the process waits for them once the others are done, and not before."""
    monkeypatch.setattr(queue, "PREFIX", 64)
    forcer, (tokens, boundaries, keys, limit) = Forcer(SPEC, params, 2), ragged(5)
    every = Forcer(SPEC, params, 3).force(tokens, boundaries, keys[:, None], limit)
    left = [list(range(int((row >= 0).sum()))) for row in boundaries]
    found, now, ended, waits, unknown = [{} for _ in left], [None] * len(left), set(), [], []

    def ask(row, forced):
        if forced is not None:
            found[row][now[row]] = forced.ids[0, 0, 0]
        if row == 0 and len(found[0]) == 2 and not waits:
            unknown.append(len(ended))
            return None
        if not left[row]:
            ended.add(row)
            return []
        now[row] = left[row].pop()
        return [int(boundaries[row, now[row]])]

    def wait():
        waits.append(set(ended))

    asked_of(forcer, tokens, boundaries, keys[:, None], limit, 2, ask, wait)
    others = set(range(1, len(tokens)))
    assert waits == [others] and unknown[0] < len(others) and len(unknown) > 2
    for row, own in enumerate(found):
        assert own.keys() == set(range(int((boundaries[row] >= 0).sum())))
        for number, ids in own.items():
            np.testing.assert_array_equal(ids, every.ids[row, number, 0])


def test_a_row_is_asked_again_while_the_others_answer(params, monkeypatch):
    """Not only when one of their answers ends."""
    monkeypatch.setattr(queue, "_POLLED", 3)
    spec = dataclasses.replace(SPEC, stop_ids=())  # answers of exactly 13 tokens
    forcer, steps, ended = Forcer(spec, params, 2), [], [0, 0]
    monkeypatch.setattr(branches, "segment", counted := _Counted(branches.segment))

    def ask(row, forced):
        ended[row] += forced is not None
        if row == 0 and ended == [1, 0] and len(steps) < 2:
            steps.append(counted.steps)
            return None
        return [5] if ended[row] < 2 - row else []

    tokens, limit = np.full((2, 50), 5, np.int32), np.array([10, 90], np.int32)
    keys = jax.random.split(jax.random.key(0), (2, 1))
    asked_of(forcer, tokens, np.array([[5], [5]]), keys, limit, 1, ask)
    assert steps[1] - steps[0] == 3


class _Counted:
    """A segment that keeps the number of steps so far."""

    def __init__(self, segment):
        self.segment, self.steps = segment, 0

    def __call__(self, *arguments):
        state, outlook = self.segment(*arguments)
        self.steps = int(outlook[3])
        return state, outlook


def test_a_prefix_that_grows_frees_each_array_before_the_next(params, small):
    """Chunk by chunk, and where a longer trace takes a row."""
    rng, forcer = np.random.default_rng(8), Forcer(SPEC, params, 2)
    short, longer = (rng.integers(3, VOCABULARY, (2, length)).astype(np.int32) for length in (100, 300))
    keys, arrays = jax.random.split(jax.random.key(3), 1), 2 * TARGET.num_layers
    call, old, alive = forcer._programs.call, [], []

    def counted(function, *given):
        if function is resizing.resize_array:
            if not any(each() is given[0] for each in old):
                old[:] = [weakref.ref(given[0])]
            alive.append(sum(each() is not None for each in old))
        found = call(function, *given)
        if isinstance(found, Cache):
            old[:] = [weakref.ref(array) for array in (*found.k, *found.v)]
        return found

    forcer._programs.call = counted
    held = [forcer.prefill(short, 100)]
    assert not alive
    first = forcer.prefill(longer, 300)
    assert alive == [*range(arrays, 0, -1)] * 2 and first.capacity == 384  # 128, 256
    alive.clear()
    old[:] = []
    whole = [weakref.ref(array) for array in (*held[0].k, *held[0].v)]
    forcer._programs.call = lambda function, *given: (
        (alive.append(sum(each() is not None for each in whole)) if function is resizing.resize_array else None)
        or call(function, *given)
    )
    forcer._reread(held, 1, Read(longer[0], keys, 400, 300))
    assert alive[-arrays:] == list(range(arrays, 0, -1))
    np.testing.assert_allclose(held[0].v[0][1], first.v[0][0], rtol=1e-4, atol=1e-5)


def test_no_boundary_at_all(params):
    forcer = Forcer(SPEC, params, 2)
    keys = jax.random.split(jax.random.key(0), (1, 1))
    forced = forcer.force(np.full((1, 9), 5, np.int32), np.full((1, 1), -1, np.int32), keys, np.array([40], np.int32))
    assert forced.length.sum() == 0 and forcer.cost.reads == 0
    with pytest.raises(ValueError, match="at least 1 branch, not 0"):
        Forcer(SPEC, params, 0)


def test_sizes_are_few_and_close():
    sizes = sorted({rung(number, 256) for number in range(1, 40_000)})
    assert sizes == [256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152]
    assert all(rung(number, 256) >= number for number in range(1, 40_000, 7))


def test_own_capacity_shrinks_once_a_long_answer_is_done(params, monkeypatch):
    monkeypatch.setattr(queue, "OWN", 4)
    spec = dataclasses.replace(SPEC, max_answer=30, stop_ids=(), live_prefixes=(160,))
    forcer, sizes = Forcer(spec, params, 1), []
    resize = branches.resize_own
    monkeypatch.setattr(branches, "resize_own", lambda own, state: (sizes.append(own), resize(own, state))[1])
    compare(forcer, params, 0)
    assert sizes[:4] == [16, 31, 4, 16]
