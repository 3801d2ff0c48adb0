"""Logits of training under a mesh: a device computes those of a part of the vocabulary, for the rows of its `data` group.

Rows and weights are split over fsdp. For the logits of a chunk either the head is gathered, or the chunk's hiddens are. A head is
the larger (bfloat16, 151,680 x 4,096: 1.2 GB; 8 rows of 1,024 hiddens: 67 MB), and every chunk would gather it again in each
product, forward and backward.
"""

import math

import jax
from jax.sharding import PartitionSpec

from specexit_jax.models.config import TargetConfig

_PARTS = ("fsdp", "tensor")


def head_apart(head: jax.Array, axis: int = 1) -> jax.Array:
    """A head [D, V] (axis 0: [V, D]) split over its vocabulary, where this mesh splits it; else as it is."""
    spec = [None, None]
    spec[axis] = _PARTS
    return _placed(head, head.shape[axis], *spec)


def with_head_apart(config: TargetConfig, params: dict) -> dict:
    """The target's parameters with `head_apart`."""
    if config.tie_embeddings:
        return params | {"embed": {"embedding": head_apart(params["embed"]["embedding"], 0)}}
    return params | {"lm_head": head_apart(params["lm_head"])}


def rows_together(hidden: jax.Array, size: int) -> jax.Array:
    """Hiddens [B, T, D], the rows of a `data` group on each of its devices, where a vocabulary of this size is split."""
    return _placed(hidden, size, "data", None, None)


def logits_apart(logits: jax.Array) -> jax.Array:
    """Logits [B, T, V] of such hiddens and such a head: every device has its part of V."""
    return _placed(logits, logits.shape[-1], "data", None, _PARTS)


def _placed(x: jax.Array, size: int, *axes) -> jax.Array:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape["fsdp"] == 1 or size % math.prod(mesh.shape[name] for name in _PARTS):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))
