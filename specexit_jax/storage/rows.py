"""Rows that stay on disk: each is read when it is asked for, whole or without its long values."""

import functools
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from specexit_jax.storage.open_files import OpenFiles
from specexit_jax.storage.row_index import LONG, Entry, entries_of, index_path, row_of


class Unread:
    """A list or text that a brief row leaves on disk: it has a length, and nothing else."""

    def __init__(self, length: int):
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: Any) -> Any:
        raise TypeError("this value was left on disk: read whole rows (storage.rows.whole_rows)")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unread) and len(self) == len(other)

    __hash__ = None


class Rows(Sequence[dict]):
    """Rows of several files, each id once (the first counts), in the order of the files.

    `ids`: of the rows, in order. A row is read and parsed whenever it is asked for: what is held is the index. Threads may share
    it. Rows that are appended later are left out. Raises ValueError, with the file and the line, for what is no row.
    """

    def __init__(self, paths: Iterable[str | Path] = ()):
        self._files = [Path(path) for path in paths]
        self._open, self._brief, self.joined = OpenFiles(self._files), False, False
        self._then: tuple[Callable[[dict], dict], ...] = ()
        found: dict[str, tuple[int, Entry]] = {}
        for number, path in enumerate(self._files):
            for entry in entries_of(path):
                found.setdefault(entry.id, (number, entry))
        self._places, self.ids = list(found.values()), tuple(found)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number):
        """A row, or for a slice `Rows`."""
        if isinstance(number, slice):
            return self.take(range(*number.indices(len(self))))
        row = self._read(*self._places[number])
        for change in self._then:
            row = change(row)
        return row

    def __iter__(self) -> Iterator[dict]:
        return (self[number] for number in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return NotImplemented if not isinstance(other, Sequence) else False
        return all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None

    @functools.cached_property
    def by_id(self) -> "ById":
        return ById(self)

    def take(self, numbers: Iterable[int]) -> Self:
        """These rows, in this order."""
        numbers = [int(number) for number in numbers]
        return self._with(_places=[self._places[n] for n in numbers], ids=tuple(self.ids[n] for n in numbers))

    def of(self, ids: Iterable[str]) -> Self:
        """The rows of these ids, in this order. Raises KeyError where one is absent."""
        return self.take(self.by_id.places[name] for name in ids)

    def brief(self) -> Self:
        """The rows with an `Unread` for each long value (`row_index.LONG`); their bytes are not read."""
        return self._with(_brief=True)

    def whole(self) -> Self:
        return self._with(_brief=False)

    def mapped(self, change: Callable[[dict], dict], joined: bool = False) -> Self:
        """The rows changed when they are read. joined: marks them as checked against their traces."""
        return self._with(_then=(*self._then, change), joined=joined or self.joined)

    def column(self, key: str, default: Any = None) -> list:
        """What the index tells of each row: a value of `row_index.TOLD`, or a length of `row_index.COUNTED`."""
        return [entry.about.get(key, default) for _, entry in self._places]

    def _with(self, **changed: Any) -> Self:
        other = object.__new__(type(self))
        other.__dict__ |= {name: value for name, value in self.__dict__.items() if name != "by_id"} | changed
        return other

    def _read(self, file: int, entry: Entry) -> dict:
        path, cut = self._files[file], self._brief and entry.cut < entry.on
        if cut:
            parts = (entry.start, entry.cut), (entry.on, entry.end)
        else:
            parts = ((entry.start, entry.end),)
        row = row_of(b"".join(self._open.read(file, *part) for part in parts), path, entry.start)
        if row.get("id") != entry.id:
            raise ValueError(
                f"{path} no longer holds {entry.id} where {index_path(path)} says: remove that file and start again"
            )
        if self._brief:
            row |= {key: _unread(entry.about[key]) for key in LONG if key in entry.about}
        return row


class ById(Mapping[str, dict]):
    """Rows by their ids."""

    def __init__(self, rows: Rows):
        self._rows, self.places = rows, {name: number for number, name in enumerate(rows.ids)}

    def __getitem__(self, name: str) -> dict:
        return self._rows[self.places[name]]

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def by_id(rows: Sequence[dict]) -> Mapping[str, dict]:
    """Rows by their ids; those on disk stay there."""
    return rows.by_id if isinstance(rows, Rows) else {row["id"]: row for row in rows}


def ids_in(rows: Sequence[dict]) -> tuple[str, ...]:
    return rows.ids if isinstance(rows, Rows) else tuple(row["id"] for row in rows)


def taken(rows: Sequence[dict], numbers: Iterable[int]) -> Sequence[dict]:
    """These rows, in this order; those on disk stay there."""
    return rows.take(numbers) if isinstance(rows, Rows) else [rows[number] for number in numbers]


def whole_rows(rows: Sequence[dict]) -> Sequence[dict]:
    """The rows with their long values."""
    return rows.whole() if isinstance(rows, Rows) else rows


def brief_rows(rows: Sequence[dict]) -> Sequence[dict]:
    """The rows, those on disk without their long values, for what needs only lengths of these."""
    return rows.brief() if isinstance(rows, Rows) else rows


def _unread(length: int | array) -> Unread | list[Unread]:
    """What stands for a value of this length; one without anything is an empty list."""
    if isinstance(length, array):
        return [Unread(count) for count in length]
    return Unread(length) if length else []
