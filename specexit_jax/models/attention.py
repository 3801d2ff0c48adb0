"""Grouped-query self attention with rotary positions, with or without a cache."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from specexit_jax.backend import keys_like_values, platform
from specexit_jax.models.branches import BranchLayer, attend_branches
from specexit_jax.models.cache import write
from specexit_jax.models.cached_attention import attend_cache
from specexit_jax.models.fused_write import rotate_and_write
from specexit_jax.models.layers import normal, rms_norm, rotate
from specexit_jax.models.prefix_attention import Reach, attend_prefix
from specexit_jax.models.row_attention import attend_rows
from specexit_jax.models.split_attention import attend_split, in_split


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
    output_gate: bool = False  # a parameter `gate` [D, K, G, H]: the heads' outputs are multiplied by its sigmoid

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
        if self.output_gate:  # of an input as wide as the output
            shape = (self.out_size, self.num_kv_heads, group, self.head_dim)
            self.gate = self.param("gate", normal(self.out_size), shape, jnp.float32)
        if self.qk_norm:
            ones = nn.initializers.ones_init()
            self.q_norm = self.param("q_norm", ones, (self.head_dim,), jnp.float32)
            self.k_norm = self.param("k_norm", ones, (self.head_dim,), jnp.float32)

    def project(self, x: jax.Array, cos: jax.Array, sin: jax.Array):
        """Rotated queries [B, K, G, T, H], rotated keys and plain values [B, K, T, H]."""
        qkv = jnp.transpose(self.projected(x), (0, 2, 3, 1, 4))
        qk, value = qkv[:, :, :-1], qkv[:, :, -1]
        if self.qk_norm:
            is_key = jnp.arange(self.group + 1)[:, None, None] == self.group
            scale = jnp.where(is_key, self.k_norm, self.q_norm)
            qk = rms_norm(qk, scale, self.eps, apart=True)
        qk = rotate(qk, cos, sin)
        return qk[:, :, :-1], qk[:, :, -1], value

    @nn.compact
    def projected(self, x: jax.Array) -> jax.Array:
        """The three projections [B, T, K, G + 2, H]."""
        shape = (x.shape[-1], self.num_kv_heads, self.group + 2, self.head_dim)
        qkv = self.param("qkv", normal(x.shape[-1]), shape, jnp.float32).astype(x.dtype)
        qkv = jnp.einsum("btd,dkgh->btkgh", x, qkv)
        if self.qkv_bias:
            qkv = qkv + self.bias.astype(x.dtype)[None, None]
        return qkv

    def gated(self, mixed: jax.Array, x: jax.Array) -> jax.Array:
        """Heads [B, K, G, T, H], through the output gate where there is one; x: the attention's input."""
        if not self.output_gate:
            return mixed
        return mixed * nn.sigmoid(jnp.einsum("btd,dkgh->bkgth", x, self.gate.astype(x.dtype)))

    def merge(self, mixed: jax.Array) -> jax.Array:
        """Heads [B, K, G, T, H] to the output projection [B, T, out]."""
        out = self.o.astype(mixed.dtype)
        if platform() != "gpu":
            return jnp.einsum("bkgth,kghd->btd", mixed, out)
        # As one plain product. Left to itself the compiler lays the kernel out again in every step.
        rows = jnp.transpose(mixed, (0, 3, 1, 2, 4)).reshape(mixed.shape[0], mixed.shape[3], -1)
        return jnp.einsum("btf,fd->btd", rows, out.reshape(-1, out.shape[-1]))

    def __call__(self, x, cos, sin, bias, kv=None, length=None):
        """Self attention over x [B, T, in], or over `kv` (one layer of a cache) after writing x there.

        `bias` is the mask of `row_mask` or, with a cache, additive [B, T, S'] over the S' positions that are read, or a `Reach`.
        For branches, `kv` and `bias` are those of `BranchCache`. Returns ([B, T, out], kv).
        """
        tokens = jnp.int32(x.shape[1])
        if kv is not None and in_split(self.kernel, x.shape[1], bias):
            norms = (self.q_norm, self.k_norm) if self.qk_norm else None
            q, *kv = rotate_and_write(self.projected(x), *kv, cos, sin, length, norms, self.eps)
            return self.merge(self.gated(attend_split(q, *kv, bias, length + tokens), x)), tuple(kv)
        q, k, v = self.project(x, cos, sin)
        if isinstance(kv, BranchLayer):
            mixed, kv = attend_branches(q, k, v, kv, length, bias)
            return self.merge(self.gated(mixed, x)), kv
        if kv is None:
            return self.merge(self.gated(attend_rows(q, k, v, bias), x)), None
        kv = write(kv, k if keys_like_values() else jnp.swapaxes(k, 2, 3), v, length)
        if isinstance(bias, Reach):
            return self.merge(self.gated(attend_prefix(q, *kv, bias), x)), kv
        mixed = attend_cache(self.kernel, q, *kv, bias, length + tokens)
        return self.merge(self.gated(mixed, x)), kv
