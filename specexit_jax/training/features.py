"""The frozen target's features of packed rows: computed, or read from the batch if they were stored beforehand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from specexit_jax.backend import on_mesh
from specexit_jax.data.packing import Rows
from specexit_jax.models.config import TargetConfig
from specexit_jax.models.target import Target
from specexit_jax.parallel.sharding import from_whole, whole


def features_in(target: TargetConfig, params: dict, batch: dict[str, jax.Array]) -> jax.Array:
    """[B, T, A] in the target's dtype."""
    if "features" in batch:
        return batch["features"]
    out = Target(target).apply(
        {"params": params}, batch["tokens"], batch["positions"], segment_ids=batch["segment_ids"], logits=False
    )
    return out.features


class TokenReader:
    """Evaluates `read(params, batch)`, [B, T, A] over all tokens, at chosen tokens. `rows` are whole batches, the same
    on every process."""

    def __init__(self, read: Callable[[Any, dict], jax.Array], params: Any, mesh: Mesh | None = None):
        self._params, self._mesh = params, mesh
        self._picked = jax.jit(functools.partial(_picked, read), out_shardings=None if mesh is None else whole(mesh))

    def at(self, rows: Rows, chosen: np.ndarray) -> np.ndarray:
        """float32[N, A] at the tokens `chosen` (bool [B, T]), row by row."""
        counts = chosen.sum(axis=1)
        places = np.zeros((len(chosen), -(-max(int(counts.max()), 1) // 64) * 64), np.int32)  # few shapes are compiled
        for row, own in enumerate(chosen):
            places[row, : counts[row]] = np.flatnonzero(own)
        with on_mesh(self._mesh):
            found = np.asarray(self._picked(self._params, _placed(rows | {"places": places}, self._mesh)))
        return np.concatenate([found[row, :count] for row, count in enumerate(counts)])


def mean_square(target: TargetConfig, params: dict, rows: Rows, mesh: Mesh | None = None) -> np.ndarray:
    """float32[A]: each feature's mean square over tokens that are not padding; `rows` are whole batches, equal on
    every process."""
    squares = jax.jit(functools.partial(_mean_square, target), out_shardings=None if mesh is None else whole(mesh))
    with on_mesh(mesh):
        return np.asarray(squares(params, _placed(rows, mesh)))


def _placed(rows: Rows, mesh: Mesh | None) -> dict[str, jax.Array]:
    kept = ("features", "tokens", "positions", "segment_ids", "places")
    return from_whole({name: rows[name] for name in kept if name in rows}, mesh)


def _mean_square(target: TargetConfig, params: dict, batch: dict[str, jax.Array]) -> jax.Array:
    real = (batch["segment_ids"] > 0).astype(jnp.float32)
    squares = jnp.square(features_in(target, params, batch).astype(jnp.float32))
    return jnp.einsum("bta,bt->a", squares, real) / jnp.maximum(jnp.sum(real), 1.0)


def _picked(read: Callable[[Any, dict], jax.Array], params: Any, batch: dict[str, jax.Array]) -> jax.Array:
    return jnp.take_along_axis(read(params, batch), batch["places"][..., None], axis=1).astype(jnp.float32)
