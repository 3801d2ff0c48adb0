"""Reading and writing of Hugging Face tensors: read one at a time, checked by name and shape, written atomically."""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from specexit_jax.models.checkpoints.hf_rope import write_rope
from specexit_jax.models.checkpoints.torch_file import TorchFile

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TORCH_WEIGHTS, TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
# Our own tensors, in safetensors format, which other readers must not open. Engines open every *.safetensors of a
# folder, so the suffix differs; folders of earlier versions use the second name.
BESIDE = ("signals.specexit", "signals.safetensors")


class TensorSource:
    """The tensors of a checkpoint folder, read one at a time: safetensors, or torch's `.bin`; one file, or shards.

    It includes a draft's signals in their separate file. A file is opened for each tensor and closed again: mapped
    pages would count as memory of this process. `names_of` (theirs to ours) renames what the folder holds.
    """

    def __init__(self, folder: str | Path, names_of: Callable[[str], str] = lambda name: name):
        self.folder = Path(folder)
        self._found: dict[str, tuple[Path, str, tuple[int, ...]]] = {}
        for path in weight_files(self.folder):
            for name, shape in _contents(path).items():
                self._found[names_of(name)] = (path, name, shape)

    def names(self) -> set[str]:
        return set(self._found)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._found[name][2]

    def read(self, name: str) -> np.ndarray:
        path, theirs, _ = self._found[name]
        if path.suffix != ".bin":
            with safe_open(path, "np") as file:
                return file.get_tensor(theirs)
        with contextlib.closing(TorchFile(path)) as file:
            return file.read(theirs)

    def check(self, expected: dict[str, tuple[int, ...]], optional: Iterable[str] = ()) -> None:
        """Raises ValueError naming unknown, missing and misshapen tensors. A silently dropped tensor would only show as
        bad output."""
        names = self.names()
        problems = {
            "missing": sorted(set(expected) - names),
            "unknown": sorted(names - set(expected) - set(optional)),
            "misshapen": [
                f"{name} {list(self.shape(name))} instead of {list(shape)}"
                for name, shape in sorted(expected.items())
                if name in names and self.shape(name) != shape
            ],
        }
        found = "; ".join(f"{kind}: {_some(items)}" for kind, items in problems.items() if items)
        if found:
            raise ValueError(f"The tensors in {self.folder} do not fit its config.json ({found}).")


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a checkpoint's tensors; the file of signals comes last.

    In transformers' order: a single file before shards (a left-over index beside it is ignored), and safetensors before
    torch. Raises FileNotFoundError for a missing file.
    """
    beside = [folder / name for name in BESIDE if (folder / name).is_file()][:1]
    for single, index in ((WEIGHTS, INDEX), (TORCH_WEIGHTS, TORCH_INDEX)):
        if (folder / single).is_file():
            return [folder / single, *beside]
        if (folder / index).is_file():
            return shards_of(folder / index) + beside
    raise FileNotFoundError(
        f"{folder / WEIGHTS} is missing; a checkpoint needs it, or {TORCH_WEIGHTS}, or the shards of {INDEX}."
    )


def shards_of(index: Path) -> list[Path]:
    """The files that an index names, in order."""
    named = require(read_json(index), "weight_map", index)
    paths = [index.parent / shard for shard in sorted(set(named.values()))]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; {index.name} names it, so fetch it again.")
    return paths


def _contents(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a file's tensors."""
    if path.suffix == ".bin":
        with contextlib.closing(TorchFile(path)) as file:
            return {name: stored.shape for name, stored in file.tensors.items()}
    try:
        with safe_open(path, "np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}); fetch it again.") from None


def _some(items: list[str], most: int = 8) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def read_json(path: Path) -> dict:
    """A JSON object from a file. Raises FileNotFoundError or ValueError with one sentence."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; point at a folder that holds a checkpoint.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); fetch it again.") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, not a {type(value).__name__}.")
    return value


def local_folder(name: str | Path, what: str) -> Path:
    """The folder of a checkpoint: `name` itself, or the hub's repository of that name ("Qwen/Qwen3-8B"), downloaded
    once."""
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", str(name)):
        raise FileNotFoundError(f"{name} is not a folder: give the folder of a {what} model, or its name on the hub.")
    try:
        return Path(
            snapshot_download(str(name), allow_patterns=["*.json", "*.safetensors", "*.bin", "*.jinja", BESIDE[0]])
        )
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(f"{name} is neither a folder nor to be had from the hub ({reason}).") from None


def require(config: dict, key: str, path: Path):
    """The value of a required key of config.json."""
    if config.get(key) is None:
        raise ValueError(f"{path} lacks {key!r}; it is not the {path.name} of a checkpoint that can be loaded.")
    return config[key]


def decoder_json(config, num_layers: int) -> dict:
    """The fields of a config.json that a target and a draft share."""
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "max_position_embeddings": config.max_position,
        **write_rope(config.rope_theta, config.rope_scaling),
    }


def write_checkpoint(
    folder: str | Path, config: dict, tensors: dict[str, np.ndarray], beside: dict[str, np.ndarray] | None = None
) -> None:
    """Writes model.safetensors, `beside` (if any) in BESIDE, and config.json last; each to a temporary name that is
    renamed. Removes files of an earlier checkpoint that engines would read instead or as well."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, members in ((WEIGHTS, tensors), (BESIDE[0], beside)):
        if not members:
            continue
        partial = folder / (name + ".partial")
        # "format" is what transformers asks of a file's metadata before it loads it.
        save_file({key: np.ascontiguousarray(tensor) for key, tensor in members.items()}, partial, {"format": "pt"})
        partial.chmod(0o644)  # the library creates it readable by its owner only
        os.replace(partial, folder / name)
    for stale in (INDEX, *BESIDE[1 if beside else 0 :]):
        (folder / stale).unlink(missing_ok=True)
    partial = folder / "config.json.partial"
    partial.write_text(json.dumps(config, indent=2) + "\n")
    os.replace(partial, folder / "config.json")
