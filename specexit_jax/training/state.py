"""The state that a training run carries from step to step."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """params, optimizer state and the number of updates made (int32), which is also the position in the data.

    extra: further state of a step function (GradNorm's averaged weights), () for most.
    """

    params: Any
    opt_state: Any
    step: jax.Array
    extra: Any = ()


def init_state(params: Any, optimizer: optax.GradientTransformation, extra: Any = ()) -> TrainState:
    """A fresh state around `params`, which it does not copy (a donating step will consume them)."""
    return TrainState(params=params, opt_state=optimizer.init(params), step=jnp.zeros((), jnp.int32), extra=extra)


def apply_gradients(state: TrainState, gradients: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """One update of params; strict dtype promotion is lifted for Optax alone, whose bias correction needs int ** float."""
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    return state.replace(params=optax.apply_updates(state.params, updates), opt_state=opt_state, step=state.step + 1)
