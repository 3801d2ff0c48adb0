"""Reads `pytorch_model.bin` without torch, and without executing code that a pickle may carry: only tensors are read.

The format is a zip (torch.save since 1.6): `*/data.pkl` describes the tensors, `*/data/KEY` holds each storage as raw
little-endian numbers. Anything that the pickle names beyond storages and tensor rebuilding is refused.
"""

import collections
import pickle
import zipfile
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

_STORAGES = {
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "DoubleStorage": np.float64,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "BoolStorage": np.bool_,
}


class Stored(NamedTuple):
    """The location of a tensor: its storage (a member of the zip, its element type), offset and strides in elements."""

    member: str
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class TorchFile:
    """The tensors of one file by name. Raises ValueError for anything but a dict of tensors."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self._zip = zipfile.ZipFile(self.path)
        except zipfile.BadZipFile:
            raise ValueError(f"{path} is not a torch file that this reader knows; convert it to safetensors.") from None
        described = next((name for name in self._zip.namelist() if name.endswith("/data.pkl")), None)
        if described is None:
            raise ValueError(f"{path} holds no tensors (data.pkl is missing); fetch it again.")
        self._root = described.removesuffix("data.pkl")
        with self._zip.open(described) as file:
            try:
                tensors = _Unpickler(file, self._root).load()
            except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, TypeError) as error:
                raise ValueError(f"{path} is not a plain file of weights ({error}).") from None
        tensors = tensors.get("state_dict", tensors) if isinstance(tensors, dict) else tensors
        if not isinstance(tensors, dict) or not all(isinstance(value, Stored) for value in tensors.values()):
            raise ValueError(f"{path} does not hold a dict of tensors, which is what a checkpoint is.")
        self.tensors: dict[str, Stored] = dict(tensors)

    def close(self) -> None:
        self._zip.close()

    def read(self, name: str) -> np.ndarray:
        stored = self.tensors[name]
        raw = np.frombuffer(self._zip.read(stored.member), stored.dtype)
        size = stored.dtype.itemsize
        span = stored.offset + sum((n - 1) * s for n, s in zip(stored.shape, stored.strides, strict=True)) + 1
        if 0 not in stored.shape and span > raw.size:
            raise ValueError(f"Tensor {name} of {self.path} reaches past its storage; fetch the file again.")
        steps = tuple(stride * size for stride in stored.strides)
        return np.lib.stride_tricks.as_strided(raw[stored.offset :], stored.shape, steps).copy()


class _Unpickler(pickle.Unpickler):
    """Resolves storages and tensors; refuses to resolve anything else."""

    def __init__(self, file, root: str):
        super().__init__(file)
        self._root = root

    def find_class(self, module: str, name: str):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return np.dtype(_STORAGES[name])
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no tensor needs")

    def persistent_load(self, described):
        kind, dtype, key, _, _ = described
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError(f"it refers to a {kind} of {dtype}")
        return f"{self._root}data/{key}", dtype


def _rebuild(storage, offset, shape, strides, *_):
    return Stored(*storage, int(offset), tuple(shape), tuple(strides))
