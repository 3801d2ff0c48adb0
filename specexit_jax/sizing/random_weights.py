"""Random weights of any shapes, made fast: for timing, where values do not matter.

Uniform noise of unit gain, made on the device in its dtype. An initialiser would take minutes for billions of
parameters.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from specexit_jax.decoding.spec import DecodeParams
from specexit_jax.exits.score import ScoreNetwork
from specexit_jax.exits.trace_statistics import statistic_names
from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.models.draft import init_draft
from specexit_jax.models.target import init_target


def random_params(target: TargetConfig, draft: DraftConfig | None = None, seed: int = 0) -> DecodeParams:
    """A target and a draft (its vocabulary being the target's first ids) in the dtype of their configs."""
    found = DecodeParams(_filled(functools.partial(init_target, target), target.dtype, seed))
    if draft is None:
        return found
    drawn = _filled(functools.partial(init_draft, draft), draft.dtype, seed + 1)
    return found.replace(draft=drawn, d2t=jnp.arange(draft.draft_vocab_size, dtype=jnp.int32))


def random_score(signals: tuple[str, ...], hidden: int = 128, seed: int = 0) -> ScoreNetwork:
    """The network of an exit score for a draft with these signals."""
    size = len(statistic_names(signals))
    shapes = {"centre": (size,), "spread": (size,), "weights": (size, hidden), "bias": (hidden,), "out": (hidden + 1,)}
    drawn = {name: noise(seed + number, shape, "float32") for number, (name, shape) in enumerate(shapes.items())}
    return ScoreNetwork(**drawn | {"spread": 2 + drawn["spread"]})


def noise(seed: int, shape: tuple[int, ...], dtype: str) -> jax.Array:
    """Uniform numbers in [-1, 1), by the cheapest generator the device has."""
    return jax.random.uniform(jax.random.key(seed, impl="rbg"), shape, dtype, -1.0, 1.0)


def shapes_of(init, dtype: str) -> Any:
    """The parameters that `init(key)` would make, as shapes in `dtype`."""
    tree = jax.eval_shape(init, jax.random.key(0))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype)), tree)


@functools.cache
def target_shapes(target: TargetConfig) -> Any:
    """The target's parameters as shapes in its dtype."""
    return shapes_of(functools.partial(init_target, target), target.dtype)


@functools.cache
def draft_shapes(draft: DraftConfig) -> Any:
    """The draft's parameters as shapes in its dtype."""
    return shapes_of(functools.partial(init_draft, draft), draft.dtype)


def _filled(init, dtype: str, seed: int) -> Any:
    leaves, structure = jax.tree.flatten_with_path(shapes_of(init, dtype))
    made = {}
    filled = []
    for index, (path, leaf) in enumerate(leaves):
        name, kind = path[-1].key, (path[-1].key, leaf.shape)
        if kind not in made:  # one compilation for all layers
            made[kind] = jax.jit(functools.partial(_leaf, name, leaf.shape, dtype))
        filled.append(made[kind](jnp.int32(seed * 65_536 + index)))
    return jax.tree.unflatten(structure, filled)


def _leaf(name: str, shape: tuple[int, ...], dtype: str, seed: jax.Array) -> jax.Array:
    """Norms 1, biases 0, kernels of unit gain: the axes of their inputs come first, save in the table of tokens."""
    if name == "qkv_bias":
        return jnp.zeros(shape, dtype)
    if len(shape) == 1:
        return jnp.ones(shape, dtype)
    inputs = {"embedding": shape[-1], "o": math.prod(shape[:-1])}.get(name, shape[0])
    return noise(seed, shape, dtype) * jnp.asarray(math.sqrt(3 / inputs), dtype)
