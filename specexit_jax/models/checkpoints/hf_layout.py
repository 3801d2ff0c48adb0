"""How checkpoints of Hugging Face lay out a decoder: one table from our parameters to their tensors.

Their projections are [out, in], one tensor each. Ours are [in, ...out], fused where one matrix product computes
several. A `Leaf` says which tensors make up one parameter, how to join them and how to split them. Names, shapes,
reading and writing follow from the table, which is built from a config alone.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.parallel.layouts import laid_out

Arrays = Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One parameter. tensors: names and shapes in the checkpoint; join: those tensors to the parameter; split: back."""

    tensors: dict[str, tuple[int, ...]]
    join: Callable[[Arrays], np.ndarray]
    split: Callable[[np.ndarray], Arrays]


Layout = dict[str, Leaf]  # by the parameter's path, joined by slashes
Place = Callable[[np.ndarray, str], jax.Array]  # (host array, path) -> array on its devices


def on_device(array: np.ndarray, path: str) -> jax.Array:
    """The default device."""
    array = jnp.asarray(array)
    where = laid_out(path, array.sharding, array.shape)
    return array if where is array.sharding else jax.device_put(array, where)


def target_layout(config: TargetConfig) -> Layout:
    """Every parameter of a target."""
    width = config.hidden_size
    layout = {
        "embed/embedding": as_is("model.embed_tokens.weight", (config.vocab_size, width)),
        "final_norm/scale": as_is("model.norm.weight", (width,)),
    }
    if not config.tie_embeddings:
        layout["lm_head"] = transposed("lm_head.weight", config.vocab_size, width)
    for i in range(config.num_layers):
        ours, theirs = f"layers_{i}", f"model.layers.{i}"
        layout[f"{ours}/input_norm/scale"] = as_is(f"{theirs}.input_layernorm.weight", (width,))
        layout[f"{ours}/mlp_norm/scale"] = as_is(f"{theirs}.post_attention_layernorm.weight", (width,))
        layout |= attention(f"{ours}/attention", f"{theirs}.self_attn", config, width, config.qkv_bias, config.qk_norm)
        layout |= feed_forward(f"{ours}/mlp", f"{theirs}.mlp", width, config.intermediate_size)
    return layout


def draft_layout(config: DraftConfig, rows: int) -> Layout:
    """Every parameter of a draft under EAGLE's names (docs/formats.md), its `fc` with so many rows."""
    width = config.hidden_size
    norms = {
        "input_norm": "midlayer.input_layernorm",
        "hidden_norm": "midlayer.hidden_norm",
        "mlp_norm": "midlayer.post_attention_layernorm",
        "norm": "norm",
    }
    layout = {f"{ours}/scale": as_is(f"{theirs}.weight", (width,)) for ours, theirs in norms.items()}
    layout["fc"] = transposed("fc.weight", rows, 3 * config.target_hidden_size)
    layout["lm_head"] = transposed("lm_head.weight", config.draft_vocab_size, width)
    layout |= attention("attention", "midlayer.self_attn", config, 2 * width)
    layout |= feed_forward("mlp", "midlayer.mlp", width, config.intermediate_size)
    return layout


def as_is(name: str, shape: tuple[int, ...]) -> Leaf:
    return Leaf({name: shape}, lambda tensors: tensors[0], lambda parameter: [parameter])


def transposed(name: str, out: int, width: int) -> Leaf:
    return Leaf({name: (out, width)}, lambda tensors: tensors[0].T, lambda parameter: [parameter.T])


def stacked(rows: dict[str, int], width: int) -> Leaf:
    """Matrices [rows, width], stacked along rows and transposed to one parameter [width, all rows]."""
    edges = np.cumsum(list(rows.values()))[:-1]
    return Leaf(
        {name: (count, width) for name, count in rows.items()},
        lambda tensors: np.concatenate(tensors).T,
        lambda parameter: np.split(parameter.T, edges),
    )


def attention(ours: str, theirs: str, config, width: int, bias: bool = False, norm: bool = False) -> Layout:
    """One attention block that reads `width` columns: qkv [D, K, G + 2, H], o [K, G, H, out]."""
    heads, size = config.num_kv_heads, config.head_dim
    group = config.num_heads // heads
    rows = {"q": group * heads * size, "k": heads * size, "v": heads * size}

    def fuse(tensors: Arrays) -> np.ndarray:
        parts = [part.reshape(heads, -1, size, *part.shape[1:]) for part in tensors]
        return np.concatenate(parts, axis=1)

    def part(fused: np.ndarray) -> Arrays:
        columns = (slice(0, group), slice(group, group + 1), slice(group + 1, None))
        return [fused[:, chosen].reshape(-1, *fused.shape[3:]) for chosen in columns]

    layout = {
        f"{ours}/qkv": Leaf(
            {f"{theirs}.{x}_proj.weight": (count, width) for x, count in rows.items()},
            lambda tensors: np.moveaxis(fuse(tensors), -1, 0),
            lambda parameter: part(np.moveaxis(parameter, 0, -1)),
        ),
        f"{ours}/o": Leaf(
            {f"{theirs}.o_proj.weight": (config.hidden_size, rows["q"])},
            lambda tensors: tensors[0].T.reshape(heads, group, size, -1),
            lambda parameter: [parameter.reshape(-1, parameter.shape[-1]).T],
        ),
    }
    if bias:
        names = {f"{theirs}.{x}_proj.bias": (count,) for x, count in rows.items()}
        layout[f"{ours}/qkv_bias"] = Leaf(names, fuse, part)
    if norm:
        layout |= {f"{ours}/{x}_norm": as_is(f"{theirs}.{x}_norm.weight", (size,)) for x in "qk"}
    return layout


def feed_forward(ours: str, theirs: str, width: int, inner: int) -> Layout:
    """One SwiGLU block: gate_up [D, 2, F], down [F, D]."""
    return {
        f"{ours}/gate_up": Leaf(
            {f"{theirs}.{x}_proj.weight": (inner, width) for x in ("gate", "up")},
            lambda tensors: np.stack([tensor.T for tensor in tensors], axis=1),
            lambda parameter: [parameter[:, 0].T, parameter[:, 1].T],
        ),
        f"{ours}/down": transposed(f"{theirs}.down_proj.weight", width, inner),
    }


def shapes(layout: Layout) -> dict[str, tuple[int, ...]]:
    """Every tensor that a checkpoint of this layout must hold."""
    return {name: shape for leaf in layout.values() for name, shape in leaf.tensors.items()}


def read(layout: Layout, tensor: Callable[[str], np.ndarray], dtype: str, place: Place) -> dict:
    """The parameters in `dtype` as a nested dict. Each is placed and its tensors are freed before the next is read."""
    params: dict = {}
    for path, leaf in layout.items():
        *parents, last = path.split("/")
        node = params
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = place(np.ascontiguousarray(leaf.join([tensor(name) for name in leaf.tensors]).astype(dtype)), path)
    return params


def written(layout: Layout, params: dict, dtype: str) -> dict[str, np.ndarray]:
    """The checkpoint's tensors in `dtype`, made from our parameters."""
    tensors = {}
    for path, leaf in layout.items():
        parameter = params
        for name in path.split("/"):
            parameter = parameter[name]
        tensors |= dict(zip(leaf.tensors, leaf.split(np.asarray(parameter).astype(dtype)), strict=True))
    return tensors
