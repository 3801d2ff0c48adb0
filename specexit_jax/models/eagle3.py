"""EAGLE-3: one layer over (fused features of three target layers, embedding of the next token), whose residual is the hidden.

Equations and names: docs/method.md §8; placement of the signals: docs/method.md §1.
"""

import jax
import jax.numpy as jnp

from specexit_jax.backend import rows_apart
from specexit_jax.models.attention import Attention
from specexit_jax.models.draft_layer import Draft
from specexit_jax.models.layers import FeedForward, RMSNorm, normal


class Eagle3(Draft):
    """`fc` fuses the features, signals may be rows of it; the attention reads [embedding, hidden], 2E wide; the next step reads
    the output before its norm; the head has a vocabulary of its own."""

    def setup(self):
        config = self.config
        width = config.hidden_size
        features = 3 * config.target_hidden_size
        self.fc = self.param("fc", normal(features), (features, config.fc_rows), jnp.float32)
        self.input_norm = RMSNorm(config.rms_norm_eps)
        self.hidden_norm = RMSNorm(config.rms_norm_eps)
        self.attention = Attention(
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
            width,
            config.rms_norm_eps,
            kernel=config.attention,
        )
        self.mlp_norm = RMSNorm(config.rms_norm_eps)
        self.mlp = FeedForward(config.intermediate_size)
        self.norm = RMSNorm(config.rms_norm_eps)
        self.lm_head = self.param("lm_head", normal(width), (width, config.draft_vocab_size), jnp.float32)
        if config.signals == "draft":
            self.signal_head = self.param("signal_head", normal(width), (width, config.signal_rows), jnp.float32)

    def fuse(self, features: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        fused = rows_apart(jnp.einsum("bta,ae->bte", features, self.fc.astype(features.dtype)))
        if self.config.signals != "fc":
            return fused, None
        width = self.config.hidden_size
        return fused[..., :width], fused[..., width:].astype(jnp.float32)

    def enter(self, embedded: jax.Array, hidden: jax.Array, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        normed = self.hidden_norm(hidden)
        residual = normed if self.config.norm_before_residual else hidden
        return residual, jnp.concatenate([self.input_norm(embedded), normed], axis=-1)

    def leave(self, residual: jax.Array, mixed: jax.Array) -> jax.Array:
        x = rows_apart(residual + mixed)
        return rows_apart(x + self.mlp(self.mlp_norm(x)))

    def normed(self, hidden: jax.Array) -> jax.Array:
        return self.norm(hidden)
