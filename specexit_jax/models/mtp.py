"""MTP: the layer over (hidden of the target's last layer, embedding of the next token) that models ship in their checkpoints.

With n_h, n_e, n_f norms, h_t the target's hidden (`reads`), e the embedding of token t + 1 and W the projection:
x_t = W [n_h(h_t), n_e(e)] (`order`), y_t = layer(x)_t, logits = head(n_f(y_t)); the next step reads n_f(y_t) or y_t as h
(`feeds_back`). The layer is one of the target's own architecture. Where families differ: `mtp_config.FAMILIES`.
"""

import jax
import jax.numpy as jnp

from specexit_jax.backend import rows_apart
from specexit_jax.models.attention import Attention
from specexit_jax.models.draft_layer import Draft
from specexit_jax.models.layers import FeedForward, RMSNorm, normal


class Mtp(Draft):
    """Two norms, a projection of both halves, one decoder layer, a final norm; the head is the target's or its own."""

    def setup(self):
        config = self.config
        width = config.hidden_size
        self.hidden_norm = RMSNorm(config.rms_norm_eps)
        self.token_norm = RMSNorm(config.rms_norm_eps)
        self.projection = self.param("projection", normal(2 * width), (2 * width, width), jnp.float32)
        self.input_norm = RMSNorm(config.rms_norm_eps)
        self.attention = Attention(
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
            width,
            config.rms_norm_eps,
            config.qk_norm,
            config.qkv_bias,
            kernel=config.attention,
            output_gate=config.output_gate,
        )
        self.mlp_norm = RMSNorm(config.rms_norm_eps)
        self.mlp = FeedForward(config.intermediate_size)
        self.norm = RMSNorm(config.rms_norm_eps)
        if config.own_head:
            self.lm_head = self.param("lm_head", normal(width), (width, config.draft_vocab_size), jnp.float32)
        if config.signals == "draft":
            self.signal_head = self.param("signal_head", normal(width), (width, config.signal_rows), jnp.float32)

    def fuse(self, features: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        return features, None

    def enter(self, embedded: jax.Array, hidden: jax.Array, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        if self.config.zeroes_first:
            embedded = jnp.where((positions == 0)[..., None], jnp.zeros((), embedded.dtype), embedded)
        halves = [self.hidden_norm(hidden), self.token_norm(embedded)]
        if self.config.order == "embedding_first":
            halves.reverse()
        both = jnp.concatenate(halves, axis=-1)
        x = rows_apart(jnp.einsum("bta,ae->bte", both, self.projection.astype(both.dtype)))
        return x, self.input_norm(x)

    def leave(self, residual: jax.Array, mixed: jax.Array) -> jax.Array:
        x = rows_apart(residual + mixed)
        x = rows_apart(x + self.mlp(self.mlp_norm(x)))
        return self.norm(x) if self.config.feeds_back == "normed" else x

    def normed(self, hidden: jax.Array) -> jax.Array:
        return hidden if self.config.feeds_back == "normed" else self.norm(hidden)
