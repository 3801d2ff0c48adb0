"""The parts of a layer: norm, rotary embedding, attention, the gated feed-forward."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32

from specexit_jax.array_typing import (
    Angles,
    Bias,
    CachedKeys,
    Keys,
    Lengths,
    Positions,
    Queries,
    Segments,
    Values,
    typed,
)
from specexit_jax.backend import keys_like_values, on_cpu, platform
from specexit_jax.models.config import RopeScaling

# Finite, so that a fully masked row stays finite; far below any score, so that exp of it is exactly 0.
MASKED = -1e30
_FEW_ROWS = 256  # tokens of a call up to which reading the weights dominates its cost
_LANES = 32
_REDUCTIONS = {"sum": (jnp.sum, jnp.add), "max": (jnp.max, jnp.maximum), "min": (jnp.min, jnp.minimum)}


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis, computed in float32."""

    eps: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],), jnp.float32)
        return rms_norm(x, scale, self.eps)


def rms_norm(x: jax.Array, scale: jax.Array, eps: float, apart: bool = False) -> jax.Array:
    """x / rms(x) * scale over the last axis; `scale` is broadcast by the caller where it has more than one axis.

    apart: on GPUs the sums are a kernel of their own, so that what follows the norm is one kernel with it.
    """
    x32 = x.astype(jnp.float32)
    total = reduce_last("sum", jnp.square(x32))
    if apart and platform() == "gpu":
        total = jax.lax.optimization_barrier(total)
    inverse = jax.lax.rsqrt(total / x.shape[-1] + eps)
    scale = jnp.reshape(scale, (1,) * (x.ndim - scale.ndim) + scale.shape).astype(jnp.float32)
    return (x32 * inverse * scale).astype(x.dtype)


