"""What weights are, told by their values: one digest for any file format, sharding and stored type that holds the same ones.

A draft's is of every value. So is a target's of up to `WHOLE` numbers; of a larger one it is of every tensor's name and shape,
and of `BLOCKS` evenly spaced blocks of it: what training changes is all over its tensors. A change of a few rows of a large
table may go unseen. Where two configs make the same weights compute otherwise (heads, rotary positions, norms), digests differ.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from specexit_jax.models.checkpoints.hf import load_target_config
from specexit_jax.models.checkpoints.hf_draft import eagle_name, layout_of
from specexit_jax.models.checkpoints.hf_layout import shapes, target_layout
from specexit_jax.models.checkpoints.hf_tensors import INDEX, TORCH_INDEX, TORCH_WEIGHTS, WEIGHTS
from specexit_jax.models.checkpoints.raw_tensors import Raw, raw_tensors
from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.models.draft import SIGNALS
from specexit_jax.storage.identity import Identity, file_digest

WHOLE = 2**26  # numbers in all that are read one and all of a target
BLOCKS, BLOCK = 64, 1024  # of a tensor of a larger one, and the numbers of each
_CHUNK, _THREADS = 2**22, 16
_COMPUTES = ("num_heads", "num_kv_heads", "head_dim", "rms_norm_eps", "rope_theta", "rope_scaling")


def target_digest(folder: str | Path, config: TargetConfig | None = None) -> Identity:
    """What a target is. config: of the folder, read where it is not given.

    Raises FileNotFoundError or ValueError on a folder that is not a target's.
    """
    folder, config = Path(folder), config or load_target_config(folder)
    raws, names = raw_tensors(folder), shapes(target_layout(config))
    _require(folder, names, raws)
    chosen = {name: (raws[name], 0, raws[name].size) for name in names}
    every = sum(raw.size for raw, _, _ in chosen.values()) <= WHOLE
    told = _described(config, ("architecture", *_COMPUTES))
    return _identity(folder, told, chosen, every)


def draft_digest(folder: str | Path, config: DraftConfig) -> Identity:
    """What a draft is, whichever format it is written in; config: as it was loaded.

    An embedding table counts only where it is the draft's own. Which layers it captures does not: a target that captures
    others is refused. Raises FileNotFoundError or ValueError on a folder that is not a draft's.
    """
    folder, raws = Path(folder), raw_tensors(folder, eagle_name)
    names = set(shapes(layout_of(dataclasses.replace(config, signals="none"))))
    _require(folder, names, raws)
    chosen = {name: (raws[name], 0, raws[name].size) for name in names}
    fc, width = raws["fc.weight"], config.hidden_size
    rows = fc.shape[1]
    chosen["fc.weight"] = (fc, 0, width * rows)
    if config.signals == "fc":
        beside = raws.get("fc_signals.weight")
        chosen["fc_signals.weight"] = (fc, width * rows, fc.size) if beside is None else (beside, 0, beside.size)
    if config.signals == "draft":
        chosen["signal_head.weight"] = (raws["signal_head.weight"], 0, len(SIGNALS) * width)
    if "d2t" in raws:
        chosen["d2t"] = (raws["d2t"], 0, config.draft_vocab_size)
    told = _described(config, (*_COMPUTES, "norm_before_residual", "sliding_window", "signals"))
    return _identity(folder, told, chosen, True)


def _require(folder: Path, names, raws: Mapping[str, Raw]) -> None:
    if missing := sorted(set(names) - set(raws)):
        raise ValueError(f"The tensors in {folder} do not fit its config.json (missing: {', '.join(missing[:8])}).")


def _described(config: DraftConfig | TargetConfig, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields that decide what the weights compute, in plain values."""
    fields = {name: getattr(config, name) for name in names}
    return {name: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for name, v in fields.items()}


def _identity(folder: Path, told: dict[str, Any], parts: Mapping[str, tuple[Raw, int, int]], every: bool) -> Identity:
    """parts: tensors by name, each with the elements [first, stop) of a file's that are it."""
    with ThreadPoolExecutor(_THREADS) as pool:
        found = dict(zip(parts, pool.map(lambda part: _hashed(*part, every), parts.values()), strict=True))
    if "d2t" in found and not _any(parts["d2t"]):
        del found["d2t"]  # a vocabulary that is the target's own may be left out
    text = json.dumps({"computes": told, "tensors": found}, sort_keys=True)
    form = "values" if every else "samples"
    return Identity(f"{form}:{hashlib.sha256(text.encode()).hexdigest()}", lambda: former_digest(folder))


def former_digest(folder: str | Path) -> str:
    """The digest of earlier versions: of the bytes of one file, which of shards is their index."""
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
    """The same numbers in a type that holds those of every narrower one."""
    if values.dtype == np.float64:
        return values
    if values.dtype.kind in "biu":
        return values.astype(np.int64)
    return values.astype(np.float32)
