"""AdamW, or Muon for the 2-D kernels with AdamW for the rest, under one schedule."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon

# Muon is for matrices that map features to features. Embeddings and output heads (one row per token) do worse under it
# than under Adam (Jordan et al., 2024), and its Newton-Schulz cost there grows with the vocabulary. The draft's `fc`
# holds the signals' rows: regressions of different units, which one orthogonal step would move alike.
_ADAM_ALWAYS = ("embedding", "lm_head", "qkv_bias", "fc", "signal_head")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """learning_rate is AdamW's. Under 'muon' it applies to embeddings, norms and heads, and muon_learning_rate to the
    kernels.

    Both rise linearly for warmup_steps, then fall by `schedule` ('cosine' or 'linear') to final_fraction of their peak.
    """

    name: str = "adamw"
    learning_rate: float = 3e-3
    muon_learning_rate: float = 1e-2
    warmup_steps: int = 100
    total_steps: int = 1000
    final_fraction: float = 0.05
    schedule: str = "cosine"
    weight_decay: float = 0.01
    grad_clip: float = 1.0
    b1: float = 0.9
    b2: float = 0.95
    muon_steps: int = 5

    def __post_init__(self):
        if self.name not in ("adamw", "muon"):
            raise ValueError(f"optimizer name is {self.name!r}; choose 'adamw' or 'muon'")
        if self.schedule not in ("cosine", "linear"):
            raise ValueError(f"optimizer schedule is {self.schedule!r}; choose 'cosine' or 'linear'")
        if not 0 <= self.warmup_steps < self.total_steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps}, it must be in [0, total_steps = {self.total_steps})"
            )


def make_schedule(config: OptimizerConfig, peak: float) -> optax.Schedule:
    """Learning rate of update number `step`."""

    def rate(step):
        step = jnp.asarray(step, jnp.float32)
        warmup = (step + 1.0) / max(config.warmup_steps, 1)  # the first update is small but not zero
        done = jnp.clip((step - config.warmup_steps) / (config.total_steps - config.warmup_steps), 0.0, 1.0)
        shape = 0.5 * (1.0 + jnp.cos(jnp.pi * done)) if config.schedule == "cosine" else 1.0 - done
        decay = config.final_fraction + (1.0 - config.final_fraction) * shape
        return peak * jnp.where(step < config.warmup_steps, warmup, decay)

    return rate


def schedules(config: OptimizerConfig) -> dict[str, optax.Schedule]:
    """The learning rates at update number `step`, by the names of the config's fields."""
    names = ("learning_rate",) if config.name == "adamw" else ("learning_rate", "muon_learning_rate")
    return {name: make_schedule(config, getattr(config, name)) for name in names}


def muon_dimensions(path: tuple, leaf: jax.Array) -> MuonDimensionNumbers | None:
    """The axes of a parameter that Muon treats as input and output, or None for AdamW.

    The remaining axes are a batch of matrices: a fused kernel holds several maps, and each is orthogonalised
    separately.
    """
    name = jax.tree_util.keystr(path, simple=True, separator="/").rsplit("/", 1)[-1]
    if leaf.ndim < 2 or name in _ADAM_ALWAYS:
        return None
    if name == "qkv":  # [D, K, G + 2, H]: every query head of a group, the keys and the values apart
        return MuonDimensionNumbers((0,), (1, 3))
    if name == "gate_up":  # [D, 2, F]
        return MuonDimensionNumbers((0,), (2,))
    return MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), (leaf.ndim - 1,))


def _decay_mask(params: Any) -> Any:
    """Weight decay applies to everything but norm scales and biases."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Gradient clipping by global norm, then the update rule of `config`."""
    adam_rate = make_schedule(config, config.learning_rate)
    if config.name == "adamw":
        rule = optax.adamw(
            adam_rate,
            b1=config.b1,
            b2=config.b2,
            weight_decay=config.weight_decay,
            mask=_decay_mask,
            mu_dtype=jnp.float32,
        )
    else:
        rule = muon(
            make_schedule(config, config.muon_learning_rate),
            ns_steps=config.muon_steps,
            weight_decay=config.weight_decay,
            adam_b1=config.b1,
            adam_b2=config.b2,
            adam_learning_rate=adam_rate,
            muon_weight_dimension_numbers=functools.partial(jax.tree_util.tree_map_with_path, muon_dimensions),
        )
    return optax.chain(optax.clip_by_global_norm(config.grad_clip), rule)


def _only(name: str, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer for the top-level parameter `name`; all others keep their values."""

    def told(params: dict) -> dict:
        labels = {each: "learnt" if each == name else "frozen" for each in params}
        return {each: jax.tree.map(lambda _, label=labels[each]: label, value) for each, value in params.items()}

    return optax.multi_transform({"learnt": optimizer, "frozen": optax.set_to_zero()}, told)


def learning(what: str, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer for what a draft's run learns: "all", or "signals" alone, placed at `draft`."""
    return _only("signal_head", optimizer) if what == "signals" else optimizer
