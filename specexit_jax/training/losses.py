"""Losses on arrays, shared by the training steps."""

from __future__ import annotations

import jax
import jax.numpy as jnp

SIGNALS = ("confidence", "progress", "remain")


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of `values` under the same-shaped `mask` (bool, or weights >= 0); 0 where it is empty."""
    weights = mask.astype(values.dtype)
    # where, not product: a masked-out inf or NaN must not reach the sum.
    total = jnp.sum(jnp.where(weights > 0, weights * values, jnp.zeros_like(values)))
    weight = jnp.sum(weights)
    return total / jnp.where(weight > 0, weight, jnp.ones_like(weight))


def soft_cross_entropy(logits: jax.Array, teacher_logits: jax.Array) -> jax.Array:
    """Cross entropy [...] of softmax(logits) against softmax(teacher_logits), both [..., W]."""
    teacher = jax.nn.softmax(teacher_logits, axis=-1)
    return -jnp.sum(teacher * jax.nn.log_softmax(logits, axis=-1), axis=-1)


def signal_losses(raw: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
    """float32[3]: binary cross entropies of confidence and progress, squared error of log remain.

    raw, labels, mask [B, T, 3]; labels are probability, share and tokens (docs/method.md §1). Progress is a share in
    [0, 1], for which binary cross entropy is a proper loss, like squared error; its gradient does not vanish where the
    sigmoid saturates.
    """
    entropy = jax.nn.softplus(raw[..., :2]) - raw[..., :2] * labels[..., :2]
    squared = jnp.square(raw[..., 2:] - jnp.log(jnp.maximum(labels[..., 2:], 1.0)))
    losses = jnp.concatenate([entropy, squared], axis=-1)
    return jnp.stack([masked_mean(losses[..., i], mask[..., i]) for i in range(3)])


def signal_errors(raw: jax.Array, labels: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """Mean absolute errors: of probability, of share, and of the log of the tokens that remain."""
    shares = jax.nn.sigmoid(raw[..., :2]) - labels[..., :2]
    logs = raw[..., 2:] - jnp.log(jnp.maximum(labels[..., 2:], 1.0))
    errors = jnp.abs(jnp.concatenate([shares, logs], axis=-1))
    names = ("confidence_error", "progress_error", "log_remain_error")
    return {name: masked_mean(errors[..., i], mask[..., i]) for i, name in enumerate(names)}
