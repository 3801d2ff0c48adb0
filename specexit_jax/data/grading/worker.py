"""A grading process: reads a question a line from standard input and writes its grade as a line to what was standard output.

It ends when the process that asks does: its input ends then, and on Linux the kernel kills it even in the midst of a pair.
SIGTERM and SIGINT, which schedulers and terminals send to a whole group, are left to the asking process.
"""

import contextlib
import ctypes
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable

READY = {"ready": True}  # the first line
_PR_SET_PDEATHSIG = 1


def main(judge: str, parent: int) -> None:
    """judge: MODULE:FUNCTION, called with the parts of each question, after the module's `load()` if it has one; parent: the id
    of the asking process."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # a handler and not SIG_IGN, which judged programs would inherit
    _end_with(parent)
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    call = named(judge)
    getattr(sys.modules[call.__module__], "load", lambda: None)()
    _say(answers, READY)
    for line in sys.stdin.buffer:
        try:
            said = {"grade": bool(call(*json.loads(line)))}
        except Exception as error:
            said = {"error": str(error), "kind": type(error).__name__}
        _say(answers, said)


def named(judge: str) -> Callable[..., bool]:
    """The function MODULE:FUNCTION."""
    module, _, name = judge.partition(":")
    return getattr(importlib.import_module(module), name)


def _say(answers: int, what: dict) -> None:
    text = json.dumps(what).encode() + b"\n"
    while text:
        text = text[os.write(answers, text) :]


def _end_with(parent: int) -> None:
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")  # where memory ends, this process goes before the one that decodes
    if os.getppid() != parent:
        sys.exit()
