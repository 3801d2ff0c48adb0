"""Rows of one open file, with cells as written: no type is inferred from the look of a text.

CSV cells are texts. Of JSON, texts stay texts, whole numbers are exact and other numbers keep the digits they are written
with. Parquet has types of its own, which stay.
"""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

Row = dict[str, Any]
_BYTES = 1 << 16
_DIGITS = 4000  # digits of integers that Python converts; longer ones stay texts
_WIDE = (b"\xff\xfe", b"\xfe\xff")  # how UTF-16 begins


def rows_of(kind: str, file: BinaryIO) -> Iterator[Row]:
    """The rows of a file of one of KINDS. Messages count rows from 1.

    Raises ValueError or OSError with a phrase on what is wrong; the caller puts the file's name before it.
    """
    kind, _, packed = kind.partition(".")
    try:
        yield from KINDS[kind](gzip.GzipFile(fileobj=file) if packed else file)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text (byte {error.start}: {error.reason})") from error
    except (EOFError, zlib.error) as error:
        raise ValueError(f"it is not whole ({error})") from error


def _csv(file: BinaryIO, delimiter: str = ",") -> Iterator[Row]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with _text(file) as text:
        lines, number = csv.reader(text, delimiter=delimiter, strict=True), 0
        try:
            header = [name.strip() for name in next(lines, [])]
            twice = [name for name in header if name and header.count(name) > 1]
            if twice:
                raise ValueError(f"column {twice[0]!r} stands twice in its header")
            for cells in filter(None, lines):  # blank lines are no rows
                number += 1
                if len(cells) > len(header):
                    raise ValueError(
                        f"row {number} has {len(cells)} cells for {len(header)} columns (quote a cell that holds {delimiter!r})"
                    )
                row = dict.fromkeys(header)
                yield row | dict(zip(header, (cell.replace("\r\n", "\n") for cell in cells), strict=False))
        except csv.Error as error:
            raise ValueError(f"{error}, in line {lines.line_num}") from error


def _json(file: BinaryIO) -> Iterator[Row]:
    """Lines of objects, or one list of objects, which may be the only such list of an object around it."""
    with _text(file, newline="\n") as text:  # in texts, other line ends are characters like any other
        lines = ((number, line) for number, line in enumerate(text, start=1) if line.strip())
        number, first = next(lines, (0, ""))
        if not first:
            return
        if not _is_object(first):
            yield from _listed(first + "".join(line for _, line in lines))
            return
        yield _object(first, number)
        for number, line in lines:
            yield _object(line, number)


def _is_object(line: str) -> bool:
    """Whether a line is to be read by itself: an object, or what looks like one that somebody has broken."""
    line = line.strip()
    return line.startswith("{") and line.endswith("}")


def _listed(text: str) -> list[Row]:
    try:
        found = _parsed(text)
    except ValueError as error:
        raise ValueError(f"it is not valid JSON ({error})") from error
    if isinstance(found, dict):
        lists = [value for value in found.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
        found = lists[0] if len(lists) == 1 else [found]
    if not all(isinstance(row, dict) for row in found):
        raise ValueError("it holds no list of objects")
    return found


def _object(line: str, number: int) -> Row:
    try:
        found = _parsed(line)
    except ValueError as error:
        raise ValueError(f"line {number} is not valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"line {number} is not an object")
    return found


def _parsed(text: str) -> Any:
    return json.loads(text, parse_float=str, parse_int=_whole, parse_constant=str)


def _whole(digits: str) -> int | str:
    return digits if len(digits) > _DIGITS or digits == "-0" else int(digits)


def _parquet(file: BinaryIO) -> Iterator[Row]:
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    def told(column: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
        """A float of less than 64 bits in the fewest digits that round-trip; as a double it would print others."""
        if pyarrow.types.is_float32(column.type):
            return pyarrow.compute.cast(pyarrow.compute.cast(column, pyarrow.string()), pyarrow.float64())
        return column

    for batch in pyarrow.parquet.ParquetFile(file).iter_batches(1024):
        yield from pyarrow.table([told(column) for column in batch.columns], batch.schema.names).to_pylist()


def _text(file: BinaryIO, newline: str = "") -> io.TextIOWrapper:
    """UTF-8 with or without a mark in front."""
    buffered = file if hasattr(file, "peek") else io.BufferedReader(file, _BYTES)
    if buffered.peek(2)[:2] in _WIDE:
        raise ValueError("it is UTF-16, save it as UTF-8")
    return io.TextIOWrapper(buffered, encoding="utf-8-sig", newline=newline)


KINDS: dict[str, Callable[[BinaryIO], Iterator[Row]]] = {
    "csv": _csv,
    "tsv": lambda file: _csv(file, "\t"),
    "json": _json,
    "parquet": _parquet,
}
