"""Signals that end a run after its state is saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(SystemExit):
    """A signal stopped the run after its state was saved; the exit code is 128 + signal, as the shell expects."""


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Yields a list to which SIGTERM and SIGINT are appended; they no longer end the process in the middle of a
    step."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous = {s: signal.signal(s, lambda number, _: received.append(number)) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
