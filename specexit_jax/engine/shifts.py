"""Requests in slots whose number follows the memory: shift by shift, each at a level (levels.py).

A shift is slots of one number. Within it a row ends, or outgrows its level and is parked, and another takes its slot: one that
is parked, the longest first, or a new one. At the end of a shift all rows are parked. Where a row goes on does not depend on
when it was parked, because rows do not depend on each other and sampling is keyed by position.
"""

import dataclasses
import time
from collections.abc import Iterable, Iterator
from typing import Any

from specexit_jax.decoding.rows import SlotRequest
from specexit_jax.decoding.state import DecodeResult
from specexit_jax.engine.budget import Budget
from specexit_jax.engine.levels import level_for, next_level
from specexit_jax.engine.parking import ParkedRow
from specexit_jax.engine.slots import BETWEEN, READ, Slots

Found = tuple[Any, DecodeResult, float]


@dataclasses.dataclass(eq=False)
class _Job:
    """A request under way. level: that its next step needs; began: seconds, without compilation; parked: None of a new one."""

    name: Any
    request: SlotRequest
    level: int
    began: float = 0.0
    parked: ParkedRow | None = None


class Shifts:
    """`slots` of the first level of a budget, and the requests that they decode."""

    def __init__(self, slots: Slots, budget: Budget, requests: Iterable[tuple[Any, SlotRequest]]):
        self.slots, self.levels, self.present = slots, budget.levels, 0
        self._queue, self._more = iter(requests), True
        self._waiting: list[_Job] = []  # parked, or new
        self._rows: dict[int, _Job] = {}  # by slot
        self._entering: tuple[int, Iterator[None]] | None = None  # a slot, and what is left to read of its prompt
        self._budget = budget

    def served(self) -> Iterator[Found]:
        """(name, result, seconds) of every request when it is finished, as `scheduler.serve`; seconds count time parked too."""
        while True:
            if self._more and all(job.parked for job in self._waiting):
                self._pull()
            if self._entering is None:
                level = self._level()
                if level is None:
                    return
                if level != self.present:
                    self._change(level)
            yield from self._fill()
            if self.slots.active:
                yield from self._decode()

    def _fill(self) -> Iterator[Found]:
        """Gives free slots to jobs, until one's prompt takes longer than a chunk."""
        while self._entering or len(self._rows) < self.slots.size:
            if self._entering is None and not self._enter():
                return
            if self._entering is None:
                continue  # a parked row is in its slot
            row, chunks = self._entering
            if next(chunks, READ) is not READ:
                return
            self._entering = None
            if self.slots.done[row]:  # finished by its first token
                yield self._finished(row)

    def _enter(self) -> bool:
        """Gives a free slot to the next job; False where none fits."""
        job = self._next()
        if job is None:
            return False
        self._waiting.remove(job)
        row = next(row for row in range(self.slots.size) if row not in self._rows)
        self._rows[row] = job
        if job.parked:
            parked, job.parked = job.parked, None
            self.slots.unpark(row, parked)
        else:
            job.began = self._now()
            self._entering = row, self.slots.admitting(row, job.request)
        return True

    def _next(self) -> _Job | None:
        """Of the jobs that fit the level the longest, parked ones before new ones, the one that waits longest; None where there is
        none, or another level should run first."""
        while True:
            fitting = [job for job in self._waiting if job.level <= self.present and (job.parked or not self._tight)]
            if fitting:
                return max(fitting, key=lambda job: (job.level, job.parked is not None))
            if self._tight or not self._pull() or self._level() != self.present:
                return None

    def _decode(self) -> Iterator[Found]:
        slots = self.slots
        steps = {"steps": BETWEEN} if self._entering else {}
        for row in slots.run(**steps, enough=slots.size - slots.active + 1):
            yield self._finished(row)
        for row in slots.outgrown:
            self._park(row)

    def _park(self, row: int) -> None:
        job = self._rows.pop(row)
        job.level, job.parked = self._needs(row), self.slots.park(row)
        self._waiting.append(job)

    def _change(self, level: int) -> None:
        for row in list(self._rows):
            self._park(row)
        self.present = level
        self.slots.reopen(self.levels[level].rows, self.levels[level].longest)

    def _finished(self, row: int) -> Found:
        job = self._rows.pop(row)
        return job.name, self.slots.result(row), self._now() - job.began

    def _pull(self) -> bool:
        """Takes a new request; False where there is none."""
        found = next(self._queue, None)
        if found is None:
            self._more = False
            return False
        name, request = found
        self._waiting.append(_Job(name, request, level_for(self.levels, self.slots.takes(request))))
        return True

    def _level(self) -> int | None:
        counts, tight = [0] * len(self.levels), self._tight
        for job in self._waiting:
            counts[job.level] += bool(job.parked) or not tight
        for row in self._rows:
            counts[self._needs(row)] += 1
        return next_level(self.levels, counts, self.present, self._more and not tight, tight)

    def _needs(self, row: int) -> int:
        return level_for(self.levels, self.slots.needs(row))

    @property
    def _tight(self) -> bool:
        """Whether the rows that are begun would fill the host's room, were all of them parked."""
        parked = sum(job.parked.nbytes for job in self._waiting if job.parked)
        decoded = sum(self._budget.row_bytes[self.slots.needs(row)] for row in self._rows)
        return parked + decoded > self._budget.parked

    def _now(self) -> float:
        return time.perf_counter() - self.slots.compile_seconds
