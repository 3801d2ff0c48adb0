"""How whole rows attend to themselves, without a cache: over a mask of the square ("plain"), or block by block ("fused").

Both give the same values and gradients. The square's scores take T x T numbers a head, an eighth of it at a time, and their
gradient all of it; blocks take none, and are not quicker where the square fits. So "auto" is fused for long rows only.
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
    """What tokens of a row see, for the fused path: those before them in their segment (None: one) and window (0: none)."""

    segment_ids: jax.Array | None
    window: int = flax.struct.field(pytree_node=False)


def row_mask(path: str, segment_ids: jax.Array | None, tokens: int, window: int = 0) -> Bias | Sight:
    """The mask of a call of T tokens, made once for all its layers: `attend_rows` takes the path that it is made for."""
    if path == "fused" or (path == "auto" and tokens > FUSED_FROM):
        return Sight(segment_ids, window)
    return causal_bias(segment_ids, tokens, window)


def attend_rows(q: Queries, k: Values, v: Values, mask: Bias | Sight, own: tuple = ()) -> Queries:
    """Attention of rows to themselves; keys [B, K, T, H] lie as values do. `own` is as for `layers.attend`."""
    if isinstance(mask, Sight):
        return attend_blockwise(q, k, v, mask.segment_ids, mask.window, own)
    return attend_causally(q, jnp.swapaxes(k, 2, 3), v, mask, own)
