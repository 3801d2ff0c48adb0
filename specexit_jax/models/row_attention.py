"""Attention of whole rows to themselves, without a cache: with a [T, T] mask ("plain"), or block by block ("fused").

Both give the same values and gradients. The plain form holds T x T scores per head in the backward pass, and an eighth
of them at a time in the forward pass. The fused form holds none of them; it is not faster where the square fits into
memory. So "auto" is fused for long rows only.
"""

import flax.struct
import jax
import jax.numpy as jnp

from specexit_jax.array_typing import Bias, Queries, Values
from specexit_jax.models.blockwise import attend_blockwise
from specexit_jax.models.layers import attend_causally, causal_bias

FUSED_FROM = 2048  # "auto": rows longer than this


@flax.struct.dataclass
class Sight:
    """The mask of the fused path: a token sees those before it in its segment (None: one segment) and window (0: no
    window)."""

    segment_ids: jax.Array | None
    window: int = flax.struct.field(pytree_node=False)


def row_mask(path: str, segment_ids: jax.Array | None, tokens: int, window: int = 0) -> Bias | Sight:
    """The mask of a call of T tokens, made once for all its layers; its type selects the path of `attend_rows`."""
    if path == "fused" or (path == "auto" and tokens > FUSED_FROM):
        return Sight(segment_ids, window)
    return causal_bias(segment_ids, tokens, window)


def attend_rows(q: Queries, k: Values, v: Values, mask: Bias | Sight, own: tuple = ()) -> Queries:
    """Attention of rows to themselves; keys [B, K, T, H] lie as values do. `own` is as for `layers.attend`."""
    if isinstance(mask, Sight):
        return attend_blockwise(q, k, v, mask.segment_ids, mask.window, own)
    return attend_causally(q, jnp.swapaxes(k, 2, 3), v, mask, own)
