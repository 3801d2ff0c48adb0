"""The two scales of a signal: a share in [0, 1] and a number of tokens. Each holds the activation of a raw output of the
draft, its inverse, the loss that it is trained with, and how a value is written and drawn."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

TOKENS_MAX = 1e5  # one overflow of the exponential would poison every mean it enters


@dataclasses.dataclass(frozen=True)
class Share:
    """A probability or a share: the raw output is its log-odds; trained by binary cross entropy, which is as proper for a
    share as a squared error and does not vanish where the sigmoid is flat."""

    lowest: ClassVar[float] = 0.0
    highest: ClassVar[float] = 1.0
    full: ClassVar[float] = 1.0  # value that fills a meter
    unit: ClassVar[str] = ""
    link: ClassVar[str] = "logit"
    compared: ClassVar[str] = ""  # prefix of an error's name: errors are of the share itself

    def activate(self, raw: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(raw)

    def deactivate(self, values: jax.Array) -> jax.Array:
        share = jnp.clip(values, 1e-6, 1.0 - 1e-6)
        return jnp.log(share) - jnp.log1p(-share)

    def loss(self, raw: jax.Array, labels: jax.Array) -> jax.Array:
        return jax.nn.softplus(raw) - raw * labels

    def difference(self, raw: jax.Array, labels: jax.Array) -> jax.Array:
        return self.activate(raw) - labels

    def comparable(self, values: np.ndarray) -> np.ndarray:
        """What errors are differences of."""
        return values

    def text(self, value: float) -> str:
        return share_text(value)

    def told(self, value: float) -> str:
        """With its unit."""
        return self.text(value)


@dataclasses.dataclass(frozen=True)
class Tokens:
    """A number of tokens: the raw output is its logarithm; trained by the squared error of the logarithm, from 1 on."""

    lowest: ClassVar[float] = 0.0
    highest: ClassVar[float] = TOKENS_MAX
    full: ClassVar[float] = 512.0
    unit: ClassVar[str] = "tokens"
    link: ClassVar[str] = "log"
    compared: ClassVar[str] = "log_"

    def activate(self, raw: jax.Array) -> jax.Array:
        return jnp.exp(jnp.minimum(raw, math.log(TOKENS_MAX)))

    def deactivate(self, values: jax.Array) -> jax.Array:
        return jnp.log(jnp.maximum(values, 1e-6))

    def loss(self, raw: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.square(self.difference(raw, labels))

    def difference(self, raw: jax.Array, labels: jax.Array) -> jax.Array:
        return raw - jnp.log(jnp.maximum(labels, 1.0))

    def comparable(self, values: np.ndarray) -> np.ndarray:
        """What errors are differences of."""
        return np.log(np.maximum(values, 1.0))

    def text(self, value: float) -> str:
        return f"{value:.0f}"

    def told(self, value: float) -> str:
        """With its unit."""
        return f"{self.text(value)} tokens"


Scale = Share | Tokens


def share_text(share: float) -> str:
    """A probability with two digits, or as many as tell it from 0 and 1: 0.85, 0.9932, 0.00040."""
    gap = min(share, 1 - share)
    return f"{share:.{max(2, math.ceil(-math.log10(gap) - 1e-6) + 1) if gap > 0 else 2}f}"
