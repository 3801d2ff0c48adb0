"""Fits the exit score: statistics at the boundaries of annotated traces, and whether the answers forced there agree."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from specexit_jax.exits.score import ScoreNetwork


class CannotFit(ValueError):
    """There is nothing to fit an exit score to."""


@dataclasses.dataclass(frozen=True)
class ScoreFit:
    """hidden: units of the network. epochs, batch_size, learning_rate, weight_decay: of AdamW, with a cosine decay to 0. seed:
    of the first weights and of the order of boundaries. Raises ValueError on sizes below 1."""

    hidden: int = 64
    epochs: int = 80
    batch_size: int = 512
    learning_rate: float = 3e-3
    weight_decay: float = 3e-2
    seed: int = 0

    def __post_init__(self):
        for name in ("hidden", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of the exit score must be at least 1, not {getattr(self, name)}.")


def fit_score(statistics: Float[np.ndarray, "N F"], agree: Float[np.ndarray, " N"], fit: ScoreFit) -> ScoreNetwork:
    """The network with the least cross entropy on N boundaries. agree: 0 or 1, or the share of forced answers that agree.

    Raises CannotFit where all boundaries agree alike.
    """
    if len(agree) == 0 or np.ptp(agree) == 0:
        raise CannotFit(
            f"An exit score needs boundaries that agree and others that do not, but all {len(agree)} are alike."
        )
    centre, spread = statistics.mean(axis=0), statistics.std(axis=0)
    spread = np.where(spread > 1e-6, spread, 1.0)  # a statistic that never changes tells nothing
    key, width = jax.random.key(fit.seed), statistics.shape[1]
    network = ScoreNetwork(
        centre=jnp.asarray(centre, jnp.float32),
        spread=jnp.asarray(spread, jnp.float32),
        weights=jax.random.normal(key, (width, fit.hidden), jnp.float32) * jnp.float32(width**-0.5),
        bias=jnp.zeros((fit.hidden,), jnp.float32),
        out=jnp.zeros((fit.hidden + 1,), jnp.float32),
    )
    size = min(fit.batch_size, len(agree))
    batches = len(agree) // size
    schedule = optax.cosine_decay_schedule(fit.learning_rate, fit.epochs * batches)
    optimizer = optax.adamw(schedule, weight_decay=fit.weight_decay)
    trained = {name: getattr(network, name) for name in ("weights", "bias", "out")}
    state, rng = optimizer.init(trained), np.random.default_rng(fit.seed)
    known, wanted = jnp.asarray(statistics, jnp.float32), jnp.asarray(agree, jnp.float32)
    for _ in range(fit.epochs):
        order = rng.permutation(len(agree))[: batches * size].reshape(batches, size)
        trained, state = _epoch(optimizer.update, trained, state, network, known, wanted, jnp.asarray(order, jnp.int32))
    return network.replace(**trained)


@functools.partial(jax.jit, static_argnums=0)
def _epoch(update, trained: dict, state, network: ScoreNetwork, statistics, agree, order):
    """One pass over the boundaries; order: int [batches, batch size]."""

    def loss(trained: dict, rows):
        logits = network.replace(**trained).logits(statistics[rows])
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, agree[rows]))

    def body(carry, rows):
        trained, state = carry
        gradients = jax.grad(loss)(trained, rows)
        with jax.numpy_dtype_promotion("standard"):  # optax multiplies floats and counts
            updates, state = update(gradients, state, trained)
        return (optax.apply_updates(trained, updates), state), None

    return jax.lax.scan(body, (trained, state), order)[0]
