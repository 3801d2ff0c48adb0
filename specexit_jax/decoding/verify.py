"""What a verify step may keep, as arithmetic on columns: column 0 is the root, columns 1..K are its drafts.

Every function answers with a column or a count per row, so that a row's acceptance, end of thinking and stop never
depend on another row.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def accept(drafts: Int[Array, "B K"], sampled: Int[Array, "B T"]) -> Int[Array, " B"]:
    """How many drafts are kept: the leading ones that equal the keyed sample of their position (T = K + 1).

    sampled[:, i] is the token of the position after column i, so draft i is compared with sampled[:, i - 1].
    """
    equal = (drafts == sampled[:, :-1]).astype(jnp.int32)
    return jnp.sum(jnp.cumprod(equal, axis=1), axis=1)


def first_column(mask: Bool[Array, "B T"]) -> Int[Array, " B"]:
    """The first true column of each row, T where there is none."""
    columns = jnp.arange(mask.shape[1], dtype=jnp.int32)
    return jnp.min(jnp.where(mask, columns[None, :], jnp.int32(mask.shape[1])), axis=1)


def is_any_of(tokens: Int[Array, "..."], ids: tuple[int, ...]) -> Bool[Array, "..."]:
    """Whether each token is one of a few static ids."""
    found = jnp.zeros(tokens.shape, bool)
    for identifier in ids:
        found = found | (tokens == identifier)
    return found


def completes(tokens: Int[Array, "B T"], before: Int[Array, "B M"], sequence: tuple[int, ...]) -> Bool[Array, "B T"]:
    """Columns at which `sequence` is complete. before: the len(sequence) - 1 tokens that precede column 0."""
    context = jnp.concatenate([before, tokens], axis=1)
    width = tokens.shape[1]
    found = jnp.ones(tokens.shape, bool)
    for offset, identifier in enumerate(sequence):
        found = found & (context[:, offset : offset + width] == identifier)
    return found


def exits_below(max_length, end_length: int):
    """The position below which a token may be the last before an exit: all ids of `</think>` must fit behind it where there
    may be max_length tokens. So it is in the loop, in its oracle and in replays. Integers or arrays of them."""
    return max_length - end_length


def impose(
    tokens: Int[Array, "B T"], positions: Int[Array, "B T"], start: Int[Array, " B"], sequence: tuple[int, ...]
) -> Int[Array, "B T"]:
    """Replaces the tokens at positions start + 0 .. start + len(sequence) - 1 by `sequence`; start -1 replaces nothing.

    An exit forces `</think>` from its position on. Its first id becomes the next root; where `</think>` is several ids,
    imposing the rest on samples and drafts alike makes them accepted however few drafts a step verifies.
    """
    for offset, identifier in enumerate(sequence):
        forced = (start >= 0)[:, None] & (positions == (start + offset)[:, None])
        tokens = jnp.where(forced, jnp.int32(identifier), tokens)
    return tokens


def force_end(
    tokens: Int[Array, "B T"], positions: Int[Array, "B T"], exit_position: Int[Array, " B"], end_ids: tuple[int, ...]
) -> Int[Array, "B T"]:
    """Imposes the ids of `</think>` after the first (which the exit makes the root itself)."""
    return tokens if len(end_ids) == 1 else impose(tokens, positions, exit_position, end_ids)
