"""Decoding attention whose cost follows each row's own length: a Pallas kernel for TPU that reads the cache in place.

A block of positions past a row's length is neither fetched nor computed, whatever the buffer size and the other rows; plain
XLA reads one static prefix of all rows. Opt-in (`attention="pallas"` of a config): no measurement has yet preferred it
to XLA. It has only been compiled for TPU (v5e), and interpreted on CPU, where tests hold it equal to `layers.attend`.
In the loop compiled for qwen3-4b it reads every cache where it lies; with 8 rows (not with one) plain XLA copies all
keys in every iteration, to have their positions on the other axis of a tile. Values of heads below 128 are padded to a
tile's lanes.

None of JAX's own kernels fits. pallas.ops.tpu's paged_attention, ragged_paged_attention and flash attention all want keys with
their positions before H (a transposed copy of the cache in every step), and the ragged ones know one token a row or the causal
order, where a tree needs any mask among its last tokens.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float32

from specexit_jax.array_typing import Keys, Lengths, Queries, Values, typed
from specexit_jax.backend import interpreted, platform
from specexit_jax.models.by_device import Split, by_rows_and_heads

_BLOCK_BYTES = 2**21  # bytes of keys and values per block: long copies which, double-buffered, leave room for scores
# Of a tile. A cache whose capacity is a multiple of the lanes has the layout that the kernel needs.
LANES, _SUBLANES = 128, 8


@typed
def attend_ragged(q: Queries, k: Keys, v: Values, bias: Float32[Array, "B T R"], length: Lengths) -> Queries:
    """`layers.attend` over the first length[b] (1 .. S) positions of each row; positions past them have no influence at all.

    bias: as for `attend`, over the first R positions, at least as many as the longest row's. Under a mesh every device
    attends with its own rows and heads. Raises ValueError on GPUs, which have a kernel of their own (`split_attention`).
    """
    if platform() not in ("cpu", "tpu"):
        raise ValueError(f"attention='pallas' is a kernel for TPU, and this is {platform()}: see split_attention.")
    rows = Split(bias, None), Split(length, None)
    return by_rows_and_heads(_attend, *q.shape[:2], Split(q), Split(k), Split(v), *rows)


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, length: jax.Array) -> jax.Array:
    """The kernel over the rows and heads of one device."""
    batch, heads, group, tokens, size = q.shape
    capacity = v.shape[2]
    block = block_of(capacity, heads * size * (k.dtype.itemsize + v.dtype.itemsize))
    more = -tokens % _SUBLANES  # so that (group, tokens) fold into rows without moving a number
    q = jnp.pad(q * jnp.asarray(size**-0.5, q.dtype), ((0, 0), (0, 0), (0, 0), (0, more), (0, 0)))
    bias = jnp.pad(bias, ((0, 0), (0, more), (0, capacity - bias.shape[2])))
    folded = group * (tokens + more)
    length = jnp.clip(length, 1, capacity)
    if platform() == "tpu":  # otherwise the compiler may copy a whole buffer into fast memory before the kernel
        k, v = (pltpu.with_memory_space_constraint(x, pltpu.HBM) for x in (k, v))

    def own(row, step, length):
        """The block of a step. Past a row's last block it is that block again, which is not fetched a second time."""
        return jnp.minimum(step, jax.lax.div(length[row] - 1, jnp.int32(block)))

    whole = pl.BlockSpec((1, heads, folded, size), lambda row, step, length: (row, 0, 0, 0))
    out = pl.pallas_call(
        functools.partial(_kernel, block=block, group=group),
        out_shape=jax.ShapeDtypeStruct((batch, heads, folded, size), q.dtype),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(batch, jax.lax.div(jnp.max(length) - 1, jnp.int32(block)) + 1),
            in_specs=[
                whole,
                pl.BlockSpec((1, heads, size, block), lambda row, step, length: (row, 0, 0, own(row, step, length))),
                pl.BlockSpec((1, heads, block, size), lambda row, step, length: (row, 0, own(row, step, length), 0)),
                pl.BlockSpec((1, tokens + more, block), lambda row, step, length: (row, 0, own(row, step, length))),
            ],
            out_specs=whole,
            scratch_shapes=[
                pltpu.VMEM((heads, folded, 1), jnp.float32),
                pltpu.VMEM((heads, folded, 1), jnp.float32),
                pltpu.VMEM((heads, folded, size), jnp.float32),
            ],
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=interpreted(),
        name="ragged_attention",
    )(length, q.reshape(batch, heads, folded, size), k, v, bias)
    return out.reshape(batch, heads, group, tokens + more, size)[:, :, :, :tokens]


def block_of(capacity: int, position_bytes: int) -> int:
    """Positions per block: as many of `position_bytes` each as fit into _BLOCK_BYTES, in whole lanes; all positions if they fit at
    once."""
    fitting = 1 << (max(_BLOCK_BYTES // position_bytes, LANES).bit_length() - 1)
    return min(fitting, 8 * LANES, capacity)


def _kernel(length, q, k, v, bias, out, top, total, mixed, *, block: int, group: int):
    """One block of one row, all heads: its share of the online softmax, rescaled when the maximum score rises.

    Blocks: q, out [1, K, R, H], k [1, K, H, block], v [1, K, block, H], bias [1, R / group, block]; carried over
    blocks: the maximum score and the total weight [K, R, 1] and the weighted values [K, R, H], float32.
    """
    row, step = pl.program_id(0), pl.program_id(1)
    last = jax.lax.div(length[row] - 1, jnp.int32(block))

    @pl.when(step == 0)
    def _():
        top[...] = jnp.full_like(top, -jnp.inf)
        total[...] = jnp.zeros_like(total)
        mixed[...] = jnp.zeros_like(mixed)

    def visit(ends: bool):
        for head in range(q.shape[1]):
            values = v[0, head]
            scores = _product(q[0, head], k[0, head]).reshape(group, -1, block) + bias[...]
            scores = scores.reshape(-1, block)
            if ends:  # positions past the row's length may hold anything, also NaN
                left = length[row] - step * block
                scores = jnp.where(jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1) < left, scores, -jnp.inf)
                held = jax.lax.broadcasted_iota(jnp.int32, values.shape, 0) < left
                values = jnp.where(held, values.astype(jnp.float32), jnp.float32(0)).astype(values.dtype)
            before = top[head]
            now = jnp.maximum(before, jnp.max(scores, axis=1, keepdims=True))
            weights, decay = jnp.exp(scores - now), jnp.exp(before - now)
            top[head] = now
            total[head] = total[head] * decay + jnp.sum(weights, axis=1, keepdims=True)
            mixed[head] = mixed[head] * decay + _product(weights.astype(values.dtype), values)

    pl.when(step < last)(lambda: visit(False))

    @pl.when(step == last)
    def _():
        visit(True)
        out[0] = (mixed[...] / total[...]).astype(out.dtype)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """a @ b summed in float32. A product of bfloat16 has only one precision."""
    precision = None if a.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
    return jnp.dot(a, b, precision=precision, preferred_element_type=jnp.float32)
