"""The asking process's end of a grading process (`worker.py`)."""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_ROOT = str(Path(__file__).resolve().parents[3])
_START = (
    "import sys; sys.path[:0] = {paths!r}; from specexit_jax.data.grading.worker import main; main({judge!r}, {parent})"
)
_STARTING = 300.0  # seconds: a cold network file system, a hundred workers that start at once


class Lost(Exception):
    """The process ended, or was ended after its time, before it gave a grade."""


class Worker:
    """A process that grades one question at a time. Of a program that has threads nothing is forked: a fresh interpreter
    starts, which imports neither jax nor the program's main module."""

    def __init__(self, judge: str, paths: Sequence[str] = ()):
        """judge: see `worker.main`; paths: where its module is found, beside this package."""
        start = _START.format(paths=[_ROOT, *paths], judge=judge, parent=os.getpid())
        self._process = subprocess.Popen(
            [sys.executable, "-c", start], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._read = b""
        try:
            self._line(_STARTING)
        except Lost as lost:
            self.end()
            self.close()
            raise OSError(
                f"A process that grades answers could not start ({lost}): see its words above, or grade in the process that "
                "decodes, with --config.grading.workers=0."
            ) from None

    def ask(self, question: Sequence[Any], seconds: float) -> bool:
        """Its grade. Raises Lost after so many seconds, or when the process ends; as the checker, where it raises."""
        try:
            with contextlib.suppress(BrokenPipeError):  # its end is read below
                self._write(json.dumps(question).encode() + b"\n")
            said = json.loads(self._line(seconds))
        except (OSError, ValueError) as error:  # of a pipe that was closed meanwhile
            raise Lost(str(error)) from None
        if "error" in said:
            kinds = {"ValueError": ValueError, "OSError": OSError}
            raise kinds.get(said["kind"], RuntimeError)(f"{said['error']} ({said['kind']} in a grading process)")
        return said["grade"]

    def end(self) -> None:
        """Kills the process at once; with it, the sandbox that it may have asked."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Lets go of a process that was ended."""
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()

    def _write(self, text: bytes) -> None:
        while text:
            text = text[self._process.stdin.write(text) :]

    def _line(self, seconds: float) -> bytes:
        """The next line. Raises Lost."""
        answered, until = select.poll(), time.monotonic() + seconds
        answered.register(self._process.stdout, select.POLLIN)
        while b"\n" not in self._read:
            left = until - time.monotonic()
            if left <= 0 or not answered.poll(1e3 * left):
                raise Lost(f"took longer than {seconds:g} s")
            part = os.read(self._process.stdout.fileno(), 1 << 16)
            if not part:
                raise Lost(f"ended with code {self._process.wait()}")
            self._read += part
        line, _, self._read = self._read.partition(b"\n")
        return line
