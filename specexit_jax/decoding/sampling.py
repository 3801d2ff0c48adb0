"""Position-keyed sampling: a token depends on its request's key, its position and its logits, and on nothing else.

token_t = argmax(filter(logits_t / temperature) + Gumbel(fold_in(request_key, t)))        (docs/method.md §3)

The generator and the mode of the Gumbel noise are fixed here, not left to JAX's defaults. With the generator `rbg` a row's
noise would depend on the other rows of the batch. The mode "low" would cut the noise off at 15.9, so that unlikely tokens of a
large vocabulary were never sampled; the mode "high" reaches 32.

Position t gets the same noise whichever tokens a verify step covers, whichever rows share the batch and whatever the draft
proposed. So `think`, `eagle3` and the prefix of `specexit` are the same tokens at any temperature. With the rule "rejection"
their tokens have the same distribution instead (rejection.py).
"""

import dataclasses
import functools
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from specexit_jax.backend import platform
from specexit_jax.decoding.gumbel import gumbel_at
from specexit_jax.models.layers import reduce_last

RULES = ("keyed", "rejection")
PRNG = "threefry2x32"  # of every key
# Keeps logits / temperature within float32; below COLDEST noise cannot change the argmax.
COLDEST, HOTTEST = 1e-30, 1e30
LEAST_MASS = np.finfo(np.float32).tiny  # of top_p, below which float32 has 0 and no token would reach it
DRAFT, ACCEPT, RESIDUAL = 1, 2, 3  # purposes of the random numbers that rejection sampling draws for one position


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. temperature 0, or below COLDEST, is greedy; top_k 0, top_p 1 and min_p 0 filter nothing.

    min_p: the least probability of a kept token, as a fraction of the most likely one's. repetition_penalty: for the tokens
    before a position (penalty.py); 1 is none, and it also applies to greedy decoding. rule: how drafts are accepted. "keyed":
    a draft is accepted if it equals the target's keyed sample of its position. "rejection": drafts are sampled from the
    draft's distribution and accepted by rejection sampling. Raises ValueError on values out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    rule: str = "keyed"
    repetition_penalty: float = 1.0

    def __post_init__(self):
        if not 0 <= self.temperature <= HOTTEST:
            raise ValueError(f"temperature must be between 0 (greedy) and {HOTTEST:g}, but it is {self.temperature}.")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (keep all) or more, but it is {self.top_k}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], but it is {self.top_p}.")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be in [0, 1], but it is {self.min_p}.")
        if not self.repetition_penalty > 0:
            raise ValueError(f"repetition_penalty must be above 0 (1 is none), but it is {self.repetition_penalty}.")
        if not COLDEST <= self.repetition_penalty <= HOTTEST:
            raise ValueError(f"repetition_penalty must be within float32, but it is {self.repetition_penalty}.")
        if self.rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}, but it is {self.rule!r}.")

    @property
    def penalises(self) -> bool:
        return self.repetition_penalty != 1

    def settings(self) -> dict[str, float | str]:
        """The fields for a stage's settings file. A penalty of 1 is left out, so that files from before it still match."""
        said = dataclasses.asdict(self)
        return said if self.penalises else {name: value for name, value in said.items() if name != "repetition_penalty"}

    @property
    def greedy(self) -> bool:
        return self.temperature < COLDEST


@flax.struct.dataclass
class SamplingRows:
    """`Sampling` of each row, as arrays: another temperature, filter or penalty does not compile anew.

    Reciprocals and logarithms are taken on the host. A greedy row has no filters. A single row is broadcast to all rows of a
    batch.
    """

    sampled: Bool[Array, " B"]  # false: greedy
    inverse_temperature: Float[Array, " B"]
    top_k: Int[Array, " B"]  # 0: all
    top_p: Float[Array, " B"]  # 1: all
    log_min_p: Float[Array, " B"]  # -inf: all
    penalty: Float[Array, " B"]
    inverse_penalty: Float[Array, " B"]

    @classmethod
    def of(cls, rows: Sequence[Sampling]) -> "SamplingRows":
        """The settings of these rows, as numpy arrays."""
        sampled = np.array([not row.greedy for row in rows])
        temperature, top_p, min_p, penalty = (
            np.array([getattr(row, name) for row in rows], np.float32)
            for name in ("temperature", "top_p", "min_p", "repetition_penalty")
        )
        top_k = np.array([min(row.top_k, 2**31 - 1) for row in rows], np.int32)
        one = np.float32(1)
        with np.errstate(divide="ignore"):
            return cls(
                sampled=sampled,
                inverse_temperature=one / np.where(sampled, temperature, one),
                top_k=np.where(sampled, top_k, np.int32(0)),
                top_p=np.where(sampled, np.maximum(top_p, LEAST_MASS), one),
                log_min_p=np.where(sampled, np.log(min_p.astype(np.float64)), -np.inf).astype(np.float32),
                penalty=penalty,
                inverse_penalty=one / penalty,
            )

    @property
    def penalised(self) -> Bool[Array, " B"]:
        return self.penalty != 1


