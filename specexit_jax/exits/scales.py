"""The two scales of signals: a share in [0, 1] and a number of tokens.

A scale has the activation of the draft's raw output, its inverse, the training loss, and the text form of a value.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

TOKENS_MAX = 1e5  # caps the exponential: an infinite value would spoil every mean


@dataclasses.dataclass(frozen=True)
class Share:
    """A probability or a share. The raw output is its log-odds.

    The loss is the binary cross entropy. Like the squared error it is smallest at the mean label, and its gradient does not
    vanish where the sigmoid is flat.
    """

    lowest: ClassVar[float] = 0.0
    highest: ClassVar[float] = 1.0
    full: ClassVar[float] = 1.0  # the value at which a meter is full
    unit: ClassVar[str] = ""
    link: ClassVar[str] = "logit"
    compared: ClassVar[str] = ""  # prefix of the error's name: errors are differences of the share itself

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
        """The values whose differences are the errors."""
        return values

    def text(self, value: float) -> str:
        return share_text(value)

    def text_with_unit(self, value: float) -> str:
        return self.text(value)


@dataclasses.dataclass(frozen=True)
class Tokens:
    """A number of tokens. The raw output is its logarithm. The loss is the squared error of the logarithm, with labels of at
    least 1."""

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
        """The values whose differences are the errors."""
        return np.log(np.maximum(values, 1.0))

    def text(self, value: float) -> str:
        return f"{value:.0f}"

    def text_with_unit(self, value: float) -> str:
        return f"{self.text(value)} tokens"


Scale = Share | Tokens


def share_text(share: float) -> str:
    """A probability with two decimals, or with as many as distinguish it from 0 and 1: 0.85, 0.9932, 0.00040."""
    gap = min(share, 1 - share)
    return f"{share:.{max(2, math.ceil(-math.log10(gap) - 1e-6) + 1) if gap > 0 else 2}f}"
