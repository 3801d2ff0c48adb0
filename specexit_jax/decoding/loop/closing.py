"""Finds the end of thinking where `</think>` is several ids, in the text of the tokens.

The ids can vary: a tokenizer may merge the first characters of `</think>` with the text before it, and the last ones with the
text after it (">\\n\\n"). So an automaton reads the text of the tokens. Its state is the number of characters of `</think>`
that the text so far ends in. A table holds the next state for every state and token. Where `</think>` is a single id, none of
this is used.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Int8

_FRESH = 16  # added to a next state in the table where all its characters belong to the token itself


def closing_table(texts: Sequence[str], ending: str) -> Int8[np.ndarray, "M V"]:
    """The automaton's table: [s, v] is the state after token v in state s.

    The state is len(ending) where the token completes `ending`. 16 is added where all characters of the state belong to token
    v. texts: of all V ids; an id without text leads to state 0. Raises ValueError if the first character of `ending` occurs in
    it twice: then one number of characters would not tell the state.
    """
    if ending.find(ending[0], 1) >= 0:
        raise ValueError(f"The first character of {ending!r} occurs in it again, which the search does not support.")
    length = len(ending)
    table = np.zeros((length, len(texts)), np.int8)
    for token, text in enumerate(texts):
        if ending[0] in text:
            begun = length if ending in text else _overlap(text, ending)
            table[:, token] = begun + _FRESH if begun else 0
        for state in range(1, length) if text and text[0] in ending else ():
            if text.startswith(ending[state:]):
                table[state, token] = length
            elif ending.startswith(text, state):
                table[state, token] = state + len(text)
    return table


def _overlap(text: str, ending: str) -> int:
    """The number of first characters of `ending` that a text ends in."""
    return next((n for n in range(min(len(ending) - 1, len(text)), 0, -1) if text.endswith(ending[:n])), 0)


def completes_text(
    tokens: Int[Array, "B T"], before: Int[Array, "B M"], table: Int8[Array, "M V"]
) -> tuple[Bool[Array, "B T"], Int[Array, "B T"]]:
    """(whether each column completes the text, the number of ids that the text then spans).

    before: the M tokens that precede column 0, -1 where there is none; the text may begin in them.
    """
    length = jnp.int32(table.shape[0])
    state = run = jnp.zeros(tokens.shape[:1], jnp.int32)
    complete, runs = [], []
    for token in jnp.concatenate([before, tokens], axis=1).T:
        step = jnp.where(token < 0, 0, table[state, jnp.maximum(token, 0)].astype(jnp.int32))
        following = step % _FRESH
        run = jnp.where(following == 0, 0, jnp.where(step >= _FRESH, 1, run + 1))
        complete.append(following == length)
        runs.append(run)
        state = jnp.where(following == length, 0, following)
    number = before.shape[1]
    return jnp.stack(complete[number:], axis=1), jnp.stack(runs[number:], axis=1)
