"""A limit on the time that a computation takes, on any thread."""

import ctypes
import threading
import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


class _Late(BaseException):
    """Raised within the thread that took too long; no `except Exception` on the way swallows it."""


def within(seconds: float, compute: Callable[[], Value], late: Value) -> Value:
    """What `compute()` returns; `late` where that takes longer than `seconds` of wall time.

    The limit acts between two bytecodes: one call of C code (a regular expression, a product of huge integers) runs to
    its end. Unlike an alarm signal it works on every thread, and it leaves the process's signal handlers alone.
    """
    thread, ended, lock, fired = threading.get_ident(), threading.Event(), threading.Lock(), []

    def watch() -> None:
        if ended.wait(seconds):
            return
        with lock:
            if not ended.is_set():
                fired.append(True)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_Late))

    threading.Thread(target=watch, daemon=True).start()
    arrived = False
    try:
        try:
            return compute()
        except _Late:
            arrived = True
            raise
        finally:
            with lock:
                ended.set()
            tries = 0
            while fired and not arrived and tries < 1000:  # it is on its way, and must arrive in here
                time.sleep(0.001)
                tries += 1
    except _Late:
        return late
