"""The frozen target's features of packed rows: computed, or read from the batch where they were stored beforehand."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from specexit_jax.backend import on_mesh
from specexit_jax.data.packing import Rows
from specexit_jax.models.config import TargetConfig
from specexit_jax.models.target import Target
from specexit_jax.sharding import from_whole, whole


def features_in(target: TargetConfig, params: dict, batch: dict[str, jax.Array]) -> jax.Array:
    """[B, T, 3D] in the target's dtype."""
    if "features" in batch:
        return batch["features"]
    out = Target(target).apply(
        {"params": params}, batch["tokens"], batch["positions"], segment_ids=batch["segment_ids"], logits=False
    )
    return out.features


class FrozenFeatures:
    """What is asked of the features outside the training step; `rows` are whole batches, the same on every process."""

    def __init__(self, target: TargetConfig, params: dict, mesh: Mesh | None = None):
        self._params, self._mesh = params, mesh
        out = None if mesh is None else whole(mesh)
        self._squares = jax.jit(functools.partial(_mean_square, target), out_shardings=out)
        self._picked = jax.jit(functools.partial(_picked, target), out_shardings=out)

    def mean_square(self, rows: Rows) -> np.ndarray:
        """float32[3D]: of every feature over the tokens that are not padding."""
        with on_mesh(self._mesh):
            return np.asarray(self._squares(self._params, self._placed(rows)))

    def at(self, rows: Rows, chosen: np.ndarray) -> np.ndarray:
        """float32[N, 3D]: of the tokens `chosen` (bool [B, T]), row by row."""
        counts = chosen.sum(axis=1)
        places = np.zeros((len(chosen), -(-max(int(counts.max()), 1) // 64) * 64), np.int32)  # few shapes compile
        for row, own in enumerate(chosen):
            places[row, : counts[row]] = np.flatnonzero(own)
        with on_mesh(self._mesh):
            found = self._picked(self._params, self._placed(rows | {"places": places}))
        found = np.asarray(found)
        return np.concatenate([found[row, :count] for row, count in enumerate(counts)])

    def _placed(self, rows: Rows) -> dict[str, jax.Array]:
        names = ("features",) if "features" in rows else ("tokens", "positions")
        rows = {name: rows[name] for name in (*names, "segment_ids", "places") if name in rows}
        return from_whole(rows, self._mesh)


def _mean_square(target: TargetConfig, params: dict, batch: dict[str, jax.Array]) -> jax.Array:
    real = (batch["segment_ids"] > 0).astype(jnp.float32)
    squares = jnp.square(features_in(target, params, batch).astype(jnp.float32))
    return jnp.einsum("bta,bt->a", squares, real) / jnp.maximum(jnp.sum(real), 1.0)


def _picked(target: TargetConfig, params: dict, batch: dict[str, jax.Array]) -> jax.Array:
    features = features_in(target, params, batch)
    return jnp.take_along_axis(features, batch["places"][..., None], axis=1).astype(jnp.float32)