def inverse_frequencies(
    head_dim: int, theta: float, scaling: RopeScaling | None, turned: int | None = None
) -> np.ndarray:
    """RoPE's frequencies [H/2]; llama3 scaling stretches the long wavelengths, keeps the short, ramps between.

    turned: columns of a head that are turned (None: all); the frequencies of the others are 0.
    """
    turned = turned or head_dim
    frequency = 1.0 / theta ** (np.arange(0, turned, 2, dtype=np.float64) / turned)
    frequency = np.pad(frequency, (0, (head_dim - turned) // 2))
    if scaling is None:
        return frequency.astype(np.float32)
    turns = scaling.original_max_position * frequency / (2 * math.pi)
    keep = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    keep = np.clip(keep, 0.0, 1.0)
    return (frequency * (keep + (1.0 - keep) / scaling.factor)).astype(np.float32)


def rotary_angles(
    positions: Positions, head_dim: int, theta: float, scaling: RopeScaling | None, turned: int | None = None
):
    """Cosines and sines [B, T, H] for `rotate` in float32, computed once per call and shared by its layers.

    The sine of the first half is negative. The barrier stops XLA from fusing the computation into every layer (5 % of a
    verify step on CPU). A GPU computes it anew in the kernel that rotates, which is cheaper than kernels of its own.
    """
    angles = (
        positions.astype(jnp.float32)[:, :, None] * inverse_frequencies(head_dim, theta, scaling, turned)[None, None]
    )
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    doubled = jnp.concatenate([cos, cos], axis=-1), jnp.concatenate([-sin, sin], axis=-1)
    return doubled if platform() == "gpu" else jax.lax.optimization_barrier(doubled)


def rotate(x: jax.Array, cos: Angles, sin: Angles) -> jax.Array:
    """Rotary embedding in the split-half form of Hugging Face; x [B, K, G, T, H]."""
    cos, sin = (a[:, None, None].astype(x.dtype) for a in (cos, sin))
    halves = x.reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
    return x * cos + jnp.flip(halves, axis=-2).reshape(x.shape) * sin


def reduce_last(kind: str, x: jax.Array) -> jax.Array:
    """The "sum", "max" or "min" over the last axis, which is kept.

    XLA's CPU backend walks a long reduction one number at a time, or calls a library for it. Folding the axis first, half
    onto half, is vector arithmetic, which pays in decoding (a verify step of 5 tokens takes 0.8 of the time) and not in
    training (1.05); the barrier keeps the fold out of the loop that ends it. Under a mesh the axis may be split over devices,
    which a fold would cross.
    """
    reduce, fold = _REDUCTIONS[kind]
    rows = x.size // x.shape[-1]
    if on_cpu() and jax.sharding.get_abstract_mesh().empty and rows <= _FEW_ROWS and x.shape[-1] > _LANES:
        while x.shape[-1] > _LANES and x.shape[-1] % 2 == 0:
            x = fold(*jnp.split(x, 2, axis=-1))
        x = jax.lax.optimization_barrier(x)
    return reduce(x, axis=-1, keepdims=True)


@typed
def causal_bias(segment_ids: Segments | None, tokens: int, window: int = 0):
    """Additive mask [1 or B, T, T] of a call without cache: causal, and within one segment where segments are given.

    window: token t sees t - window + 1 .. t alone; 0: all before it.
    """
    causal = jnp.tril(jnp.ones((tokens, tokens), bool))[None]
    if window:
        causal = jnp.triu(causal, 1 - window)
    if segment_ids is None:
        allowed = causal
    else:
        allowed = causal & (segment_ids[:, :, None] == segment_ids[:, None, :])
    return jnp.where(allowed, jnp.float32(0), jnp.float32(MASKED))


@typed
def cached_bias(length: Lengths, tokens: int, live: int, visible: Bool[Array, "B T M"] | None = None, window: int = 0):
    """Additive mask [B, T, live] over the positions of a cache: token t of a row sees positions 0 .. length + t.

    visible: for a tree, replaces the causal order among the last M positions, which end with this call's T tokens (M >= T):
    which of them each token sees (a node's ancestors); all positions before them are seen. window: only the last `window`
    of positions 0 .. length + t (0: all). With `visible` it limits the positions before the M, and not the M.
    """
    positions = jnp.arange(live, dtype=jnp.int32)
    if visible is None:
        last = length[:, None] + jnp.arange(tokens, dtype=jnp.int32)[None, :]
        allowed = positions[None, None, :] <= last[:, :, None]
        if window:
            allowed = allowed & (positions[None, None, :] > (last - window)[:, :, None])
    else:
        first = length + jnp.int32(tokens - visible.shape[2])
        place = positions[None, :] - first[:, None]
        shown = jnp.take_along_axis(visible, place[:, None, :], axis=2, mode="clip")
        inside = (place >= 0) & (place < visible.shape[2])
        before = (place < 0) & (place >= -window) if window else place < 0
        allowed = jnp.where(inside[:, None, :], shown, before[:, None, :])
    return jnp.where(allowed, jnp.float32(0), jnp.float32(MASKED))


def scores_of(queries: Float[Array, "B K R H"], keys: CachedKeys, dtype=jnp.float32) -> Float[Array, "B K R S"]:
    """The products of R queries with a cache's keys, which lie as the platform wants them (`models.cache.Cache`)."""
    order = "bkth,bksh->bkts" if keys_like_values() else "bkth,bkhs->bkts"
    return jnp.einsum(order, queries, keys, preferred_element_type=dtype)


@typed
def attend(q: Queries, k: Keys, v: Values, bias: Bias, own: tuple = ()) -> Queries:
    """Softmax attention over keys [B, K, H, S]. The query heads of a group are folded into rows, so keys and values are
    not repeated.

    `own` holds (key, value) pairs [B, K, T, H] that query t sees at t alone: the diagonals of training-time test (see
    `own_scores`).
    """
    batch, heads, group, tokens, size = q.shape
    q = q * jnp.asarray(size**-0.5, q.dtype)
    folded = q.reshape(batch, heads, group * tokens, size)
    scores = jnp.einsum("bkth,bkhs->bkts", folded, k, preferred_element_type=jnp.float32)
    scores = scores.reshape(batch, heads, group, tokens, -1) + bias[:, None, None]
    diagonals = own_scores(q, own)
    top = reduce_last("max", scores)
    for score in diagonals:
        top = jnp.maximum(top, score)
    top = jax.lax.stop_gradient(top)
    weights = jnp.exp(scores - top)
    total = reduce_last("sum", weights)
    weights = weights.astype(v.dtype).reshape(batch, heads, group * tokens, -1)
    mixed = jnp.einsum("bkts,bksh->bkth", weights, v, preferred_element_type=jnp.float32).reshape(q.shape)
    for score, (_, value, *_) in zip(diagonals, own, strict=True):
        weight = jnp.exp(score - top)
        total = total + weight
        mixed = mixed + weight * value[:, :, None].astype(jnp.float32)
    return (mixed / total).astype(q.dtype)


def own_scores(q: Queries, own: tuple) -> list[Float32[Array, "B K G T 1"]]:
    """The score of each scaled query with its own place of every pair (key, value), or (key, value, seen): MASKED where the
    bool `seen` is false."""
    scores = []
    for key, _, *seen in own:
        score = jnp.sum((q * key[:, :, None]).astype(jnp.float32), axis=-1, keepdims=True)
        scores.append(jnp.where(seen[0], score, jnp.float32(MASKED)) if seen else score)
    return scores


def attend_causally(q: Queries, k: Keys, v: Values, bias: Bias, own: tuple = ()) -> Queries:
    """`attend` of T tokens to themselves under a causal `bias`, in up to 8 stripes of queries.

    Stripe i reads keys up to its own end only. Nearly half of the square, which the mask would discard, is not
    computed: 1.9 times as fast on CPU at T = 512. Lengths that do not divide, and stripes too thin to pay, take the
    whole square.
    """
    tokens = q.shape[3]
    stripe = max(64, tokens // 8)
    if tokens % stripe or tokens == stripe:
        return attend(q, k, v, bias, own)
    stripes = []
    for start in range(0, tokens, stripe):
        end = start + stripe
        own_stripe = tuple((key[:, :, start:end], value[:, :, start:end], *seen) for key, value, *seen in own)
        rows = q[:, :, :, start:end]
        stripes.append(attend(rows, k[..., :end], v[:, :, :end], bias[:, start:end, :end], own_stripe))
    return jnp.concatenate(stripes, axis=3)


class FeedForward(nn.Module):
    """SwiGLU. Gate and up are one kernel [D, 2, F], whose axis F can be sharded."""

    width: int
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = x.shape[-1]
        gate_up = self.param("gate_up", normal(size), (size, 2, self.width), jnp.float32)
        down = self.param("down", normal(self.width, self.output_scale), (self.width, size), jnp.float32)
        flat, gate_up = x.reshape(-1, size), gate_up.astype(x.dtype)
        if flat.shape[0] <= _FEW_ROWS:  # decoding: one product; slicing the kernel would copy it in every step
            # A kernel [D, 2 F] split over devices would mix gate and up, so each step would move the whole kernel.
            both = jnp.einsum("td,dnf->tnf", flat, gate_up)
            gate, up = both[:, 0], both[:, 1]
        else:  # training: on CPU twice as fast, gradients included, as one product whose result is sliced
            gate, up = flat @ gate_up[:, 0], flat @ gate_up[:, 1]
        hidden = nn.silu(gate) * up
        return (hidden @ down.astype(x.dtype)).reshape(x.shape)


def normal(fan_in: int, scale: float = 1.0):
    """Normal initialiser of unit gain, 1 / sqrt(fan-in). The usual 0.02 equals it at width 2,500 and is far too small
    at width 96."""
    return nn.initializers.normal(scale / math.sqrt(fan_in))
