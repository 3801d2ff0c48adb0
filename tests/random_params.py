"""Random parameters from numpy: nothing is compiled, and biases and norms are not constants, which could hide a forgotten one."""

import jax
import numpy as np


def random_params(init, config, seed: int) -> dict:
    """Parameters shaped as `init(config, key)` makes them: vectors near 1, kernels of unit gain."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        noise = rng.normal(size=leaf.shape).astype(leaf.dtype)
        return 1 + noise / 4 if leaf.ndim == 1 else noise / 4

    shapes = jax.eval_shape(lambda key: init(config, key), jax.random.key(0))
    return jax.tree.map(lambda leaf: jax.numpy.asarray(draw(leaf)), shapes)
