"""The thread that owns the slots: it admits requests between segments of the loop, reads what rows wrote, and ends rows."""

import collections
import dataclasses
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from specexit_jax.decoding.rows import SlotRequest
from specexit_jax.decoding.state import TokenLogs
from specexit_jax.engine.lone_slots import LoneSlots
from specexit_jax.engine.outcomes import Outcome, outcome_of
from specexit_jax.engine.requests import PreparedRequests
from specexit_jax.engine.slots import BETWEEN, READ, Slots
from specexit_jax.engine.warming import warming

STEPS = 4  # iterations of a segment
LONGER, LONGEST = 2, 4  # times as many where slots are full and somebody is told of their rows, and where nobody is


@dataclasses.dataclass(eq=False)
class Job:
    """One answer that is to be decoded. prepared: its only request. request: the same as slots take it, with its own rules.

    watched: whether it is told of every segment, or of its end alone. ended: set by whoever wants no more tokens of it.
    """

    prepared: PreparedRequests
    request: SlotRequest
    watched: bool
    arrived: float = dataclasses.field(default_factory=time.perf_counter)
    admitted: float = 0.0
    ended: bool = False
    sent: int = 0


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a job has written since it was last told. Indices are into all generated ids; None: there is none yet.

    think_end: of `</think>`, which may be about to be written. exit: the same where policy or budget wrote it. signals: as the
    policy read them last; None where it reads none. logs: of `ids`, as numpy arrays; None where none are kept. outcome: of a job
    that is over. failed: the engine broke down.
    """

    ids: tuple[int, ...] = ()
    think_end: int | None = None
    exit: int | None = None
    signals: tuple[float, ...] | None = None
    logs: TokenLogs | None = None
    outcome: Outcome | None = None
    failed: bool = False


Told = Sequence[tuple[Job, Progress]]


class EngineLoop:
    """deliver: called in this thread with what jobs are told after a segment. steps: iterations of a segment. warmed: called in it
    once all programs are compiled, with the seconds."""

    def __init__(
        self, slots: Slots | LoneSlots, deliver: Callable[[Told], None], steps: int, warmed: Callable[[float], None]
    ):
        self.slots, self._deliver, self._steps, self._warmed = slots, deliver, steps, warmed
        self.warm_seconds: float | None = None  # None until all programs are compiled
        self.failed = False
        # The most tokens of a segment whose rows somebody watches. What a longer one leaves is read after the next.
        self._columns = max(LONGER * steps, BETWEEN) * (slots.loop.spec.draft_tokens + 1) + 2
        self._changed = threading.Condition()
        self._waiting: collections.deque[Job] = collections.deque()
        self._rows: dict[int, Job] = {}
        self._entering: tuple[int, Job, Iterator[None]] | None = None
        self._ends, self._closing = False, False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends the thread after the segment at work; waits for it."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    @property
    def waiting(self) -> int:
        """Jobs that have no slot yet."""
        return len(self._waiting)

    @property
    def busy(self) -> int:
        """Slots that jobs hold."""
        return len(self._rows) + (self._entering is not None)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Adds jobs to the queue. From any thread."""
        with self._changed:
            self._waiting.extend(jobs)
            self._changed.notify()

    def end(self, job: Job) -> None:
        """Ends a job within a segment with the tokens that it has; it is told of that. From any thread."""
        with self._changed:
            job.ended, self._ends = True, True
            self._changed.notify()

    def _work(self) -> None:
        try:
            start = time.perf_counter()
            for _ in warming(self.slots, self._columns):
                if self._closing:
                    return
            self.warm_seconds = time.perf_counter() - start
            self._warmed(self.warm_seconds)
            while self._wait():
                self._turn()
        except Exception:
            traceback.print_exc()
            self.failed = True
            jobs = [*self._rows.values(), *([self._entering[1]] if self._entering else []), *self._waiting]
            self._deliver([(job, Progress(failed=True)) for job in jobs])

    def _wait(self) -> bool:
        """Waits for work; False once the thread is to end."""
        with self._changed:
            while not (self._closing or self._waiting or self._rows or self._entering):
                self._changed.wait()
            return not self._closing

    def _turn(self) -> None:
        told = self._end_jobs() + self._admit()
        if self.slots.active:
            self.slots.run(self._segment_steps(), self.slots.size - self.slots.active + 1)
            told += self._written()
        if told:
            self._deliver(told)

    def _segment_steps(self) -> int:
        """How many iterations the next segment has. It ends early where a row is finished."""
        if self._entering:
            return BETWEEN
        watched, full = any(job.watched for job in self._rows.values()), len(self._rows) == self.slots.size
        if not full and (watched or not self.slots.alone):
            return self._steps
        # Nobody can join full slots, and one row iterates several times as fast: the host need not look so often.
        return self._steps * (LONGER if watched else LONGEST)

    def _end_jobs(self) -> list[tuple[Job, Progress]]:
        """Frees the slots of jobs that were ended, and takes those out of the queue."""
        with self._changed:
            if not self._ends:
                return []
            self._ends = False
            left = [job for job in self._waiting if job.ended]
            for job in left:
                self._waiting.remove(job)
        if self._entering is not None and self._entering[1].ended:
            left.append(self._entering[1])
            self._entering = None  # its slot is done until a prompt is read to its end
        found = [(job, Progress()) for job in left]
        for row in [row for row, job in self._rows.items() if job.ended]:
            self.slots.stop(row)
            found.append(self._finished(row))
        return found

    def _admit(self) -> list[tuple[Job, Progress]]:
        """Gives free slots to jobs that wait. After a chunk of a long prompt the other rows go on first."""
        found = []
        while self._entering or self._waiting:
            if self._entering is None:
                row = next((row for row in range(self.slots.size) if row not in self._rows), None)
                if row is None:
                    break
                with self._changed:
                    job = self._waiting.popleft()
                job.admitted = time.perf_counter()
                self._entering = row, job, self.slots.admitting(row, job.request)
            row, job, chunks = self._entering
            if next(chunks, READ) is not READ:
                break
            self._entering, self._rows[row] = None, job
            if self.slots.done[row]:  # finished by its first token
                found.append(self._finished(row))
        return found

    def _written(self) -> list[tuple[Job, Progress]]:
        """What the rows have written in the last segment, as far as somebody wants to know."""
        going = [row for row, job in self._rows.items() if job.watched and not self.slots.done[row]]
        found = [self._finished(row) for row in list(self._rows) if self.slots.done[row]]
        if not going:
            return found
        since = np.zeros((self.slots.size,), np.int32)
        for row in going:
            since[row] = len(self._rows[row].request.prompt) + self._rows[row].sent
        seen, lengths = self.slots.written(since, self._columns), self.slots.lengths
        for row in going:
            job, start = self._rows[row], len(self._rows[row].request.prompt)
            ids = tuple(seen.tokens[row, : lengths[row] - since[row]].tolist())
            if not ids:
                continue
            job.sent += len(ids)
            signals = tuple(seen.seen_signals[row].tolist()) if job.prepared.method.policy.signals else None
            ends = [
                max(int(place[row]) - start, 0) if place[row] >= 0 else None
                for place in (seen.think_end, seen.exit_position)
            ]
            logs = seen.logs and jax.tree.map(lambda part, row=row, ids=ids: part[row, : len(ids)], seen.logs)
            found.append((job, Progress(ids, *ends, signals, logs)))
        return found

    def _finished(self, row: int) -> tuple[Job, Progress]:
        """A job that is over, with its outcome. Its slot is free."""
        job, result = self._rows.pop(row), self.slots.result(row)
        (request,) = job.prepared.requests
        outcome = outcome_of(job.prepared, request, result, 0, time.perf_counter() - job.admitted)
        signals = tuple(np.asarray(result.seen_signals[0]).tolist()) if job.prepared.method.policy.signals else None
        before, job.sent = job.sent, len(outcome.ids)
        logs = outcome.logs and jax.tree.map(lambda part: part[before:], outcome.logs)
        return job, Progress(outcome.ids[before:], outcome.think_end, outcome.exit, signals, logs, outcome)
