"""A time limit on a computation, usable on any thread."""

import ctypes
import gc
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

Value = TypeVar("Value")

_AGAIN = 0.25  # seconds after which a computation that still runs is interrupted again


class _Late(BaseException):
    """Raised in the thread that took too long; a BaseException, so that `except Exception` does not catch it."""


def within(seconds: float, compute: Callable[[], Value], late: Value) -> Value:
    """The result of `compute()`, or `late` if it takes longer than `seconds` of wall time.

    The limit acts between two bytecodes: one call of C code (a regular expression, a product of huge integers) runs to
    its end. Code that swallows the interruption is interrupted again. Unlike an alarm signal it works on every thread,
    and it leaves the process's signal handlers alone.
    """
    thread, ended, lock = threading.get_ident(), threading.Event(), threading.Lock()

    def watch() -> None:
        wait = seconds
        while not ended.wait(wait):
            with lock:
                wait = 0.001 if _swallows(sys._current_frames().get(thread)) else _AGAIN
                if not ended.is_set() and wait == _AGAIN:
                    _interrupt(thread, _Late)

    def settle() -> None:
        while True:
            try:
                with lock:
                    ended.set()
                    _interrupt(thread, None)  # drops an interruption that is still pending
                return
            except _Late:
                continue

    try:
        try:  # from the start of the watching thread on, an interruption may arrive
            threading.Thread(target=watch, daemon=True).start()
            return compute()
        finally:
            settle()
    except _Late:  # of `compute`, or of the first step of `settle`
        settle()
        return late


def _interrupt(thread: int, exception: type[BaseException] | None) -> None:
    """Raise an exception in a thread at its next bytecode; None takes back what was not raised yet."""
    raised = ctypes.py_object() if exception is None else ctypes.py_object(exception)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)


def _swallows(frame: FrameType | None) -> bool:
    """Whether Python drops what is raised at this place: in a callback of the garbage collector, or in `__del__`."""
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        if frame.f_code in callbacks or frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False
