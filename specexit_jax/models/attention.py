"""Grouped-query self attention with rotary positions, with or without a cache."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from specexit_jax.models.branches import BranchLayer, attend_branches
from specexit_jax.models.cache import write
from specexit_jax.models.layers import attend, normal, rms_norm, rotate
from specexit_jax.models.ragged_attention import MOST_TOKENS, attend_ragged
from specexit_jax.models.row_attention import attend_rows


class Attention(nn.Module):
    """Parameters: `qkv` [D, K, G + 2, H] (a group's queries, its key, its value), `o` [K, G, H, out].

    The three projections are one kernel, hence one matrix product. K stays an axis of its own, so it can be sharded.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    out_size: int
    eps: float
    qk_norm: bool = False
    qkv_bias: bool = False
    output_scale: float = 1.0
    kernel: str = "xla"  # or "pallas", for few tokens over a cache

    def setup(self):
        group = self.num_heads // self.num_kv_heads
        heads = (self.num_kv_heads, group + 2, self.head_dim)
        self.group = group
        self.o = self.param(
            "o",
            normal(self.num_heads * self.head_dim, self.output_scale),
            (self.num_kv_heads, group, self.head_dim, self.out_size),
            jnp.float32,
        )
        if self.qkv_bias:
            self.bias = self.param("qkv_bias", nn.initializers.zeros_init(), heads, jnp.float32)
        if self.qk_norm:
            ones = nn.initializers.ones_init()
            self.q_norm = self.param("q_norm", ones, (self.head_dim,), jnp.float32)
            self.k_norm = self.param("k_norm", ones, (self.head_dim,), jnp.float32)

    @nn.compact
    def project(self, x: jax.Array, cos: jax.Array, sin: jax.Array):
        """Rotated queries [B, K, G, T, H], rotated keys and plain values [B, K, T, H]."""
        shape = (x.shape[-1], self.num_kv_heads, self.group + 2, self.head_dim)
        qkv = self.param("qkv", normal(x.shape[-1]), shape, jnp.float32).astype(x.dtype)
        qkv = jnp.einsum("btd,dkgh->btkgh", x, qkv)
        if self.qkv_bias:
            qkv = qkv + self.bias.astype(x.dtype)[None, None]
        qkv = jnp.transpose(qkv, (0, 2, 3, 1, 4))
        qk, value = qkv[:, :, :-1], qkv[:, :, -1]
        if self.qk_norm:
            scale = jnp.stack([self.q_norm] * self.group + [self.k_norm])[:, None]
            qk = rms_norm(qk, scale, self.eps)
        qk = rotate(qk, cos, sin)
        return qk[:, :, :-1], qk[:, :, -1], value

    def merge(self, mixed: jax.Array) -> jax.Array:
        """Heads [B, K, G, T, H] to the output projection [B, T, out]."""
        return jnp.einsum("bkgth,kghd->btd", mixed, self.o.astype(mixed.dtype))

    def __call__(self, x, cos, sin, bias, kv=None, length=None):
        """Self attention over x [B, T, in], or over `kv` (one layer of a cache) after writing x there.

        `bias` is the mask of `row_mask` or, with a cache, additive [B, T, S'] over the S' positions that are read. For
        branches, `kv` and `bias` are those of `BranchCache`. Returns ([B, T, out], kv).
        """
        q, k, v = self.project(x, cos, sin)
        if isinstance(kv, BranchLayer):
            mixed, kv = attend_branches(q, k, v, kv, length, bias)
            return self.merge(mixed), kv
        if kv is None:
            return self.merge(attend_rows(q, k, v, bias)), None
        kv = write(kv, jnp.swapaxes(k, 2, 3), v, length)
        tokens, live = bias.shape[-2:]
        if self.kernel == "pallas" and tokens <= MOST_TOKENS:
            return self.merge(attend_ragged(q, *kv, bias, length + jnp.int32(tokens))), kv
        return self.merge(attend(q, kv[0][..., :live], kv[1][:, :, :live], bias)), kv
