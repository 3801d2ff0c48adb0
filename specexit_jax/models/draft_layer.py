"""What every kind of draft is to its callers: one layer over pairs, a head and signals.

The pair at RoPE position t is (hidden of token t, embedding of token t + 1) and predicts token t + 2. The loop, training and
annotation call these methods alone and never ask which kind they have (docs/method.md §1). A kind has its parameters
(`setup`) and the methods that are marked as its own. The embedding table is usually the target's; the caller does the lookup.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from specexit_jax.models.cache import Cache
from specexit_jax.models.config import DraftConfig
from specexit_jax.models.layers import rotary_angles
from specexit_jax.models.row_attention import attend_rows, row_mask
from specexit_jax.models.target import advance, attention_bias, layer_cache


@flax.struct.dataclass
class DraftOutput:
    """`hidden` [B, T, E] is the next step's input; `logits` float32 [B, T, W], or None where the head is the target's;
    `raw_signals` float32 [B, T, S] before their activations, of token t + 1, or None where they are not placed at `draft`."""

    logits: jax.Array | None
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
        return self.replace(config=self.config.capturing(layers))


class Draft(nn.Module):
    """`draft_of(config).apply({"params": params}, ...)`: `fuse` what is read of the target, then call over pairs.

    A kind sets `attention`, `signal_head` (placement `draft`) and `lm_head` (`config.own_head`) among its parameters.
    """

    config: DraftConfig

    def fuse(self, features: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """Of each kind: the target's features [B, T, A] to the first hidden [B, T, E] and, placed at `fc`, raw signals float32
        [B, T, S]."""
        raise NotImplementedError

    def enter(self, embedded: jax.Array, hidden: jax.Array, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Of each kind, before attention: the residual [B, T, E] and the attention's input."""
        raise NotImplementedError

    def leave(self, residual: jax.Array, mixed: jax.Array) -> jax.Array:
        """Of each kind, after attention: the hidden [B, T, E] that the next step reads."""
        raise NotImplementedError

    def normed(self, hidden: jax.Array) -> jax.Array:
        """Of each kind: the input [B, T, E] of head and signals, from what the next step reads."""
        raise NotImplementedError

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
        residual, x = self.enter(embedded, hidden, positions)
        mixed, kv = self.attention(x, *self.angles(positions), bias, *layer_cache(cache, 0))
        out = self.leave(residual, mixed)
        normed = self.normed(out)
        raw = None
        if self.config.signals == "draft":
            raw = self.read_signals(normed)
        return DraftOutput(
            logits=self.read_logits(normed, self.lm_head) if config.own_head else None,
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
        """One step of training-time test (docs/method.md §9): (hidden [B, T, E], its (k, v) [B, K, T, H]).

        `earlier` holds the (k, v) of steps 0 .. i - 1, each but the first perhaps with a bool that says whether it is seen
        (`layers.own_scores`). Step 0 attends causally, and within the sliding window, to itself.
        Step i attends in the same way to step 0, whose keys stand for the verified tokens, and to steps 1 .. i at t
        alone. That is the cache of the i-th draft step in decoding. The caller passes positions + i and shifted
        embeddings; segments are unchanged.
        """
        residual, x = self.enter(embedded, hidden, positions)
        q, *own = self.attention.project(x, *self.angles(positions))
        own = tuple(own)
        (keys, values), *diagonals = (*earlier, own)
        config = self.config
        mask = row_mask(config.row_attention, segment_ids, positions.shape[1], config.sliding_window)
        mixed = attend_rows(q, keys, values, mask, tuple(diagonals))
        return self.leave(residual, self.attention.merge(self.attention.gated(mixed, x))), own

    def head(self, hidden: jax.Array, shared: jax.Array | None = None) -> jax.Array:
        """Float32 logits [B, T, W] over the draft vocabulary, from what the next step reads. shared: the target's head [D, W],
        for a draft that has none of its own."""
        return self.read_logits(self.normed(hidden), self.lm_head if self.config.own_head else shared)

    def signal(self, hidden: jax.Array) -> jax.Array:
        """Raw signals float32 [B, T, S] from what the next step reads; only for the placement `draft`."""
        return self.read_signals(self.normed(hidden))

    def angles(self, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        config = self.config
        return rotary_angles(positions, config.head_dim, config.rope_theta, config.rope_scaling, config.rotary_dim)

    def read_logits(self, normed: jax.Array, head: jax.Array) -> jax.Array:
        return jnp.einsum("bte,ew->btw", normed, head.astype(normed.dtype), preferred_element_type=jnp.float32)

    def read_signals(self, normed: jax.Array) -> jax.Array:
        head = self.signal_head.astype(normed.dtype)
        return jnp.einsum("bte,es->bts", normed, head, preferred_element_type=jnp.float32)
