"""Decoding attention on GPUs whose cost follows each row's own length: a Pallas (Triton) kernel that reads the cache in place.

Flash decoding: the positions of a row are shared by several programs of the kernel, each with an online softmax of its own, so
that few rows fill the device; what they found is merged by the log-sum-exp. Scores stay on chip. A block of positions past a
row's length is neither read nor computed. Opt-in (`attention="pallas"` of a config): it compiles for an H100, and interpreted
on CPU it equals `layers.attend`, but no GPU has run it yet.

Of JAX's own kernels `pallas.ops.gpu.decode_attention` knows no mask among the call's own tokens (a tree needs any), rounds the
parts to bfloat16 before they are merged, and would leave those tokens to three kernels more. cuDNN's compiles on a device only.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float32

from specexit_jax.array_typing import Lengths, Queries, Values, typed
from specexit_jax.backend import interpreted, platform
from specexit_jax.models.by_device import MOST_TOKENS, Split, by_rows_and_heads

_PROGRAMS = 264  # two for each multiprocessor of an H100
_ROWS = (16, 64)  # queries of a program: the least that a matrix unit takes, and the most whose sums stay in registers
_BLOCK = 64  # positions of a block
_LOWEST = -1e38  # finite, and below any masked score


def in_split(kernel: str, tokens: int, mask: Any) -> bool:
    """Whether a call of so many tokens over a cache, with this mask, is computed here. kernel: a config's `attention`."""
    return kernel == "pallas" and platform() == "gpu" and tokens <= MOST_TOKENS and isinstance(mask, jax.Array)


@typed
def attend_split(q: Queries, k: Values, v: Values, bias: Float32[Array, "B T R"], length: Lengths) -> Queries:
    """`layers.attend` over the first length[b] (1 .. S) positions of each row; what lies past them has no influence.

    Keys lie like values. bias: over the first R positions, at least as many as the longest row's. Under a mesh every device
    attends with its own rows and heads. Raises ValueError where H is no power of two or S no multiple of 16.
    """
    size, capacity = q.shape[-1], k.shape[2]
    if size & (size - 1) or size < 16:
        raise ValueError(f"attention='pallas' on a GPU needs heads of 16, 32, 64, ... numbers, not {size}: use 'xla'.")
    if capacity % 16:
        raise ValueError(f"attention='pallas' on a GPU needs caches of a multiple of 16 positions, not {capacity}.")
    rows = Split(bias, None), Split(length, None)
    return by_rows_and_heads(_attend, *q.shape[:2], Split(q), Split(k), Split(v), *rows)


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, length: jax.Array) -> jax.Array:
    """The kernel over the rows and heads of one device, and the merge of its parts."""
    batch, heads, group, tokens, size = q.shape
    capacity, folded = k.shape[2], group * tokens
    block = min(_BLOCK, capacity & -capacity)
    rows = min(max(_ROWS[0], pl.next_power_of_2(folded)), _ROWS[1])
    bands = pl.cdiv(folded, rows)
    splits = min(pl.cdiv(_PROGRAMS, batch * heads * bands), capacity // block)

    q = jnp.pad(q.reshape(batch, heads, folded, size), ((0, 0), (0, 0), (0, bands * rows - folded), (0, 0)))

    found = pl.pallas_call(
        functools.partial(_kernel, tokens=tokens, block=block),
        grid=(batch, heads, bands, splits),
        in_specs=[
            pl.BlockSpec((None,), lambda row, *_: (row,)),
            pl.BlockSpec((None, None, rows, size), lambda row, head, band, split: (row, head, band, 0)),
            pl.BlockSpec((None, None, capacity, size), lambda row, head, *_: (row, head, 0, 0)),
            pl.BlockSpec((None, None, capacity, size), lambda row, head, *_: (row, head, 0, 0)),
            pl.BlockSpec((None, tokens, bias.shape[2]), lambda row, *_: (row, 0, 0)),
        ],
        out_specs=[
            pl.BlockSpec((None, None, None, rows, size), lambda row, head, band, split: (row, head, split, band, 0)),
            pl.BlockSpec((None, None, None, rows), lambda row, head, band, split: (row, head, split, band)),
            pl.BlockSpec((None, None, None, rows), lambda row, head, band, split: (row, head, split, band)),
        ],
        out_shape=[
            jax.ShapeDtypeStruct((batch, heads, splits, *q.shape[2:]), jnp.float32),
            jax.ShapeDtypeStruct((batch, heads, splits, q.shape[2]), jnp.float32),
            jax.ShapeDtypeStruct((batch, heads, splits, q.shape[2]), jnp.float32),
        ],
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=2),
        interpret=interpreted(),
        name="split_attention",
    )(jnp.clip(length, 1, capacity), q, k, v, bias)
    mixed, top, total = found
    # Split by split, not reduced over them: a reduction would be a kernel of its own.
    highest = functools.reduce(jnp.maximum, (top[:, :, i] for i in range(splits)))
    weights = [jnp.exp(top[:, :, i] - highest) for i in range(splits)]
    total = sum(total[:, :, i] * weight for i, weight in enumerate(weights))
    merged = sum(mixed[:, :, i] * weight[..., None] for i, weight in enumerate(weights)) / total[..., None]
    return merged[:, :, :folded].reshape(batch, heads, group, tokens, size).astype(q.dtype)


