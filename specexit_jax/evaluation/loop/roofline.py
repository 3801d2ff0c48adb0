"""The bandwidth of this device, by which the bytes of an iteration (sizing/traffic.py) are its least time."""

import time

import jax
import jax.numpy as jnp


def copy_bandwidth(megabytes: int | None = None, tries: int = 10) -> float:
    """Bytes a second, read and written, of scaling an array in place; the best of some tries.

    megabytes: of the array; default 256 on a CPU, 1024 elsewhere: far beyond any cache.
    """
    megabytes = megabytes or (256 if jax.default_backend() == "cpu" else 1024)
    array = jnp.ones((megabytes * 2**18,), jnp.float32)
    size = array.nbytes
    scale = jax.jit(lambda x: x * jnp.float32(1.0000001), donate_argnums=0)
    best = float("inf")
    array = jax.block_until_ready(scale(array))
    for _ in range(tries):
        start = time.perf_counter()
        array = jax.block_until_ready(scale(array))
        best = min(best, time.perf_counter() - start)
    return 2 * size / best
