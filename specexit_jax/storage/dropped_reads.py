"""A checkpoint that cannot be read leaves reads beside it unfinished: kept from the console, where they would hide the error."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def dropped_reads_silenced() -> Iterator[None]:
    """Orbax leaves the reads beside a failed one unfinished; Python would report each of them as an ignored exception."""
    report = sys.unraisablehook
    sys.unraisablehook = _without(lambda event: inspect.iscoroutine(event.object) or _late(event), report)
    try:
        yield
    finally:
        sys.unraisablehook = report


@functools.cache
def silence_late_reads() -> None:
    """Call where a read has failed: those beside it may come in at any time later, to an event loop that is gone."""
    sys.unraisablehook = _without(_late, sys.unraisablehook)


def _late(event: Any) -> bool:
    return isinstance(event.exc_value, RuntimeError) and "Event loop is closed" in str(event.exc_value)


def _without(meant: Callable[[Any], bool], report: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda event: None if meant(event) else report(event)
