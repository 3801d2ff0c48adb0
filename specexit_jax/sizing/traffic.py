"""The bytes that one iteration of the decoding loop must move: its floor is these over the device's bandwidth.

When a few rows are decoded, reading weights and caches dominates the arithmetic. Bytes of one iteration, with s those
of a number, B rows of n live tokens each, T tokens verified a row, L layers of K key/value heads of size H: verify  s
(target parameters, an untied table of tokens left out + B T D of it) + s 2 L K H B (n + T)
  draft   s (`fc`, signals + passes x (the layer and its head)) + s B D (tokens looked up) + s 2 K H B (n passes + tokens)
Of each cache the live tokens are read and the new ones written. A chain of K drafts takes K passes of the draft (the
first over T pairs), a tree its depth. A draft without a head of its own reads the target's whole head in every pass.
Activations and logits, which fit in fast memory, count as nothing.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from specexit_jax.decoding.spec import DecodeSpec
from specexit_jax.sizing.random_weights import draft_shapes, target_shapes


class Traffic(NamedTuple):
    """Bytes of one iteration."""

    verify: int
    draft: int

    @property
    def whole(self) -> int:
        return self.verify + self.draft


def traffic(spec: DecodeSpec, batch: int, live: float) -> Traffic:
    """What an iteration of `spec` must move for rows of `live` tokens on average."""
    target, tokens = spec.target, spec.drafted + 1
    size = jnp.dtype(target.dtype).itemsize
    weights = target_shapes(target)
    table = 0 if target.tie_embeddings else bytes_of(weights["embed"])
    looked_up = size * batch * tokens * target.hidden_size
    cached = size * 2 * target.num_layers * target.num_kv_heads * target.head_dim * batch
    verify = bytes_of(weights) - table + looked_up + cached * (live + tokens)
    return Traffic(round(verify), round(_of_draft(spec, batch, live)))


def bytes_of(tree: Any) -> int:
    """Bytes of all arrays (or shapes) of a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _of_draft(spec: DecodeSpec, batch: int, live: float) -> float:
    if not spec.draft_tokens:
        return 0
    draft, passes = spec.draft, spec.draft_tokens
    size = jnp.dtype(draft.dtype).itemsize
    weights = draft_shapes(draft)
    once = bytes_of([weights[name] for name in ("fc", "signal_head") if name in weights])
    again = bytes_of(weights) - once - bytes_of(weights.get("embed", ()))
    tokens = spec.draft_tokens + 1 + (spec.tree.top_k if spec.tree else 1) * (passes - 1)
    cached = size * 2 * draft.num_kv_heads * draft.head_dim * batch
    looked_up = size * batch * tokens * spec.target.hidden_size
    if not draft.own_head:
        again += size * draft.hidden_size * draft.draft_vocab_size
    return once + passes * again + looked_up + cached * (live * passes + tokens)
