"""From the signal rows of the draft's `fc` to confidence, progress and remain (docs/method.md §1)."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SIGNALS = ("confidence", "progress", "remain")
REMAIN_MAX = 1e5  # tokens: one overflow of the exponential would poison every mean it enters


def activate(raw: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    """Raw head outputs to [0, 1], [0, 1] and tokens >= 0, always in float32, in the order of `SIGNALS`."""
    raw = raw.astype(jnp.float32)
    remain = jnp.exp(jnp.minimum(raw[..., 2:], math.log(REMAIN_MAX)))
    return jnp.concatenate([jax.nn.sigmoid(raw[..., :2]), remain], axis=-1)


def share_text(share: float) -> str:
    """A probability with two digits, or as many as tell it from 0 and 1: 0.85, 0.9932, 0.00040."""
    gap = min(share, 1 - share)
    return f"{share:.{max(2, math.ceil(-math.log10(gap) - 1e-6) + 1) if gap > 0 else 2}f}"


def deactivate(signals: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    """The raw outputs that `activate` makes into these signals, probabilities cut to 1e-6 from 0 and 1, remain to 1e-6."""
    share = jnp.clip(signals[..., :2], 1e-6, 1.0 - 1e-6)
    return jnp.concatenate([jnp.log(share) - jnp.log1p(-share), jnp.log(jnp.maximum(signals[..., 2:], 1e-6))], axis=-1)