def per_row(values: Array, rank: int) -> Array:
    """Values [B] reshaped to [B, 1, ...] of this rank, to broadcast against arrays of rows."""
    return values.reshape(-1, *(1,) * (rank - 1))


def placeholder_keys(seed: int, number: int) -> Array:
    """Typed PRNG keys [number] that belong to no request: for empty buffers, and for timings with random weights."""
    return jax.random.split(jax.random.key(seed, impl=PRNG), number)


def keyed_gumbel(
    keys: Array,
    positions: Int[Array, "B T"],
    vocabulary: int,
    purpose: int | None = None,
    ids: Int[Array, "..."] | None = None,
) -> Float[Array, "B T M"]:
    """Gumbel noise over the vocabulary for each row's positions, from the key fold_in(key_b, position_bt).

    purpose: folded into the key as well; makes noise that is independent of the position's other noise. ids: [M] or [B, T, M],
    draws that of these ids alone; None: of all V.
    """
    words = jax.random.key_data(_position_keys(keys, positions, purpose))
    ids = jnp.arange(vocabulary, dtype=jnp.int32) if ids is None else ids
    return gumbel_at(words, jnp.broadcast_to(ids, (*positions.shape, ids.shape[-1])), vocabulary)


def keyed_uniform(keys: Array, positions: Int[Array, "B T"], number: int, purpose: int) -> Float[Array, "B T C"]:
    """`number` uniform values in [0, 1) for each row's positions, keyed like `keyed_gumbel`."""
    with jax.threefry_partitionable(True):  # without it other numbers are drawn
        draw = jax.vmap(jax.vmap(lambda key: jax.random.uniform(key, (number,), jnp.float32)))
        return draw(_position_keys(keys, positions, purpose))


def _position_keys(keys: Array, positions: Int[Array, "B T"], purpose: int | None) -> Array:
    """Typed keys [B, T]: fold_in(key_b, position_bt), and then the purpose."""

    def one(key, position):
        key = jax.random.fold_in(key, position)
        return key if purpose is None else jax.random.fold_in(key, purpose)

    return jax.vmap(jax.vmap(one, (None, 0)))(keys, positions)


def noise_for(
    keys: Array,
    positions: Int[Array, "B T"],
    vocabulary: int,
    sampling: SamplingRows,
    ids: Int[Array, " M"] | None = None,
) -> Float[Array, "B T M"]:
    """`keyed_gumbel` if some row is sampled; on a CPU zeros, which cost almost nothing, if all rows are greedy. ids: None: all V.

    Elsewhere a branch would cost more than the noise, which is part of the kernel that adds it.
    """
    return _noise_for(platform(), vocabulary, keys, positions, sampling, ids)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _noise_for(platform: str, vocabulary: int, keys, positions, sampling: SamplingRows, ids):
    draw = functools.partial(keyed_gumbel, keys, positions, vocabulary, ids=ids)
    if platform != "cpu":
        return draw()
    number = vocabulary if ids is None else ids.shape[-1]
    return jax.lax.cond(jnp.any(sampling.sampled), draw, lambda: jnp.zeros((*positions.shape, number), jnp.float32))


def best_token(scores: Float[Array, "... V"]) -> Int[Array, "..."]:
    """int32 argmax over the last axis; of equal scores the lowest index.

    It makes three vectorised passes over the finished scores. On CPU a fused argmax becomes a scalar loop that computes the
    scores, noise included, again (4 times slower at V = 1,536). On a GPU one reduction of pairs is faster.
    """
    if platform() == "gpu":
        return jnp.argmax(scores, axis=-1).astype(jnp.int32)
    scores = jax.lax.optimization_barrier(scores)
    vocabulary = scores.shape[-1]
    ids = jax.lax.broadcasted_iota(jnp.int32, scores.shape, scores.ndim - 1)
    best = jnp.where(scores == reduce_last("max", scores), ids, jnp.int32(vocabulary - 1))
    return reduce_last("min", best)[..., 0]


def token_log_probability(logits: Float[Array, "B T V"], tokens: Int[Array, "B T"]) -> Float[Array, "B T"]:
    """Log-probability of `tokens` under the unfiltered softmax at temperature 1, float32."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)
