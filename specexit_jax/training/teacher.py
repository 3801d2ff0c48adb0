"""What the draft learns from: one frozen pass of the target, reduced to the draft's vocabulary."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from specexit_jax.models.target import Target

OUTSIDE = -1  # a token that the draft vocabulary lacks


@flax.struct.dataclass
class Teacher:
    """A row's teacher. Position t sees tokens 0 .. t; `logits`, `logsumexp` and `top` are about token t + 1.

    features [B, T, 3D] and embedded [B, T, D] of token t; logits float32 [B, T, W] on the draft vocabulary only;
    logsumexp float32 [B, T] of the whole vocabulary's logits / temperature; top, tokens int32 [B, T]: the argmax, and the
    token t itself, as draft ids or OUTSIDE.
    """

    features: jax.Array
    embedded: jax.Array
    logits: jax.Array
    logsumexp: jax.Array
    top: jax.Array
    tokens: jax.Array


def draft_ids(d2t: jax.Array, vocab_size: int) -> jax.Array:
    """int32[V]: the draft id of every target id, or OUTSIDE."""
    table = jnp.full((vocab_size,), OUTSIDE, jnp.int32)
    return table.at[d2t].set(jnp.arange(len(d2t), dtype=jnp.int32))


def run_teacher(
    target: Target,
    params: dict,
    batch: dict[str, jax.Array],
    d2t: jax.Array,
    temperature: float = 1.0,
    chunk: int = 1024,
) -> Teacher:
    """One forward pass; the full-vocabulary logits exist for `chunk` tokens of a row at a time, never for all of them.

    At temperature 0 logsumexp is that of temperature 1; expected acceptance is then the greedy one.
    """
    config = target.config
    to_draft = draft_ids(d2t, config.vocab_size)
    tokens, segments = batch["tokens"], batch["segment_ids"]
    out = target.apply({"params": params}, tokens, batch["positions"], segment_ids=segments, logits=False)

    def reduce(hidden: jax.Array):
        logits = target.apply({"params": params}, hidden, method="head")
        whole = jax.nn.logsumexp(logits / (temperature or 1.0), axis=-1)
        return jnp.take(logits, d2t, axis=-1), whole, to_draft[jnp.argmax(logits, axis=-1)]

    reduced = _map_chunks(reduce, out.hidden, chunk)
    embedded = jnp.take(params["embed"]["embedding"], tokens, axis=0, mode="clip").astype(config.dtype)
    return jax.lax.stop_gradient(Teacher(out.features, embedded, *reduced, to_draft[tokens]))


def _map_chunks(function, hidden: jax.Array, chunk: int):
    """`function` over hidden [B, T, D], `chunk` tokens at a time, one after the other."""
    batch, tokens, size = hidden.shape
    if tokens <= chunk:
        return function(hidden)
    count = -(-tokens // chunk)
    padded = jnp.pad(hidden, ((0, 0), (0, count * chunk - tokens), (0, 0)))
    parts = jnp.moveaxis(padded.reshape(batch, count, chunk, size), 1, 0)
    joined = jax.lax.map(function, parts)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(batch, -1, *x.shape[3:])[:, :tokens], joined)
