"""Hugging Face tensors in and out: read one at a time, checked by name and shape, written atomically.

Their projections are [out, in], one a kind; ours are [in, ...out], fused where one matrix product serves.
"""

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


class TensorSource:
    """The tensors of a checkpoint folder (one file, or shards with an index), read one at a time."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._stack = contextlib.ExitStack()
        self._files = {}
        try:
            for path in self._paths():
                handle = self._stack.enter_context(safe_open(path, "np"))
                self._files.update(dict.fromkeys(handle.keys(), handle))
        except SafetensorError as error:
            self._stack.close()
            raise ValueError(f"{path} is not a readable safetensors file ({error}); fetch it again.") from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _paths(self) -> list[Path]:
        index = self.folder / INDEX
        if index.is_file():
            shards = sorted(set(read_json(index)["weight_map"].values()))
            paths = [self.folder / shard for shard in shards]
        else:
            paths = [self.folder / WEIGHTS]
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing; a checkpoint needs {WEIGHTS}, or every shard of {INDEX}.")
        return paths

    def names(self) -> set[str]:
        return set(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._files[name].get_slice(name).get_shape())

    def read(self, name: str) -> np.ndarray:
        return self._files[name].get_tensor(name)

    def check(self, expected: dict[str, tuple[int, ...]], optional: Iterable[str] = ()) -> None:
        """Refuse unknown, missing and misshapen tensors by name: one dropped in silence only shows as bad output."""
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


def _some(items: list[str], most: int = 8) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def read_json(path: Path) -> dict:
    """A JSON object from a file, or one sentence about why not."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; point at a folder that holds a checkpoint.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); fetch it again.") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, not a {type(value).__name__}.")
    return value


def require(config: dict, key: str, path: Path):
    """A key that a config.json cannot do without."""
    if key not in config:
        raise ValueError(f"{path} lacks {key!r}; it is not the config.json of a decoder that can be loaded.")
    return config[key]


def write_checkpoint(folder: str | Path, config: dict, tensors: dict[str, np.ndarray]) -> None:
    """config.json and model.safetensors, each written to a temporary name and renamed; the config last."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / (WEIGHTS + ".partial")
    # "format" is what transformers asks of a file's metadata before it loads it.
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, partial, {"format": "pt"})
    os.replace(partial, folder / WEIGHTS)
    partial = folder / "config.json.partial"
    partial.write_text(json.dumps(config, indent=2) + "\n")
    os.replace(partial, folder / "config.json")


def attention_shapes(prefix: str, config, width: int, out: int, qkv_bias=False, qk_norm=False) -> dict:
    """Names and shapes of one attention block that reads `width` and writes `out`."""
    rows = {"q": config.num_heads, "k": config.num_kv_heads, "v": config.num_kv_heads}
    shapes = {f"{prefix}.{x}_proj.weight": (n * config.head_dim, width) for x, n in rows.items()}
    shapes[f"{prefix}.o_proj.weight"] = (out, config.num_heads * config.head_dim)
    if qkv_bias:
        shapes |= {f"{prefix}.{x}_proj.bias": (n * config.head_dim,) for x, n in rows.items()}
    if qk_norm:
        shapes |= {f"{prefix}.{x}_norm.weight": (config.head_dim,) for x in "qk"}
    return shapes


def read_attention(read, prefix: str, config, qkv_bias=False, qk_norm=False) -> dict:
    """Our parameters of one attention block from their tensors."""

    def fused(kind):
        parts = [read(f"{prefix}.{x}_proj.{kind}") for x in "qkv"]
        parts = [part.reshape(config.num_kv_heads, -1, config.head_dim, *part.shape[1:]) for part in parts]
        return np.concatenate(parts, axis=1)

    o = read(f"{prefix}.o_proj.weight").T
    params = {
        "qkv": np.moveaxis(fused("weight"), -1, 0),
        "o": o.reshape(config.num_kv_heads, -1, config.head_dim, o.shape[-1]),
    }
    if qkv_bias:
        params["qkv_bias"] = fused("bias")
    if qk_norm:
        params |= {f"{x}_norm": read(f"{prefix}.{x}_norm.weight") for x in "qk"}
    return params


def write_attention(prefix: str, params: dict) -> dict[str, np.ndarray]:
    """Their tensors of one attention block from our parameters."""
    tensors = {f"{prefix}.o_proj.weight": _flat(params["o"], 3).T}
    group = params["qkv"].shape[2] - 2
    for x, columns in (("q", slice(0, group)), ("k", slice(group, group + 1)), ("v", slice(group + 1, None))):
        tensors[f"{prefix}.{x}_proj.weight"] = _flat(np.moveaxis(params["qkv"], 0, -1)[:, columns], 3)
        if "qkv_bias" in params:
            tensors[f"{prefix}.{x}_proj.bias"] = params["qkv_bias"][:, columns].reshape(-1)
    for x in "qk":
        if f"{x}_norm" in params:
            tensors[f"{prefix}.{x}_norm.weight"] = params[f"{x}_norm"]
    return tensors


def _flat(array: np.ndarray, axes: int) -> np.ndarray:
    return array.reshape(-1, *array.shape[axes:])


def mlp_shapes(prefix: str, width: int, inner: int) -> dict:
    """Names and shapes of one SwiGLU block."""
    shapes = {f"{prefix}.{x}_proj.weight": (inner, width) for x in ("gate", "up")}
    return shapes | {f"{prefix}.down_proj.weight": (width, inner)}


def read_mlp(read, prefix: str) -> dict:
    gate_up = np.stack([read(f"{prefix}.{x}_proj.weight") for x in ("gate", "up")])
    return {"gate_up": np.moveaxis(gate_up, -1, 0), "down": read(f"{prefix}.down_proj.weight").T}


def write_mlp(prefix: str, params: dict) -> dict[str, np.ndarray]:
    tensors = {f"{prefix}.{x}_proj.weight": params["gate_up"][:, i].T for i, x in enumerate(("gate", "up"))}
    return tensors | {f"{prefix}.down_proj.weight": params["down"].T}
