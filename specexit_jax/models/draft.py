"""The draft: one EAGLE-3 layer over (feature of token t, embedding of token t + 1), and the exit signals.

A pair has RoPE position t and predicts token t + 2. The embedding table is usually the target's; the caller does the
lookup. Equations and names: docs/method.md §8; placement of the signals: docs/method.md §1.
"""

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from specexit_jax.backend import rows_apart
from specexit_jax.models.attention import Attention
from specexit_jax.models.cache import Cache, init_cache
from specexit_jax.models.config import DraftConfig
from specexit_jax.models.layers import FeedForward, RMSNorm, normal, rotary_angles
from specexit_jax.models.row_attention import attend_rows, row_mask
from specexit_jax.models.target import advance, attention_bias, layer_cache


@flax.struct.dataclass
class DraftOutput:
    """`logits` float32 [B, T, W]; `hidden` [B, T, E], pre-norm, is the next step's input; `raw_signals` float32
    [B, T, S] before their activations, of token t + 1, or None where they are not placed at `draft`."""

    logits: jax.Array
    hidden: jax.Array
    raw_signals: jax.Array | None
    cache: Cache | None


@flax.struct.dataclass
class DraftBundle:
    """A draft as it is stored: `d2t` int32 [W] holds the target id of every draft id (offsets only in files)."""

    config: DraftConfig = flax.struct.field(pytree_node=False)
    params: dict
    d2t: jax.Array

    def with_capture(self, layers: tuple[int, int, int]) -> "DraftBundle":
        """The draft with a record of the target layers (their inputs) that it was trained on."""
        return self.replace(config=dataclasses.replace(self.config, capture=layers))


class Draft(nn.Module):
    """`Draft(config).apply({"params": params}, ...)`: `fuse` the target's features, then call over pairs."""

    config: DraftConfig

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
        """The target's features [B, T, 3D] to hidden [B, T, E] and, placed at `fc`, raw signals float32 [B, T, S]."""
        fused = rows_apart(jnp.einsum("bta,ae->bte", features, self.fc.astype(features.dtype)))
        if self.config.signals != "fc":
            return fused, None
        width = self.config.hidden_size
        return fused[..., :width], fused[..., width:].astype(jnp.float32)

    def __call__(
        self,
        embedded: jax.Array,
        hidden: jax.Array,
        positions: jax.Array,
        cache: Cache | None = None,
        segment_ids: jax.Array | None = None,
        live: int | None = None,
        visible: jax.Array | None = None,
    ) -> DraftOutput:
        """One pass over T pairs: `embedded` [B, T, D] of token t + 1, `hidden` [B, T, E] of token t, at `positions`.

        Cache, `segment_ids`, `live` and `visible` are as for the target. `hidden` may be the output of an earlier pass.
        """
        config = self.config
        window = config.sliding_window
        bias = attention_bias(config.row_attention, positions, cache, segment_ids, live, visible, window)
        residual, x = self.enter(embedded, hidden)
        mixed, kv = self.attention(x, *self.angles(positions), bias, *layer_cache(cache, 0))
        out = self.leave(residual, mixed)
        normed = self.norm(out)
        raw = None
        if self.config.signals == "draft":
            raw = self.read_signals(normed)
        return DraftOutput(
            logits=self.read_logits(normed),
            hidden=out,
            raw_signals=raw,
            cache=None if cache is None else advance(cache, [kv], positions.shape[1]),
        )

    def layer(
        self,
        embedded: jax.Array,
        hidden: jax.Array,
        positions: jax.Array,
        segment_ids: jax.Array | None = None,
        earlier: tuple = (),
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """One step of training-time test (docs/method.md §9): (pre-norm hidden [B, T, E], its (k, v) [B, K, T, H]).

        `earlier` holds the (k, v) of steps 0 .. i - 1, each but the first perhaps with a bool that says whether it is seen
        (`layers.own_scores`). Step 0 attends causally, and within the sliding window, to itself.
        Step i attends in the same way to step 0, whose keys stand for the verified tokens, and to steps 1 .. i at t
        alone. That is the cache of the i-th draft step in decoding. The caller passes positions + i and shifted
        embeddings; segments are unchanged.
        """
        residual, x = self.enter(embedded, hidden)
        q, *own = self.attention.project(x, *self.angles(positions))
        own = tuple(own)
        (keys, values), *diagonals = (*earlier, own)
        config = self.config
        mask = row_mask(config.row_attention, segment_ids, positions.shape[1], config.sliding_window)
        mixed = attend_rows(q, keys, values, mask, tuple(diagonals))
        return self.leave(residual, self.attention.merge(mixed)), own

    def head(self, hidden: jax.Array) -> jax.Array:
        """Float32 logits [B, T, W] over the draft vocabulary, from the pre-norm hidden [B, T, E]."""
        return self.read_logits(self.normed(hidden))

    def signal(self, hidden: jax.Array) -> jax.Array:
        """Raw signals float32 [B, T, S] from the pre-norm hidden; only for the placement `draft`."""
        return self.read_signals(self.normed(hidden))

    def normed(self, hidden: jax.Array) -> jax.Array:
        """The input of head and signals: the normed hidden [B, T, E]."""
        return self.norm(hidden)

    def enter(self, embedded: jax.Array, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Before attention: the residual [B, T, E] and the attention's input [B, T, 2E]."""
        normed = self.hidden_norm(hidden)
        residual = normed if self.config.norm_before_residual else hidden
        return residual, jnp.concatenate([self.input_norm(embedded), normed], axis=-1)

    def leave(self, residual: jax.Array, mixed: jax.Array) -> jax.Array:
        """After attention: the output projection and the feed-forward, with their residuals."""
        x = rows_apart(residual + mixed)
        return rows_apart(x + self.mlp(self.mlp_norm(x)))

    def angles(self, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        return rotary_angles(positions, self.config.head_dim, self.config.rope_theta, self.config.rope_scaling)

    def read_logits(self, normed: jax.Array) -> jax.Array:
        head = self.lm_head.astype(normed.dtype)
        return jnp.einsum("bte,ew->btw", normed, head, preferred_element_type=jnp.float32)

    def read_signals(self, normed: jax.Array) -> jax.Array:
        head = self.signal_head.astype(normed.dtype)
        return jnp.einsum("bte,es->bts", normed, head, preferred_element_type=jnp.float32)


def init_draft_cache(config: DraftConfig, batch: int, capacity: int) -> Cache:
    """An empty cache for this draft's one layer."""
    return init_cache(1, config.num_kv_heads, config.head_dim, batch, capacity, config.dtype)


def init_draft(config: DraftConfig, key: jax.Array) -> dict:
    """Fresh float32 parameters."""

    def everything(draft: Draft, features, embedded, positions):
        hidden, _ = draft.fuse(features)
        return draft(embedded, hidden, positions)

    features = jnp.zeros((1, 1, 3 * config.target_hidden_size), config.dtype)
    embedded = jnp.zeros((1, 1, config.hidden_size), config.dtype)
    positions = jnp.zeros((1, 1), jnp.int32)
    return nn.init(everything, Draft(config))(key, features, embedded, positions)["params"]
