"""signals.npz: the signals along the traces of a split, written and read trace by trace.

An uncompressed .npz, which `numpy.load` reads too: `rows`, float32 [tokens of all traces, C]; `ids` and `lengths` of the traces in
the order of the rows; `draft`, the digest of the draft that gave them; `readings`, the names of the last columns.
"""

import io
import os
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self

import numpy as np

from specexit_jax.exits.readings import READINGS
from specexit_jax.storage.identity import same
from specexit_jax.storage.open_files import OpenFiles

_LOCAL = 30  # bytes of a local file header of a zip archive, before its name


class StoredSignals(Mapping[str, np.ndarray]):
    """float32 [generated tokens, C] by the id of a trace, read when it is asked for."""

    def __init__(self, path: Path | None = None, starts: Mapping[str, tuple[int, int]] | None = None, columns: int = 0):
        """starts: (first byte, tokens) of each trace in the file."""
        files = OpenFiles([] if path is None else [path])
        self._places = {name: (files, columns, *place) for name, place in (starts or {}).items()}

    def __getitem__(self, name: str) -> np.ndarray:
        files, columns, start, tokens = self._places[name]
        return np.frombuffer(files.read(0, start, start + 4 * tokens * columns), "<f4").reshape(tokens, columns)

    def tokens(self, name: str) -> int:
        return self._places[name][3]

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __or__(self, other: Self) -> Self:
        both = StoredSignals()
        both._places = self._places | other._places
        return both


def write_signals(path: str | Path, signals: Iterable[tuple[str, np.ndarray]], tokens: int, draft: str) -> None:
    """Writes signals.npz from (id, float32 [n, C]) as they come, `tokens` rows in all. One trace is in memory at a time."""
    path, ids, lengths = Path(path), [], []
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp.npz")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            with archive.open("rows.npy", "w", force_zip64=True) as member:
                for name, rows in signals:
                    if not ids:
                        member.write(_header((tokens, rows.shape[1])))
                    ids.append(name)
                    lengths.append(len(rows))
                    member.write(np.ascontiguousarray(rows, "<f4").data)
                if not ids:
                    member.write(_header((0, 0)))
            about = {"ids": np.array(ids), "lengths": np.array(lengths, np.int64), "draft": np.array(str(draft))}
            for name, value in (about | {"readings": np.array(READINGS)}).items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, value)
        if sum(lengths) != tokens:
            raise ValueError(f"{path}: {sum(lengths)} tokens have signals, but {tokens} were announced")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_signals(path: str | Path, draft: str) -> StoredSignals:
    """The signals of a file. Raises FileNotFoundError, or ValueError if they came from another draft or lack readings."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: extract the signals first")
    with np.load(path) as file:
        if not same(draft, str(file["draft"])):
            raise ValueError(f"{path} holds the signals of another draft: remove it to extract them again")
        if "readings" not in file or tuple(file["readings"].tolist()) != READINGS:
            raise ValueError(f"{path} lacks the readings that this version computes: remove it to extract them again")
        ids, lengths = file["ids"].tolist(), file["lengths"].tolist()
    start, columns = _rows_at(path)
    ends = np.cumsum([0, *lengths])
    starts = (start + 4 * columns * ends[:-1]).tolist()
    return StoredSignals(path, dict(zip(ids, zip(starts, lengths, strict=True), strict=True)), columns)


def _header(shape: tuple[int, int]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _rows_at(path: Path) -> tuple[int, int]:
    """(the first byte of `rows` in the archive, its columns)."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("rows.npy")
        with archive.open(info) as member:
            np.lib.format.read_magic(member)
            shape, by_column, dtype = np.lib.format.read_array_header_1_0(member)
            header = member.tell()
    if info.compress_type != zipfile.ZIP_STORED or by_column or dtype != np.dtype("<f4"):
        raise ValueError(f"{path} is not as this version writes it: remove it to extract the signals again")
    with path.open("rb") as file:
        file.seek(info.header_offset + _LOCAL - 4)
        return info.header_offset + _LOCAL + sum(struct.unpack("<HH", file.read(4))) + header, shape[1]
