"""Computes on long rows chunk by chunk, so that intermediate arrays exist for one chunk only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def map_chunks(
    function: Callable, chunk: int, *rows: jax.Array, beside: Sequence[jax.Array] = (), ahead: int = 0
) -> Any:
    """function(*rows, *beside) on `chunk` tokens of rows [B, T, ...] at a time, one chunk after the other.

    The results [B, chunk, ...] are joined to [B, T, ...]. Past a row's end the function sees zeros. Of the arrays
    `beside`, [B, T, ...], it also sees `ahead` tokens beyond the chunk. Rows of at most `chunk` tokens are computed at
    once.
    """
    tokens = rows[0].shape[1]
    if tokens <= chunk:
        return function(*rows, *(_lengthened(x, tokens + ahead) for x in beside))
    count = -(-tokens // chunk)
    parts = [_parts(x, count, chunk) for x in rows]
    parts += [_overlapping(x, count, chunk, ahead) for x in beside]
    joined = jax.lax.map(lambda part: function(*part), parts)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])[:, :tokens], joined)


def _parts(x: jax.Array, count: int, chunk: int) -> jax.Array:
    x = _lengthened(x, count * chunk)
    return jnp.moveaxis(x.reshape(x.shape[0], count, chunk, *x.shape[2:]), 1, 0)


def _overlapping(x: jax.Array, count: int, chunk: int, ahead: int) -> jax.Array:
    x = _lengthened(x, count * chunk + ahead)
    return jnp.stack([x[:, i * chunk : (i + 1) * chunk + ahead] for i in range(count)])


def _lengthened(x: jax.Array, tokens: int) -> jax.Array:
    return jnp.pad(x, [(0, 0), (0, tokens - x.shape[1])] + [(0, 0)] * (x.ndim - 2))
