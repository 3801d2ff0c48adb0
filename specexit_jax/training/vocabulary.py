"""Logits of training under a mesh: a device computes those of a part of the vocabulary, for the rows of its `data` group.

Rows and weights are split over fsdp. For the logits of a chunk either the head is gathered, or the chunk's hiddens are. A head is
the larger (bfloat16, 151,680 x 4,096: 1.2 GB; 8 rows of 1,024 hiddens: 67 MB), and every chunk would gather it again in each
product, forward and backward.
"""

import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from specexit_jax.backend import rows_apart
from specexit_jax.models.config import TargetConfig

_PARTS = ("fsdp", "tensor")


def is_split(size: int) -> bool:
    """Whether the mesh in force splits a vocabulary of this size."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and mesh.shape["fsdp"] > 1 and size % math.prod(mesh.shape[name] for name in _PARTS) == 0


def head_apart(head: jax.Array, axis: int = 1) -> jax.Array:
    """A head [D, V] (axis 0: [V, D]) by parts of the vocabulary."""
    spec = (_PARTS, None) if axis == 0 else (None, _PARTS)
    return _placed(head, *spec) if is_split(head.shape[axis]) else head


def with_head_apart(config: TargetConfig, params: dict) -> dict:
    """The target's parameters with `head_apart`."""
    if config.tie_embeddings:
        return params | {"embed": {"embedding": head_apart(params["embed"]["embedding"], 0)}}
    return params | {"lm_head": head_apart(params["lm_head"])}


def rows_together(hidden: jax.Array, size: int) -> jax.Array:
    """Hiddens [B, T, D] for a head of a vocabulary of this size: the rows of a `data` group on each of its devices."""
    return _together(hidden) if is_split(size) else hidden


def logits_apart(logits: jax.Array) -> jax.Array:
    """Logits [B, T, V] of such hiddens and such a head, by parts of the vocabulary."""
    return _placed(logits, "data", None, _PARTS) if is_split(logits.shape[-1]) else logits


def likeliest(logits: jax.Array) -> jax.Array:
    """int32 [B, T]: the argmax, the lower id of equals."""
    size = logits.shape[-1]
    if not is_split(size):
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    # By two plain reductions: argmax, a reduction of pairs, would send logits and ids between devices.
    ids = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    best = logits >= jnp.max(logits, axis=-1, keepdims=True)
    return jnp.min(jnp.where(best, ids, jnp.int32(size - 1)), axis=-1)


@jax.custom_vjp
def _together(hidden: jax.Array) -> jax.Array:
    return _placed(hidden, "data", None, None)


# Each device has the gradients of its part of the vocabulary: summed where the rows are, instead of everywhere.
_together.defvjp(
    lambda hidden: (_placed(hidden, "data", None, None), None), lambda _, gradient: (rows_apart(gradient),)
)


def _placed(x: jax.Array, *axes) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))
