"""Digests of weights by their values: equal for any file format, sharding and stored type that holds the same values.

A draft's digest covers every value, and so does that of a target of up to `WHOLE` numbers. For a larger target it
covers each tensor's name and shape and `BLOCKS` evenly spaced blocks of its values. Training changes values everywhere,
so it changes the digest; a change of a few rows of a large table may be missed. Config fields that change what the
weights compute (heads, rotary positions, norms) are part of the digest.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from specexit_jax.models.checkpoints.drafts import digested
from specexit_jax.models.checkpoints.hf import load_target_config
from specexit_jax.models.checkpoints.hf_layout import shapes, target_layout
from specexit_jax.models.checkpoints.hf_tensors import INDEX, TORCH_INDEX, TORCH_WEIGHTS, WEIGHTS
from specexit_jax.models.checkpoints.raw_tensors import Raw, raw_tensors, require_tensors
from specexit_jax.models.config import PAPER_SIGNALS, DraftConfig, TargetConfig
from specexit_jax.storage.identity import Identity, file_digest

WHOLE = 2**26  # numbers of a target up to which all are read
BLOCKS, BLOCK = 64, 1024  # blocks per tensor of a larger target, and numbers per block
_CHUNK, _THREADS = 2**22, 16
_COMPUTES = ("num_heads", "num_kv_heads", "head_dim", "rms_norm_eps", "rope_theta", "rope_scaling")


def target_digest(folder: str | Path, config: TargetConfig | None = None) -> Identity:
    """The digest of a target. config: the folder's, read if it is not given.

    Raises FileNotFoundError or ValueError if the folder does not hold a target.
    """
    folder, config = Path(folder), config or load_target_config(folder)
    raws, names = raw_tensors(folder), shapes(target_layout(config))
    require_tensors(folder, names, raws)
    chosen = {name: (raws[name], 0, raws[name].size) for name in names}
    every = sum(raw.size for raw, _, _ in chosen.values()) <= WHOLE
    told = _described(config, ("architecture", *_COMPUTES))
    return _identity(folder, told, chosen, every)


def draft_digest(folder: str | Path, config: DraftConfig) -> Identity:
    """The digest of a draft, the same in every format; config: as it was loaded.

    An embedding table is included only if it is the draft's own. The captured layers are not included: a target that
    captures other layers is refused elsewhere. Raises FileNotFoundError or ValueError if the folder does not hold a
    draft.
    """
    folder = Path(folder)
    fields, chosen = digested(folder, config, raw_tensors(folder))
    told = _described(config, (*_COMPUTES, *fields, "sliding_window", "signals"))
    if config.signal_rows and config.signal_names != PAPER_SIGNALS:  # what the rows mean
        told["signal_names"] = list(config.signal_names)
    return _identity(folder, told, chosen, True)


def _described(config: DraftConfig | TargetConfig, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields that decide what the weights compute, in plain values."""
    fields = {name: getattr(config, name) for name in names}
    return {name: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for name, v in fields.items()}


def _identity(folder: Path, told: dict[str, Any], parts: Mapping[str, tuple[Raw, int, int]], every: bool) -> Identity:
    """parts: tensors by name, each with the range [first, stop) of elements of a tensor in a file."""
    with ThreadPoolExecutor(_THREADS) as pool:
        found = dict(zip(parts, pool.map(lambda part: _hashed(*part, every), parts.values()), strict=True))
    if "d2t" in found and not _any(parts["d2t"]):
        del found["d2t"]  # d2t may be absent if the draft's vocabulary is the target's
    text = json.dumps({"computes": told, "tensors": found}, sort_keys=True)
    form = "values" if every else "samples"
    return Identity(f"{form}:{hashlib.sha256(text.encode()).hexdigest()}", lambda: former_digest(folder))


def former_digest(folder: str | Path) -> str:
    """The digest of earlier versions: of one file's bytes; for shards, of the index file."""
    names = (WEIGHTS, TORCH_WEIGHTS, INDEX, TORCH_INDEX)
    return file_digest(next((Path(folder) / name for name in names if (Path(folder) / name).is_file()), folder))


def _hashed(raw: Raw, first: int, stop: int, every: bool) -> str:
    state = hashlib.sha256(repr((stop - first, raw.shape[1:])).encode())
    if every or stop - first <= BLOCKS * BLOCK:
        ranges = [(start, min(start + _CHUNK, stop)) for start in range(first, stop, _CHUNK)]
    else:
        starts = [first + (stop - first - BLOCK) * number // (BLOCKS - 1) for number in range(BLOCKS)]
        ranges = [(start, start + BLOCK) for start in starts]
    for chunk in raw.chunks(ranges):
        state.update(_plain(chunk).tobytes())
    return state.hexdigest()


def _any(part: tuple[Raw, int, int]) -> bool:
    raw, first, stop = part
    return any(chunk.any() for chunk in raw.chunks([(first, stop)]))


def _plain(values: np.ndarray) -> np.ndarray:
    """The values in a wide type, so that the stored type does not change the digest."""
    if values.dtype == np.float64:
        return values
    if values.dtype.kind in "biu":
        return values.astype(np.int64)
    return values.astype(np.float32)
