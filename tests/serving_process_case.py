"""The server as a process of its own, with the bundled model."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class Process:
    """A server that was started. address: where it listens; told: the lines that it printed."""

    def __init__(self, arguments: Sequence[str]):
        command = [sys.executable, "-m", "launch.serve", "--port=0", *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        self.told: list[str] = []
        piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, **piped)
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.told.append(line)
            if line.startswith("ready at "):
                self._ready.set()
        self._ready.set()

    def end(self) -> int:
        """Waits for its end; the exit status."""
        self._reader.join()
        self.process.stdout.close()
        return self.process.wait()

    @property
    def address(self) -> str:
        """Waits until the server is warm."""
        self._ready.wait()
        lines = [line for line in self.told if line.startswith("ready at ")]
        assert lines, "".join(self.told)
        return lines[0].split()[2]


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[Process]:
    server = Process(arguments)
    try:
        yield server
    finally:
        server.process.kill()
        server.end()


def metrics_of(text: str) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#"]
    return {name: float(value) for name, value in lines}


def question(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]} | fields
