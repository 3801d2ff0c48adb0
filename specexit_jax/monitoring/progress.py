"""A progress line with an estimate of the remaining time that excludes compilation."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from specexit_jax.parallel.distributed import is_first


def format_seconds(seconds: float) -> str:
    """'42 s', '3 min 20 s' or '2 h 05 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def tell(sentence: str) -> None:
    """Prints a sentence on standard error. Of several processes only the first prints."""
    if is_first():
        print(sentence, file=sys.stderr, flush=True)


class Progress:
    """Call `update(done, note)` after each item; prints at most every `every` seconds, and at the end.

    The clock starts at the first update, not at construction. The first item includes compilation, so neither its time
    nor its work enters the rate. `done` may start above 0 (a resumed run). Of several processes only the first prints.
    """

    def __init__(
        self, total: int, label: str = '', every: float = 10.0, stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):  # fmt: skip
        self.total, self.label, self.every = total, label, every
        self.stream = sys.stderr if stream is None else stream
        self.clock = clock
        self.origin: tuple[float, int] | None = None
        self.printed_at = -float("inf")

    def rate(self, done: int) -> float | None:
        """Items per second since the first update; None before the second update."""
        if self.origin is None or done <= self.origin[1]:
            return None
        return (done - self.origin[1]) / max(self.clock() - self.origin[0], 1e-9)

    def update(self, done: int, note: str | Callable[[], str] = "") -> None:
        """note: text after the count, or a function that makes it, called only if the line is printed."""
        now = self.clock()
        if self.origin is None:
            self.origin = (now, done)
        if not is_first() or (done < self.total and now - self.printed_at < self.every):
            return
        self.printed_at = now
        rate = self.rate(done)
        left = f", {format_seconds((self.total - done) / rate)} left" if rate and done < self.total else ""
        said = note() if callable(note) else note
        print(f"{self.label}{done}/{self.total}{left}{'  ' + said if said else ''}", file=self.stream, flush=True)
