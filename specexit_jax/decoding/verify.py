"""Acceptance as arithmetic on the columns of a verify step: column 0 is the root, columns 1..K are its drafts.

Results are per row, so no row's acceptance, end of thinking or stop depends on another row.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def accept(drafts: Int[Array, "B K"], sampled: Int[Array, "B T"]) -> Int[Array, " B"]:
    """The number of accepted drafts: the leading ones that equal the target's sample of their position (T = K + 1).

    sampled[:, i] is the sample of the position after column i, so it is compared with drafts[:, i], which is column i + 1.
    """
    equal = (drafts == sampled[:, :-1]).astype(jnp.int32)
    return jnp.sum(jnp.cumprod(equal, axis=1), axis=1)


def first_column(mask: Bool[Array, "B T"]) -> Int[Array, " B"]:
    """The first true column of each row; T where there is none."""
    columns = jnp.arange(mask.shape[1], dtype=jnp.int32)
    return jnp.min(jnp.where(mask, columns[None, :], jnp.int32(mask.shape[1])), axis=1)


def is_any_of(tokens: Int[Array, "..."], ids: tuple[int, ...]) -> Bool[Array, "..."]:
    """Whether each token is one of a few static ids."""
    found = jnp.zeros(tokens.shape, bool)
    for identifier in ids:
        found = found | (tokens == identifier)
    return found


def completes(tokens: Int[Array, "B T"], before: Int[Array, "B M"], sequence: tuple[int, ...]) -> Bool[Array, "B T"]:
    """Whether each column completes `sequence`. before: the len(sequence) - 1 tokens that precede column 0."""
    context = jnp.concatenate([before, tokens], axis=1)
    width = tokens.shape[1]
    found = jnp.ones(tokens.shape, bool)
    for offset, identifier in enumerate(sequence):
        found = found & (context[:, offset : offset + width] == identifier)
    return found


def exits_below(max_length, end_length: int):
    """The position below which the last token before an exit must lie, so that all ids of `</think>` fit below max_length.

    The loop, the slow oracle and replays share this limit. max_length: an int or an array.
    """
    return max_length - end_length


def impose(
    tokens: Int[Array, "B T"], positions: Int[Array, "B T"], start: Int[Array, " B"], sequence: tuple[int, ...]
) -> Int[Array, "B T"]:
    """Replaces the tokens at positions start .. start + len(sequence) - 1 by `sequence`; nothing where start is -1.

    An exit makes the first id of `</think>` the next root. Where `</think>` is several ids, the others are imposed on samples
    and on drafts, so that they are accepted whatever the number of drafts.
    """
    for offset, identifier in enumerate(sequence):
        forced = (start >= 0)[:, None] & (positions == (start + offset)[:, None])
        tokens = jnp.where(forced, jnp.int32(identifier), tokens)
    return tokens


def force_end(
    tokens: Int[Array, "B T"], positions: Int[Array, "B T"], exit_position: Int[Array, " B"], end_ids: tuple[int, ...]
) -> Int[Array, "B T"]:
    """Imposes the ids of `</think>` after an exit. A single id needs nothing: the exit makes it the root."""
    return tokens if len(end_ids) == 1 else impose(tokens, positions, exit_position, end_ids)