def _kernel(length, q, k, v, bias, mixed, top, total, *, tokens: int, block: int):
    """What the queries of one band find in one split of a row's positions.

    Refs: q [N, H], of query n token n mod T; k and v [S, H]; bias [T, R]; mixed [N, H], top and total [N]: the weighted values, the
    highest score and the sum of the weights. A split without positions finds nothing, at a score that is below all others.
    """
    rows, size = q.shape
    band, split = pl.program_id(2), pl.program_id(3)
    live = length[...]
    begin, steps = blocks_of(split, pl.num_programs(3), live, block)
    token = jax.lax.rem(band * rows + jnp.arange(rows, dtype=jnp.int32), jnp.int32(tokens))
    asked = q[...]

    def visit(step, carry):
        top, total, mixed = carry
        first = (begin + step) * block
        place = first + jnp.arange(block, dtype=jnp.int32)
        inside = place < live
        keys = k[pl.ds(first, block), :]
        values = plgpu.load(
            v.at[pl.ds(first, block), :], mask=inside[:, None], other=0.0
        )  # what lies past a row may be NaN
        scores = _product(asked, keys.T) * size**-0.5
        near = jnp.minimum(place, live - 1)
        scores = scores + plgpu.load(bias.at[token[:, None], near[None, :]])
        scores = jnp.where(inside[None, :], scores, -jnp.inf)
        now = jnp.maximum(top, jnp.max(scores, axis=1))
        weights, decay = jnp.exp(scores - now[:, None]), jnp.exp(top - now)
        share_of = _product(weights.astype(values.dtype), values)
        return now, total * decay + jnp.sum(weights, axis=1), mixed * decay[:, None] + share_of

    nothing = jnp.zeros((rows,), jnp.float32)
    start = nothing + _LOWEST, nothing, jnp.zeros((rows, size), jnp.float32)
    top[...], total[...], mixed[...] = jax.lax.fori_loop(0, steps, visit, start)


def blocks_of(split: jax.Array, splits: int, live: jax.Array, block: int) -> tuple[jax.Array, jax.Array]:
    """(the first block of a split, their number) where all splits share the blocks of the first `live` positions."""
    blocks = pl.cdiv(live, jnp.int32(block))
    share = pl.cdiv(blocks, jnp.int32(splits))
    return split * share, jnp.clip(blocks - split * share, 0, share)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """a @ b summed in float32; of float32 numbers without rounding them to the matrix unit's own format."""
    return plgpu.dot(a, b, allow_tf32=False if a.dtype == jnp.float32 else None)
