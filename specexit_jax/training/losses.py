"""Losses on arrays, shared by the training steps."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from specexit_jax.exits.signals import PAPER, SIGNALS, by_scale


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


def signal_losses(raw: jax.Array, labels: jax.Array, mask: jax.Array, names: Sequence[str] = PAPER) -> jax.Array:
    """float32[S]: each signal's own loss (`exits.scales`). raw, labels, mask [B, T, S]; labels are values, not raw outputs."""
    parts = [scale.loss(raw[..., own], labels[..., own]) for scale, own in by_scale(names)]
    losses = jnp.concatenate(parts, axis=-1)
    return jnp.stack([masked_mean(losses[..., i], mask[..., i]) for i in range(len(names))])


def signal_errors(
    raw: jax.Array, labels: jax.Array, mask: jax.Array, names: Sequence[str] = PAPER
) -> dict[str, jax.Array]:
    """Mean absolute errors, by name: of shares, and of the logs of tokens."""
    parts = [scale.difference(raw[..., own], labels[..., own]) for scale, own in by_scale(names)]
    errors = jnp.abs(jnp.concatenate(parts, axis=-1))
    return {
        f"{SIGNALS[name].scale.compared}{name}_error": masked_mean(errors[..., i], mask[..., i])
        for i, name in enumerate(names)
    }
