"""The end of thinking where `</think>` is several ids: found in the text that the tokens make, whichever tokens they are.

Its first id may be merged with what stands before it and its last with what follows (">\\n\\n"). An automaton reads the
tokens' texts: its state is how many characters of `</think>` the text so far ends in, a token leads from each state to the
next, and a table over tokens holds these steps. A `</think>` that is one id of its own needs none of this.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Int8

_FRESH = 16  # added to a step's next state where the characters of that state all lie within the token


def closing_table(texts: Sequence[str], ending: str) -> Int8[np.ndarray, "M V"]:
    """[s, v]: the state after token v from state s, len(ending) where it completes `ending`; plus 16 where nothing of what
    came before is part of it.

    texts: of every id; one without text begins anew. The first character of `ending` may not occur in it again.
    """
    if ending.find(ending[0], 1) >= 0:
        raise ValueError(f"{ending!r} begins anew within itself.")
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
    """How many characters of `ending` a text ends in."""
    return next((n for n in range(min(len(ending) - 1, len(text)), 0, -1) if text.endswith(ending[:n])), 0)


def completes_text(
    tokens: Int[Array, "B T"], before: Int[Array, "B M"], table: Int8[Array, "M V"]
) -> tuple[Bool[Array, "B T"], Int[Array, "B T"]]:
    """Columns at which the text is complete, and over how many ids it then reaches.

    before: the tokens that precede column 0, as many as the table has states (-1: none): what they begin may end here.
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
