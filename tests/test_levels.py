"""Which level runs when, and how many rows fit: arithmetic."""

import types

import numpy as np
import pytest

from specexit_jax.engine.budget import Budget
from specexit_jax.engine.levels import Level, level_for, levels_of, next_level
from specexit_jax.engine.placement import Auto, Placement, rows_of, told_rows
from specexit_jax.engine.shifts import Shifts

LEVELS = (Level(32, 4096), Level(16, 8192), Level(4, 32768))


def test_levels_are_the_rows_that_fit_at_each_length():
    fits = lambda rows, live: rows * live <= 100_000  # noqa: E731
    found = levels_of((256, 1024, 4096, 8192, 32768), 64, 1, fits)
    assert found == (Level(64, 1024), Level(24, 4096), Level(12, 8192), Level(3, 32768))
    found = levels_of((256, 1024, 4096), 40, 4, lambda rows, live: rows * live <= 20_000)
    assert found == (Level(40, 256), Level(16, 1024), Level(4, 4096)), (
        "what is asked for, then parts x 1, 2, 3, 4, 6 ..."
    )
    assert levels_of((256, 4096), 8, 8, lambda rows, live: rows * live <= 20_000) == ()
    assert levels_of((256, 1024), 3, 1, lambda rows, live: True) == (Level(3, 1024),)
    assert [level_for(LEVELS, live) for live in (256, 4096, 8192, 16384)] == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("counts", "present", "more", "tight", "level"),
    [
        pytest.param((1, 0, 0), 0, True, False, 0, id="new requests at the lowest"),
        pytest.param((32, 15, 3), 0, True, False, 0, id="longer rows wait while they do not fill a level"),
        pytest.param((32, 16, 3), 0, True, False, 1, id="a level whose rows are full"),
        pytest.param((32, 16, 4), 0, True, False, 2, id="the longest first"),
        pytest.param((32, 8, 3), 1, True, False, 1, id="as long as half of them are"),
        pytest.param((32, 8, 4), 1, True, False, 2, id="or a longer one is full"),
        pytest.param((40, 16, 2), 2, True, False, 2, id="a full level waits for a longer one"),
        pytest.param((40, 16, 1), 2, True, False, 1, id="until that is half empty"),
        pytest.param((0, 7, 3), 1, True, False, 1, id="the lowest that is needed"),
        pytest.param((3, 7, 3), 1, False, False, 1, id="at the end the highest that holds all that are not longer"),
        pytest.param((3, 14, 3), 1, False, False, 1, id="of the present level, more than half"),
        pytest.param((10, 7, 3), 2, False, False, 2, id="of the longest, half"),
        pytest.param((10, 7, 1), 2, False, False, 0, id="seventeen do not fit the second"),
        pytest.param((1, 0, 3), 0, False, False, 2, id="all fit the last"),
        pytest.param((32, 2, 1), 0, True, True, 2, id="the longest where the host is full"),
        pytest.param((0, 0, 0), 1, False, False, None, id="nothing is left"),
    ],
)
def test_the_level_that_runs_next(counts, present, more, tight, level):
    assert next_level(LEVELS, counts, present, more, tight) == level


def test_rows_as_configs_write_them():
    assert rows_of(8) == rows_of("8") == 8
    assert rows_of("auto", 5) == Auto(64, 5) and rows_of("auto:128") == Auto(128)
    assert [told_rows(rows_of(text)) for text in (3, "auto", "auto:7")] == [3, "auto", "auto:7"]
    for wrong in ("many", 0, "auto:", "auto:x", "-1", 2.5, ""):
        with pytest.raises(ValueError, match="a number of rows from 1 on, auto, or auto:N"):
            rows_of(wrong)
    with pytest.raises(ValueError, match="most must be at least 1"):
        rows_of("auto:0")
    with pytest.raises(ValueError, match="cache_bytes must be at least 1"):
        rows_of("auto", 0)
    assert Placement(Auto()).in_slots and Placement(2).in_slots and not Placement(1).in_slots


