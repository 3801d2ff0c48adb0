"""The target's training step: next-token cross entropy over packed rows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from specexit_jax.training.losses import masked_mean
from specexit_jax.training.state import TrainState, apply_gradients

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
StepFn = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def next_token_mask(batch: Batch) -> jax.Array:
    """bool[B, T-1]: position t predicts token t + 1 of the same document, and t + 1 is trained on."""
    segments = batch["segment_ids"]
    return batch["loss_mask"][:, 1:] & (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)


def lm_loss(params: Any, batch: Batch, *, model: nn.Module) -> tuple[jax.Array, Metrics]:
    """Mean cross entropy (nats) over the trained tokens of `batch`, and metrics loss, accuracy, tokens."""
    output = model.apply({"params": params}, batch["tokens"], batch["positions"], segment_ids=batch["segment_ids"])
    logits = output.logits[:, :-1].astype(jnp.float32)
    targets, mask = batch["tokens"][:, 1:], next_token_mask(batch)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    loss = masked_mean(losses, mask)
    hits = (jnp.argmax(logits, axis=-1) == targets).astype(jnp.float32)
    return loss, {"loss": loss, "accuracy": masked_mean(hits, mask), "tokens": jnp.sum(mask.astype(jnp.int32))}


def train_step(
    state: TrainState, batch: Batch, *, model: nn.Module, optimizer: optax.GradientTransformation
) -> tuple[TrainState, Metrics]:
    """One update; adds the gradient's global norm (before clipping) to the metrics."""
    (_, metrics), gradients = jax.value_and_grad(functools.partial(lm_loss, model=model), has_aux=True)(
        state.params, batch
    )
    return apply_gradients(state, gradients, optimizer), {**metrics, "grad_norm": optax.tree.norm(gradients)}


def make_train_step(model: nn.Module, optimizer: optax.GradientTransformation) -> StepFn:
    """`train_step` compiled; the given state is donated."""
    return jax.jit(functools.partial(train_step, model=model, optimizer=optimizer), donate_argnums=0)
