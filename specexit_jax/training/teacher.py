"""The draft's teacher: one pass of the frozen target, reduced to the draft's vocabulary."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from specexit_jax.backend import rows_apart
from specexit_jax.models.config import TargetConfig
from specexit_jax.models.target import Target
from specexit_jax.training.chunks import map_chunks
from specexit_jax.training.vocabulary import likeliest, logits_apart, rows_together, with_head_apart

OUTSIDE = -1  # the id of tokens outside the draft vocabulary
STORED = ("features", "hidden", "logsumexp", "top")  # the outputs of a target's pass that a teacher is made from


@flax.struct.dataclass
class Teacher:
    """A row's teacher. Position t sees tokens 0 .. t; `hidden`, `logsumexp` and `top` are about token t + 1.

    features [B, T, A] and embedded [B, T, D] of token t; Logits on the draft vocabulary are hidden [B, T, D] (final,
    normed) times head [D, W]; they are computed only where needed, because for a row of 32,768 tokens and 32,000 ids
    they take 4.2 GB. logsumexp float32 [B, T]: of the whole vocabulary's logits / temperature. top, tokens int32 [B,
    T]: the argmax, and token t itself, as draft ids or OUTSIDE.
    """

    features: jax.Array
    embedded: jax.Array
    hidden: jax.Array
    head: jax.Array
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
    """The teacher of a batch: from a forward pass, or from an earlier pass's results in the batch (`feature_store`)."""
    seen = batch if "hidden" in batch else target_pass(target, params, batch, temperature, chunk)
    return teacher_from(target.config, params, d2t, batch["tokens"], *(seen[name] for name in STORED))


def target_pass(
    target: Target, params: dict, batch: dict[str, jax.Array], temperature: float = 1.0, chunk: int = 1024
) -> dict[str, jax.Array]:
    """The arrays STORED for every token (see `teacher_from`). Full-vocabulary logits exist for `chunk` tokens of a row
    at a time.

    At temperature 0, logsumexp is that of temperature 1, and expected acceptance is the greedy acceptance.
    """
    tokens, segments = batch["tokens"], batch["segment_ids"]
    out = target.apply({"params": params}, tokens, batch["positions"], segment_ids=segments, logits=False)
    headed, size = with_head_apart(target.config, params), target.config.vocab_size

    def reduce(hidden: jax.Array):
        logits = logits_apart(target.apply({"params": headed}, rows_together(hidden, size), method="head"))
        whole = jax.nn.logsumexp(logits / (temperature or 1.0), axis=-1)
        return rows_apart(whole), rows_apart(likeliest(logits))

    return dict(zip(STORED, (out.features, out.hidden, *map_chunks(reduce, chunk, out.hidden)), strict=True))


def teacher_from(
    config: TargetConfig,
    params: dict,
    d2t: jax.Array,
    tokens: jax.Array,
    features: jax.Array,
    hidden: jax.Array,
    logsumexp: jax.Array,
    top: jax.Array,
) -> Teacher:
    """The teacher from the outputs of a target's pass for each token: features [B, T, A], final normed hidden [B, T,
    D], logsumexp float32 [B, T] at the sampler's temperature, and top int32 [B, T], the likeliest next token as a
    target id.

    params: the target's; only the embedding table and the head are read.
    """
    to_draft = draft_ids(d2t, config.vocab_size)
    table = params["embed"]["embedding"]
    embedded = jnp.take(table, tokens, axis=0, mode="clip").astype(config.dtype)
    ids = d2t if len(d2t) < config.vocab_size else slice(None)  # a whole vocabulary is in order (`check_vocabulary`)
    head = table[ids].T if config.tie_embeddings else params["lm_head"][:, ids]
    taught = Teacher(features, embedded, hidden, head.astype(config.dtype), logsumexp, to_draft[top], to_draft[tokens])
    return jax.lax.stop_gradient(taught)