class Simulated:
    """Slots without a model: a request is (prompt, length in all), an iteration adds three tokens to each row. Counts iterations
    and parked rows."""

    prefixes = (1024, 4096, 8192, 16384, 32768)
    compile_seconds = 0.0

    def __init__(self, size: int, longest: int):
        self.iterations, self.parks = 0, 0
        self.reopen(size, longest)

    def reopen(self, size: int, longest: int) -> None:
        self.size, self.longest = size, longest
        self.lengths, self.ends, self.done = np.zeros(size, int), np.zeros(size, int), np.ones(size, bool)

    active = property(lambda self: int((~self.done).sum()))
    outgrown = property(lambda self: [row for row in np.flatnonzero(~self.done) if self.needs(row) > self.longest])

    def prefix(self, length: int) -> int:
        return next((size for size in self.prefixes if size >= length + 9), self.prefixes[-1])

    def takes(self, request) -> int:
        return self.prefix(request[0])

    def needs(self, row: int) -> int:
        return self.prefix(int(self.lengths[row]))

    def admitting(self, row: int, request):
        assert self.done[row] and self.takes(request) <= self.longest
        (self.lengths[row], self.ends[row]), self.done[row] = request, False
        yield from ()

    def run(self, enough: int, steps: int = 2**30) -> list[int]:
        before = self.done.copy()
        while self.done.sum() < enough and not self.outgrown and steps:
            active = ~self.done
            left = np.minimum(self.ends, self.longest - 8)[active] - self.lengths[active]
            count = min(max(-(-int(left.min()) // 3), 1), steps)
            self.lengths[active] += 3 * count
            self.iterations, steps = self.iterations + count, steps - count
            self.done |= self.lengths >= self.ends
        return np.flatnonzero(self.done & ~before).tolist()

    def result(self, row: int) -> int:
        return int(self.ends[row])

    def park(self, row: int):
        self.parks, self.done[row] = self.parks + 1, True
        length, end = int(self.lengths[row]), int(self.ends[row])
        return types.SimpleNamespace(length=length, end=end, nbytes=self.prefix(length))

    def unpark(self, row: int, parked) -> None:
        assert self.done[row] and self.prefix(parked.length) <= self.longest
        self.lengths[row], self.ends[row], self.done[row] = parked.length, parked.end, False


def simulated(requests, budget: Budget) -> tuple[Simulated, list[int]]:
    slots = Simulated(budget.levels[0].rows, budget.levels[0].longest)
    shifts, waiting, found = Shifts(slots, budget, enumerate(requests)), [], {}
    for name, result, _ in shifts.served():
        found[name] = result
        waiting.append(sum(job.parked.nbytes for job in shifts._waiting if job.parked))
    assert found == {name: max(end, 1) for name, (_, end) in enumerate(requests)}
    return slots, waiting


def test_rows_of_about_one_length_are_decoded_together():
    """300 answers of 10,000 tokens on average take half the iterations that they take in the 8 rows that fit when all are long,
    and rows that wait are bounded by the host's memory."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.exponential(10_000, 300), 300, 31_000).astype(int)
    requests = [(200, 200 + int(length)) for length in lengths]
    requests[7] = (9_000, 12_000)
    requests[200:210] = [(20_000, 20_500)] * 10
    levels = levels_of(Simulated.prefixes, 64, 1, lambda rows, live: rows * live <= 8 * 32768)
    assert [level.rows for level in levels] == [64, 32, 16, 8]
    sizes = {live: live for live in Simulated.prefixes}
    fixed, _ = simulated(requests, Budget((Level(8, 32768),), sizes, 2**40))
    free, waiting = simulated(requests, Budget(levels, sizes, 2**40))
    tight, less = simulated(requests, Budget(levels, sizes, 10 * 32768))
    print(
        f"{fixed.iterations / free.iterations:.2f} times fewer, {max(waiting) / 2**18:.1f} times the device's rows wait"
    )
    assert fixed.parks == 0 and free.parks < 4 * len(requests)
    assert free.iterations < 0.6 * fixed.iterations
    assert 1.5 * 2**18 < max(waiting) < 3 * 2**18  # of what the device holds
    assert max(less) < 1.5 * 2**18 and tight.iterations < fixed.iterations
