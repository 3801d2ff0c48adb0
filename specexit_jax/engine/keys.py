"""The random keys of requests. A request's noise depends on its seed, its id and the position alone."""

import hashlib
import operator
from collections.abc import Sequence

import jax
import numpy as np

from specexit_jax.decoding.sampling import PRNG, Sampling

NOISE = "blake2b-64"  # how keys are made, as reports of sampled rows record it; "crc32" before that was recorded


def noise_of(sampling: Sampling) -> dict[str, str]:
    """What a report records of the noise that its rows were sampled with, so that rows of two kinds are not mixed."""
    return {} if sampling.greedy else {"noise": NOISE}


def request_keys(ids: Sequence[str], seeds: Sequence[int]) -> jax.Array:
    """Typed PRNG keys [B] of `key_words`."""
    return jax.random.wrap_key_data(key_words(ids, seeds), impl=PRNG)


def key_words(ids: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
    """The words uint32 [B, 2] of the requests' keys: 64 bits of BLAKE2b over (seed, id). A seed is any integer.

    64 bits, since 32 would give about five pairs of 200,000 ids the same noise. Raises ValueError on another seed.
    """
    digests = [hashlib.blake2b(_named(*pair), digest_size=8).digest() for pair in zip(ids, seeds, strict=True)]
    return np.frombuffer(b"".join(digests), "<u4").astype(np.uint32).reshape(-1, 2)


def _named(name: str, seed: int) -> bytes:
    try:
        return f"{operator.index(seed)}/{name}".encode(errors="surrogatepass")
    except TypeError as error:
        raise ValueError(f"The seed of request {name!r} must be an integer, but it is {seed!r}.") from error
