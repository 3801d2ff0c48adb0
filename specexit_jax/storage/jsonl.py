"""JSON-lines files that survive a killed process: whole lines are appended; a torn last line is dropped on the next
start.

A process that changes a file holds it exclusively (`workdir_lock.alone_at`): no row is lost between reading and
truncating.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from specexit_jax.storage.workdir_lock import alone_at

_BLOCK = 2**16  # bytes read at a time from a file's end


def read_jsonl(path: str | Path, torn: bool = False) -> Iterator[dict]:
    """The objects of a file, one a line. Raises FileNotFoundError, or ValueError naming the corrupt line by its number.

    torn: ignore what follows the last line end; another process may be writing it, or was killed while writing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: run the stage that writes it first")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip() or (torn and not line.endswith(b"\n")):
                continue
            try:
                value = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}: line {number} is not valid JSON ({error}); mend or remove it") from error
            if not isinstance(value, dict):
                raise ValueError(f"{path}: line {number} is not a JSON object; mend or remove it")
            yield value


def drop_torn_line(path: str | Path) -> None:
    """Cut off what a killed process left after the last line end; does nothing if the file does not exist. Reads from the end."""
    path = Path(path)
    if not path.is_file():
        return
    with path.open("rb+") as file, alone_at(file):
        end = at = file.seek(0, os.SEEK_END)
        while at > 0:
            start = max(at - _BLOCK, 0)
            file.seek(start)
            if (place := file.read(at - start).rfind(b"\n")) >= 0:
                at = start + place + 1
                break
            at = start
        if at < end:
            file.truncate(at)


def append_jsonl(path: str | Path, rows: Iterable[dict]) -> None:
    """Append rows in one write and wait for the disk, so that a kill leaves at most one torn line."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with path.open("ab") as file, alone_at(file):
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
