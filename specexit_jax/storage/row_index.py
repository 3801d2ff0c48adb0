"""The index of a file of rows: the id of each row, where its bytes are, and how long its long values are.

It stands beside the file (`traces.jsonl` has `.traces.index`), one JSON line a row, and grows with it. The file is the truth: an
index that is missing, behind or of another file is made from it, and what cannot be stored is kept in memory. So an id costs no
parsing, and a row can be read without the values that few stages need.
"""

import contextlib
import dataclasses
import json
import os
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from specexit_jax.storage.workdir_lock import alone_at

LONG = ("prompt_ids", "ids", "text", "forced_ids")  # values that a brief row leaves out
TOLD = ("problem", "sample", "seed", "task", "think_end")  # values that the index holds
COUNTED = (*LONG, "boundaries")  # values whose length the index holds


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A row: bytes [start, end) of its file, with its line end and blank lines before it. [cut, on): its long values, which a
    brief row leaves out; equal where they do not stand together. about: what the index tells of it."""

    id: str
    start: int
    cut: int
    on: int
    end: int
    about: dict[str, Any]

    def line(self) -> bytes:
        about = {key: value.tolist() if isinstance(value, array) else value for key, value in self.about.items()}
        return json.dumps([self.id, self.start, self.cut, self.on, self.end, about]).encode() + b"\n"


def index_path(path: Path) -> Path:
    return path.with_name(f".{path.stem}.index")


def entries_of(path: Path) -> list[Entry]:
    """The whole rows of a file, in order. Brings its index up to date; reads no more of the file than the index lacks, and the
    last row that it has. Raises ValueError with the line that is no row."""
    beside = index_path(path)
    try:
        with beside.open("ab+") as file, alone_at(file):
            return _brought_up(path, file)
    except OSError:  # no right to write there, or no locks: the index is not stored
        found = []
        if beside.is_file():
            with beside.open("rb") as file:
                found = _stored(file)[0]
        found = found if _fits(found, path) else []
        return [*found, *_scanned(path, found[-1].end if found else 0)]


def index_more(path: Path, start: int) -> int:
    """Adds the rows from byte `start` on, as `entries_of` would; the end of the last. For the process that writes them."""
    with contextlib.suppress(OSError), index_path(path).open("ab") as file, alone_at(file):
        for entry in _scanned(path, start):
            file.write(entry.line())
            start = entry.end
    return start


def _brought_up(path: Path, file: IO[bytes]) -> list[Entry]:
    file.seek(0)
    found, kept = _stored(file)
    if not _fits(found, path):
        found, kept = [], 0
    if kept < file.seek(0, os.SEEK_END):
        file.truncate(kept)
    for entry in _scanned(path, found[-1].end if found else 0):
        found.append(entry)
        file.write(entry.line())
    return found


def _stored(lines: IO[bytes]) -> tuple[list[Entry], int]:
    """The entries of an index up to the first gap, and their bytes. An entry that stands there twice is skipped: two processes
    may have added it."""
    found, size = [], 0
    for line in lines:
        try:
            *place, about = json.loads(line)
            entry = Entry(*place, {sys.intern(key): _kept(value) for key, value in about.items()})
        except (ValueError, TypeError, AttributeError):
            break
        end = found[-1].end if found else 0
        if entry.start > end or not line.endswith(b"\n"):
            break
        size += len(line)
        if entry.start == end:
            found.append(entry)
    return found, size


def _fits(found: list[Entry], path: Path) -> bool:
    """Whether the last entry's row is in the file, where it says: any other change of length before it would have moved it."""
    if not found:
        return True
    last = found[-1]
    with path.open("rb") as file:
        file.seek(last.start)
        line = file.read(last.end - last.start)
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return line.endswith(b"\n") and json.loads(line)["id"] == last.id
    return False


def _kept(value: Any) -> Any:
    """A value as it is held for each of many rows."""
    if isinstance(value, list):
        return array("i", value)
    return sys.intern(value) if isinstance(value, str) else value


def _scanned(path: Path, start: int) -> Iterator[Entry]:
    """The rows from byte `start` on, to the last line end."""
    at, before = start, b""
    with path.open("rb") as lines:
        lines.seek(start)
        for line in lines:
            at += len(line)
            if not line.endswith(b"\n"):
                return
            if not line.strip():
                before += line
                continue
            yield _entry(path, start, before, line)
            start, before = at, b""


def _entry(path: Path, start: int, before: bytes, line: bytes) -> Entry:
    row = row_of(line, path, start + len(before))
    if not isinstance(row.get("id"), str):
        raise ValueError(f"{path}: line {line_at(path, start + len(before))} has no id; mend or remove it")
    cut, on = _long_part(row, line)
    first = start + len(before)
    about = {key: row[key] for key in TOLD if key in row}
    about |= {key: _kept(_length(row[key])) for key in COUNTED if isinstance(row.get(key), list | str)}
    return Entry(row["id"], start, first + cut, first + on, first + len(line), about)


def row_of(line: bytes, path: Path, start: int) -> dict:
    """The object of a line, which starts at this byte. Raises ValueError with its number if it is none."""
    try:
        row = json.loads(line)
    except ValueError as error:
        number = line_at(path, start)
        raise ValueError(f"{path}: line {number} is not valid JSON ({error}); mend or remove it") from error
    if not isinstance(row, dict):
        raise ValueError(f"{path}: line {line_at(path, start)} is not a JSON object; mend or remove it")
    return row


def line_at(path: Path, start: int) -> int:
    """The number of the line that starts at this byte."""
    with path.open("rb") as file:
        return 1 + file.read(start).count(b"\n")


def _length(value: list | str) -> int | list[int]:
    """The length of a value; of a list of lists, that of each."""
    if isinstance(value, list) and all(isinstance(part, list) for part in value) and value:
        return [len(part) for part in value]
    return len(value)


def _long_part(row: dict, line: bytes) -> tuple[int, int]:
    """Bytes of a line without which it is the row without its LONG values; (0, 0) where there are none such."""
    keys = list(row)
    own = [number for number, key in enumerate(keys) if key in LONG]
    if not own or own[0] == 0:
        return 0, 0
    cut = line.find(b', "%s": ' % keys[own[0]].encode())
    following = own[-1] + 1
    on = line.rfind(b"}") if following == len(keys) else line.find(b', "%s": ' % keys[following].encode(), cut)
    if not 0 < cut < on:
        return 0, 0
    with contextlib.suppress(ValueError):
        if json.loads(line[:cut] + line[on:]) == {key: value for key, value in row.items() if key not in LONG}:
            return cut, on
    return 0, 0
