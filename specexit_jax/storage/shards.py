"""Work that several processes share: who does what, and the files that they leave in one folder.

Process i of n takes a share of the items and appends rows to STEM-0000i-of-0000n.jsonl; a single process to STEM.jsonl.
An item is done if any of these files holds it, so work can be continued by another number of processes. STEM.json
records the settings that the rows were made under. It is written with the first row; without rows it is ignored.
"""

import contextlib
import dataclasses
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from specexit_jax.storage.checkpoint import write_json
from specexit_jax.storage.identity import same
from specexit_jax.storage.jsonl import append_jsonl, drop_torn_line
from specexit_jax.storage.row_index import index_more
from specexit_jax.storage.rows import Rows
from specexit_jax.storage.workdir_lock import locked

T = TypeVar("T")
ROWS = {"rollout": "traces", "annotate": "labels"}  # the stem of a report's rows, where it differs from the report's
_ONCE = {"noise": "crc32", "schedule": "all"}  # settings that older reports do not record, and their value then
_NUMBERED = re.compile(r"-\d{5}-of-\d{5}")


@dataclasses.dataclass(frozen=True)
class Shard:
    """Process `index` of `count`."""

    index: int = 0
    count: int = 1

    def __post_init__(self):
        if not 0 <= self.index < self.count:
            raise ValueError(f"A shard is one of 0/{self.count} to {self.count - 1}/{self.count}, not {self.index}.")

    def own(self, items: Sequence[T]) -> Sequence[T]:
        return items[self.index :: self.count]

    def has(self, name: str) -> bool:
        """Whether a named item belongs to this process; does not depend on the other items."""
        return zlib.crc32(name.encode()) % self.count == self.index

    def path(self, folder: Path, stem: str, suffix: str = ".jsonl") -> Path:
        """The file that this process writes."""
        number = "" if self.count == 1 else f"-{self.index:05d}-of-{self.count:05d}"
        return folder / f"{stem}{number}{suffix}"


WHOLE = Shard()


def shard_files(folder: Path, stem: str, suffix: str = ".jsonl") -> list[Path]:
    """The files of all processes that have worked in this folder, in a fixed order."""
    files = [path for path in folder.glob(f"{stem}*{suffix}") if path.is_file()]
    return sorted(path for path in files if _NUMBERED.sub("", path.name) == stem + suffix)


def read_shards(folder: Path, stem: str) -> Rows:
    """The rows of all processes, each id once; they stay on disk. Raises FileNotFoundError where there is no file, ValueError for
    a line that is no row.

    A torn line that a killed process left is skipped.
    """
    files = shard_files(folder, stem)
    if not files:
        raise FileNotFoundError(f"{folder / stem}.jsonl does not exist: run the stage that writes it first")
    return Rows(files)


def held(folder: Path, stem: str) -> Rows:
    """`read_shards`, or no rows if there is no file yet."""
    return Rows(shard_files(folder, stem))


def has_rows(folder: Path, stem: str) -> bool:
    """Whether any process has written a whole row."""
    return any(_has_row(path) for path in shard_files(folder, stem))


def ids_of(folder: Path, stem: str) -> set[str]:
    """The ids of all whole rows."""
    return set(held(folder, stem).ids)


def require_settings(folder: Path, stem: str, settings: dict[str, Any]) -> None:
    """Raises ValueError with the difference if earlier work in the folder was done under other settings.

    settings: what the content of rows depends on, as STEM.json records it. A key that either side lacks is ignored,
    except those with a known older value (`_ONCE`). So is a report without any whole row.
    """
    for key, old, new, path in _differences(folder, stem, settings):
        mend = "give what it was made with, or use another workdir"
        raise ValueError(f"{path} was made with {key} {old!r}, this run has {new!r}: {mend}.")


class OwnRows:
    """What `own_rows` yields. `append` writes rows, and the settings before the first row; `report` adds
    measurements."""

    def __init__(self, path: Path, report: Path, settings: dict[str, Any]):
        self.path, self._report, self._settings = path, report, settings
        self._indexed = path.stat().st_size if path.is_file() else 0  # as far as earlier rows go

    def append(self, rows: Iterable[dict]) -> None:
        if not (self._report.exists() and _has_row(self.path)):
            write_report(self._report, self._settings, {})  # binds the process that continues after a kill
        append_jsonl(self.path, rows)
        self._indexed = index_more(self.path, self._indexed)

    def report(self, measured: dict[str, Any]) -> None:
        write_report(self._report, self._settings, measured)


@contextlib.contextmanager
def own_rows(folder: Path, stem: str, report: str, settings: dict[str, Any], shard: Shard = WHOLE) -> Iterator[OwnRows]:
    """Opens the shard's file of rows FOLDER/STEM, locked against other processes while the block runs; cuts a torn
    line.

    Raises ValueError if another process writes it, and as `require_settings`.
    """
    with locked(shard.path(folder, f".{stem}", ".lock"), again=True):
        require_settings(folder, report, settings)
        path = shard.path(folder, stem)
        drop_torn_line(path)
        yield OwnRows(path, shard.path(folder, report, ".json"), settings)


def write_report(path: Path, settings: dict[str, Any], measured: dict[str, Any]) -> None:
    """Writes STEM.json: the settings, and what was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"settings": settings, "measured": measured})


def settings_of(folder: Path, stem: str) -> dict[str, Any]:
    """The settings that STEM.json of any process records; {} if there is none. Raises ValueError on another file."""
    return next((_settings_in(path) for path in shard_files(folder, stem, ".json")), {})


def _settings_in(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text())["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a report of this stage ({error}): mend or remove it.") from error


def _differences(folder: Path, stem: str, settings: dict[str, Any]) -> Iterator[tuple[str, Any, Any, Path]]:
    for path in shard_files(folder, stem, ".json"):
        if not _has_row(path.with_name(path.name.replace(stem, ROWS.get(stem, stem), 1)).with_suffix(".jsonl")):
            continue
        earlier = _ONCE | _settings_in(path)
        for key in sorted(earlier.keys() & settings.keys()):
            if not same(settings[key], earlier[key]) and earlier[key] != json.loads(json.dumps(settings[key])):
                yield key, earlier[key], json.loads(json.dumps(settings[key])), path


def _has_row(path: Path) -> bool:
    """Whether a file holds a whole line."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.readline().endswith(b"\n")
