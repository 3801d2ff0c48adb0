"""What lies between the projection and the attention of a decoding step, as one kernel for GPUs: the norms of queries and keys,
their rotation, and the writing of keys and values into the cache where it lies. Plain XLA takes four kernels or five.

Pallas (Triton), a program for each token of each head. It belongs to `split_attention`, and is as little proven.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float

from specexit_jax.array_typing import Angles, Lengths, Queries, Values, typed
from specexit_jax.backend import interpreted
from specexit_jax.models.by_device import Split, by_rows_and_heads


@typed
def rotate_and_write(
    qkv: Float[Array, "B T K G2 H"],
    k: Values,
    v: Values,
    cos: Angles,
    sin: Angles,
    length: Lengths,
    norms: tuple[Float[Array, " H"], Float[Array, " H"]] | None,
    eps: float,
) -> tuple[Queries, Values, Values]:
    """(rotated queries, keys and values of the cache with T more of each row at length[b] .. length[b] + T - 1).

    qkv: a group's queries, its key, its value. cos, sin: of `layers.rotary_angles`. norms: the scales of `layers.rms_norm` for
    queries and keys; None: they are not normed. The cache must have room, as for `cache.write`. H is a power of two.
    """
    kernel = functools.partial(_place, norms=norms, eps=eps)
    rows = Split(cos, None), Split(sin, None), Split(length, None)
    return by_rows_and_heads(kernel, *k.shape[:2], Split(qkv, 2), Split(k), Split(v), *rows)


def _place(qkv, k, v, cos, sin, length, norms, eps):
    """The kernel over the rows and heads of one device."""
    batch, tokens, heads, parts, size = qkv.shape
    group, capacity = parts - 2, k.shape[2]
    last = jnp.clip(length, 0, capacity - tokens)  # as XLA moves a write that would pass the end

    def whole(row, head, token):
        return row, head, 0, 0

    def angle(row, head, token):
        return row, token, 0

    cache = pl.BlockSpec((None, None, capacity, size), whole)
    queries, keys, values = pl.pallas_call(
        functools.partial(_kernel, eps=eps),
        grid=(batch, heads, tokens),
        in_specs=[
            pl.BlockSpec((None, None, None, parts, size), lambda row, head, token: (row, token, head, 0, 0)),
            cache,
            cache,
            pl.BlockSpec((None, None, size), angle),
            pl.BlockSpec((None, None, size), angle),
            pl.BlockSpec((None,), lambda row, *_: (row,)),
            *(pl.BlockSpec((size,), lambda *_: (0,)) for _ in norms or ()),
        ],
        out_specs=[
            pl.BlockSpec((None, None, group, None, size), lambda row, head, token: (row, head, 0, token, 0)),
            cache,
            cache,
        ],
        out_shape=[
            jax.ShapeDtypeStruct((batch, heads, group, tokens, size), qkv.dtype),
            jax.ShapeDtypeStruct(k.shape, k.dtype),
            jax.ShapeDtypeStruct(v.shape, v.dtype),
        ],
        input_output_aliases={1: 1, 2: 2},
        compiler_params=plgpu.CompilerParams(num_warps=1, num_stages=1),
        interpret=interpreted(),
        name="rotate_and_write",
    )(qkv, k, v, cos, sin, last, *(norms or ()))
    return queries, keys, values


def _kernel(qkv, k_before, v_before, cos, sin, length, *rest, eps: float):
    """One token of one head. Refs: qkv [G + 2, H]; cos, sin [H]; the scales [H], if any; out q [G, H]; k and v [S, H]."""
    *norms, q, k, v = rest
    group, size = q.shape
    half = size // 2
    place = length[...] + pl.program_id(2)
    lower, upper = pl.ds(0, half), pl.ds(half, half)

    def rotated(row, scale):
        halves = [qkv[row, part].astype(jnp.float32) for part in (lower, upper)]
        if norms:
            inverse = jax.lax.rsqrt(sum(jnp.sum(jnp.square(each)) for each in halves) / size + eps)
            scales = (norms[scale][part].astype(jnp.float32) for part in (lower, upper))
            halves = [each * inverse * by for each, by in zip(halves, scales, strict=True)]
            halves = [each.astype(q.dtype).astype(jnp.float32) for each in halves]
        first, second = halves
        return first * cos[lower] + second * sin[lower], second * cos[upper] + first * sin[upper]

    for row in range(group):
        q[row, lower], q[row, upper] = (each.astype(q.dtype) for each in rotated(row, 0))
    k[place, lower], k[place, upper] = (each.astype(k.dtype) for each in rotated(group, 1))
    v[place, :] = qkv[group + 1, :].astype(v.dtype)
