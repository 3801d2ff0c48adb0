"""The values of a checkpoint's tensors, read in chunks from the files; only the requested ranges are read."""

import contextlib
import json
import math
import os
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from specexit_jax.models.checkpoints.hf_tensors import weight_files
from specexit_jax.models.checkpoints.torch_file import TorchFile

_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2, "BOOL": np.bool_,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
}  # fmt: skip


class Raw(NamedTuple):
    """A tensor in its file. start: offset of its first byte; None if its values are not stored contiguously in
    order."""

    path: Path
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int | None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def chunks(self, ranges: Sequence[tuple[int, int]]) -> Iterator[np.ndarray]:
        """The elements [first, stop) of each range, of the tensor in row-major order."""
        if self.start is None:
            with contextlib.closing(TorchFile(self.path)) as file:
                flat = file.read(self.name).reshape(-1)
            yield from (flat[first:stop] for first, stop in ranges)
            return
        with self.path.open("rb") as file:
            for first, stop in ranges:
                wanted = (stop - first) * self.dtype.itemsize
                found = os.pread(file.fileno(), wanted, self.start + first * self.dtype.itemsize)
                if len(found) < wanted:
                    raise ValueError(f"{self.path} ends inside tensor {self.name}; fetch it again.")
                yield np.frombuffer(found, self.dtype)


def require_tensors(folder: Path, names, raws: Mapping[str, Raw]) -> None:
    """Raises ValueError where a tensor is missing."""
    if missing := sorted(set(names) - set(raws)):
        raise ValueError(f"The tensors in {folder} do not fit its config.json (missing: {', '.join(missing[:8])}).")


def raw_tensors(folder: str | Path, names_of: Callable[[str], str] = lambda name: name) -> dict[str, Raw]:
    """Every tensor of a checkpoint folder by name, renamed by `names_of` (their name to ours).

    Raises FileNotFoundError or ValueError on what is missing or cannot be read.
    """
    found = {}
    for path in weight_files(Path(folder)):
        raws = _of_torch(path) if path.suffix == ".bin" else _of_safetensors(path)
        found |= {names_of(raw.name): raw for raw in raws}
    return found


def _of_safetensors(path: Path) -> list[Raw]:
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        return [
            Raw(
                path, name, np.dtype(_DTYPES[told["dtype"]]), tuple(told["shape"]), 8 + length + told["data_offsets"][0]
            )
            for name, told in header.items()
        ]
    except (struct.error, ValueError, KeyError, TypeError, OverflowError, MemoryError, AttributeError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}); fetch it again.") from None


def _of_torch(path: Path) -> list[Raw]:
    with contextlib.closing(TorchFile(path)) as file, zipfile.ZipFile(path) as members:
        return [_of_member(path, name, stored, members) for name, stored in file.tensors.items()]


def _of_member(path: Path, name: str, stored, members: zipfile.ZipFile) -> Raw:
    """An uncompressed, contiguous storage lies in the file as raw bytes after its local header."""
    member, dtype = members.getinfo(stored.member), np.dtype(stored.dtype)
    plain = tuple(math.prod(stored.shape[axis + 1 :]) for axis in range(len(stored.shape)))
    start = None
    if member.compress_type == zipfile.ZIP_STORED and stored.strides == plain:
        with path.open("rb") as file:
            file.seek(member.header_offset + 26)
            names, extra = struct.unpack("<HH", file.read(4))
        start = member.header_offset + 30 + names + extra + stored.offset * dtype.itemsize
    return Raw(path, name, dtype, stored.shape, start)
