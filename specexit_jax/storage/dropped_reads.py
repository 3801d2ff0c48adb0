"""Silences the unfinished reads that a failed checkpoint read leaves behind: on the console they would hide the
error."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def dropped_reads_silenced() -> Iterator[None]:
    """Orbax leaves the other reads unfinished when one fails; Python would report each as an ignored exception."""
    report = sys.unraisablehook
    sys.unraisablehook = _without(lambda event: inspect.iscoroutine(event.object) or _late(event), report)
    try:
        yield
    finally:
        sys.unraisablehook = report


@functools.cache
def silence_late_reads() -> None:
    """Call after a failed read: the other reads may finish, or be collected as garbage, at any later time."""
    sys.unraisablehook = _without(_late, sys.unraisablehook)


def _late(event: Any) -> bool:
    """Whether a read of Orbax ended after its event loop, or was collected before its end."""
    if inspect.iscoroutine(event.object) and "orbax" in Path(event.object.cr_code.co_filename).parts:
        return True
    return isinstance(event.exc_value, RuntimeError) and "Event loop is closed" in str(event.exc_value)


def _without(meant: Callable[[Any], bool], report: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda event: None if meant(event) else report(event)
