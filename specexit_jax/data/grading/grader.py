"""Answers graded while decoding goes on: what is asked now, and has its grade later."""

import collections
import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar

from specexit_jax.data.grading.judge import Question, judge
from specexit_jax.data.grading.process import Lost, Worker
from specexit_jax.data.grading.worker import named
from specexit_jax.notes import note

T = TypeVar("T")
Other = TypeVar("Other")
Grade = bool | Future[bool]
# The checkers that take milliseconds to seconds a pair (the others take microseconds), and the seconds after which a pair is
# given up: far above what they allow themselves, as two runs of programs with a minute's grace each.
DEAR = {"math": 60.0, "choice": 60.0, "code": 240.0}
JUDGE = f"{judge.__module__}:judge"
_KEPT = 1 << 17  # grades that are remembered


@dataclasses.dataclass(frozen=True, eq=False)
class Later(Generic[T]):
    """A value that is made of grades: `make` takes them in their order, as soon as all are there."""

    grades: Sequence[Grade]
    make: Callable[[list[bool]], T]

    def then(self, change: Callable[[T], Other]) -> "Later[Other]":
        """What `change` makes of the value."""
        return Later(self.grades, lambda grades: change(self.make(grades)))

    def pending(self) -> list[Future[bool]]:
        return [grade for grade in self.grades if isinstance(grade, Future) and not grade.done()]

    def value(self) -> T:
        """Waits for the grades. Raises as their checkers."""
        return self.make([grade.result() if isinstance(grade, Future) else grade for grade in self.grades])


def together(rows: Sequence[Later[T]]) -> Later[list[T]]:
    """The values of all, once all can be made."""
    return Later([grade for row in rows for grade in row.grades], lambda _: [row.value() for row in rows])


class Grader:
    """Asks the checkers (`data.checkers`), the dear ones in up to `workers` processes, which start when they are first needed.

    0 workers: every grade is there at once, by this process. Equal questions to dear checkers are judged once. A pair whose
    process crashes or takes longer than the checker's limit is judged once more by a fresh process, then counted as not
    accepted, which a note and the report tell. Call it from one thread, and `close` it (or use it in a `with`).

    judge: MODULE:FUNCTION that is called, here or there; dear: as `DEAR`; paths: where processes find its module.
    """

    def __init__(
        self,
        workers: int = 0,
        judge: str = JUDGE,
        dear: Mapping[str, float] = DEAR,
        paths: Sequence[str] = (),
    ):
        if workers < 0:
            raise ValueError(
                f"The number of grading processes is 0 or more, not {workers}: see config.grading.workers."
            )
        self.workers, self._dear = workers, dict(dear)
        self._here = functools.cache(lambda: named(judge))
        self._start: Callable[[], Worker] = lambda: Worker(judge, paths)
        self._threads = ThreadPoolExecutor(workers, "grading") if workers else None
        self._known: dict[bytes, Grade] = {}
        self._all: set[Worker] = set()
        self._idle: collections.deque[Worker] = collections.deque()
        self._closed = False
        self._lost: list[Question] = []
        self._asked = self._repeated = 0
        self._waited = 0.0

    def accepts(self, checker: str, task: str, answer: str | None, reference: str) -> Grade:
        """`checkers.accepts`, now or later."""
        return answer is not None and self._grade(Question(checker, task, answer, reference))

    def agrees(self, checker: str, task: str, answer: str | None, own: str | None, reference: str) -> Grade:
        """`checkers.agrees`, now or later."""
        if answer is None or own is None:
            return False
        program = checker == "code"
        return self._grade(Question(checker, task, answer, reference if program else own, own if program else None))

    def arrived(self, rows: Iterable[Later[T]], most: int) -> Iterator[T]:
        """The values of the rows as their grades arrive, while the next rows are made. At most `most` rows wait; then the
        making of rows does. Rows that need not wait come in their order."""
        waiting: list[Later[T]] = []
        for row in rows:
            waiting.append(row)
            yield from _taken(waiting)
            while len(waiting) >= most:
                self.wait(waiting)
                yield from _taken(waiting)
        while waiting:
            self.wait(waiting)
            yield from _taken(waiting)

    def wait(self, waiting: Sequence[Later]) -> None:
        """Returns once one of the grades that these await is there."""
        pending = [grade for row in waiting for grade in row.pending()]
        if pending:
            began = time.monotonic()
            wait(pending, return_when=FIRST_COMPLETED)
            self._waited += time.monotonic() - began

    def start(self) -> None:
        """Starts all processes now, for who times the work."""
        for _ in range(self.workers):
            self._idle.append(self._worker(fresh=True))

    def tally(self) -> dict[str, float]:
        """Of the dear checkers so far: pairs asked, those that were known already, those that no process could grade, and the
        seconds in which nothing was done but to wait for grades."""
        counts = {"asked": self._asked, "known": self._repeated, "lost": len(self._lost)}
        return counts | {"waited_seconds": self._waited}

    def measured(self, before: Mapping[str, float]) -> dict[str, Any]:
        """What reports record of the work since a tally; {} where no dear checker was asked."""
        since = {name: count - before[name] for name, count in self.tally().items()}
        return {"grading": {"workers": self.workers} | since} if since["asked"] else {}

    def close(self) -> None:
        """Ends the processes; questions without a grade are given up."""
        self._closed = True
        if self._threads is None:
            return
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in list(self._all):
            worker.end()
        self._threads.shutdown()
        for worker in list(self._all):
            self._drop(worker)

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _grade(self, question: Question) -> Grade:
        if question.checker not in self._dear:
            return self._here()(*question)
        key = question.digest()
        found = self._known.get(key)
        self._asked, self._repeated = self._asked + 1, self._repeated + (found is not None)
        if found is None:
            found = self._known[key] = self._judged(key, question)
            if len(self._known) > _KEPT:
                del self._known[next(iter(self._known))]
        return found

    def _judged(self, key: bytes, question: Question) -> Grade:
        if self._threads is None:
            return self._here()(*question)
        future = self._threads.submit(self._by_worker, question)

        def keep_grade_alone(done: Future[bool]) -> None:
            if key in self._known and not done.cancelled() and done.exception() is None:
                self._known[key] = done.result()

        future.add_done_callback(keep_grade_alone)
        return future

    def _by_worker(self, question: Question) -> bool:
        """On a thread of the pool."""
        why = None
        for fresh in (False, True):
            worker = self._worker(fresh)
            try:
                return worker.ask(question, self._dear[question.checker])
            except Lost as lost:
                why = lost
                self._drop(worker)
            finally:
                if worker in self._all:
                    self._idle.append(worker)
        self._lost.append(question)
        note(
            f"Answers that no process could grade count as not accepted; the first is one of the checker {question.checker} "
            f"(its process {why}): {question.answer[-200:]!r}."
        )
        return False

    def _worker(self, fresh: bool) -> Worker:
        if self._closed:
            raise CancelledError
        with contextlib.suppress(IndexError):
            if not fresh:
                return self._idle.pop()
        worker = self._start()
        self._all.add(worker)
        if self._closed:  # while it started
            self._drop(worker)
            raise CancelledError
        return worker

    def _drop(self, worker: Worker) -> None:
        worker.end()
        worker.close()
        self._all.discard(worker)


def _taken(waiting: list[Later[T]]) -> Iterator[T]:
    """Takes out the rows whose grades are all there."""
    ready, later = [], []
    for row in waiting:
        (later if row.pending() else ready).append(row)
    waiting[:] = later
    yield from (row.value() for row in ready)
