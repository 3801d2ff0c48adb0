"""A recurrence over the tokens of a sequence: its values, and its state after any number of tokens.

step(state, signals [B, S], boundary [B]) -> (state, value [B, S]).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Signals = Float[Array, "B T S"]
Boundary = Bool[Array, "B T"]
Count = Int[Array, " B"]

UNROLLED = 16  # up to this length (verify steps) it is unrolled into one kernel; above (replays) it is a lax.scan


def unfold(step, state, signals: Signals, boundary: Boundary):
    """(the states before and after every token, as leaves [B, T + 1, ...]; the values [B, T, S])."""
    length = signals.shape[1]
    if length <= UNROLLED:
        states, values = [state], []
        for t in range(length):
            state, value = step(state, signals[:, t], boundary[:, t])
            states.append(state)
            values.append(value)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *states), jnp.stack(values, axis=1)

    def body(carry, column):
        carry, value = step(carry, *column)
        return carry, (carry, value)

    columns = (jnp.moveaxis(signals, 1, 0), jnp.moveaxis(boundary, 1, 0))
    _, (states, values) = jax.lax.scan(body, state, columns)
    join = lambda before, after: jnp.concatenate([before[:, None], jnp.moveaxis(after, 0, 1)], axis=1)  # noqa: E731
    return jax.tree.map(join, state, states), jnp.moveaxis(values, 0, 1)


def state_after(states, count: Count):
    """The state of each row after its first `count[b]` tokens."""

    def pick(leaf: Array) -> Array:
        index = count.reshape(count.shape + (1,) * (leaf.ndim - 1))
        return jnp.take_along_axis(leaf, index, axis=1)[:, 0]

    return jax.tree.map(pick, states)
