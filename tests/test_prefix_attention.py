"""A prompt's chunk attends to a long cache in blocks: the values of plain attention, and a prompt read so is read right."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_case import TARGET, tiny_params

from specexit_jax.backend import tracing_for
from specexit_jax.models import prefix_attention
from specexit_jax.models.cache import key_axis
from specexit_jax.models.layers import attend, cached_bias
from specexit_jax.models.prefix_attention import Reach, attend_prefix
from specexit_jax.models.target import Target, init_target_cache

HEADS, GROUP, SIZE, TOKENS = 2, 3, 8, 20


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize(("live", "window"), [(1100, 0), (1536, 0), (300, 0), (1100, 70)])
def test_blocks_have_the_values_of_one_product(live, window, platform):
    rng = np.random.default_rng(live + window)
    capacity, room = live + 40, live - TOKENS
    q = jnp.asarray(rng.normal(size=(3, HEADS, GROUP, TOKENS, SIZE)).astype(np.float32))
    k, v = (jnp.asarray(rng.normal(size=(3, HEADS, capacity, SIZE)).astype(np.float32)) for _ in range(2))
    for length in ([0, 0, 0], [room] * 3, [0, room // 2, room], rng.integers(0, room, 3).tolist()):
        length = jnp.asarray(length, jnp.int32)
        keys = jnp.swapaxes(k, 2, 3)
        wanted = attend(q, keys[..., :live], v[:, :, :live], cached_bias(length, TOKENS, live, window=window))
        with tracing_for(platform):
            found = attend_prefix(q, keys if key_axis() == 3 else k, v, Reach(length, window, live))
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


def test_stale_positions_of_the_cache_have_no_influence():
    """Beyond a row's own tokens a cache may hold anything that is finite."""
    q = jnp.ones((2, 1, 1, TOKENS, SIZE))
    rng = np.random.default_rng(0)
    k, v = (jnp.asarray(rng.normal(size=shape).astype(np.float32)) for shape in ((2, 1, SIZE, 900), (2, 1, 900, SIZE)))
    mask = Reach(jnp.asarray([5, 600], jnp.int32), 0, 900)
    stale = jnp.arange(900, dtype=jnp.int32)[None] >= (mask.length + TOKENS)[:, None]
    dirty_k = jnp.where(stale[:, None, None, :], jnp.float32(1e4), k)
    dirty_v = jnp.where(stale[:, None, :, None], jnp.float32(-1e4), v)
    np.testing.assert_array_equal(attend_prefix(q, dirty_k, dirty_v, mask), attend_prefix(q, k, v, mask))


def test_a_prompt_read_in_blocks_is_read_as_in_one_pass(monkeypatch):
    """Chunks over a long cache, against the target over the whole row without a cache."""
    monkeypatch.setattr(prefix_attention, "LONG", 64)
    monkeypatch.setattr(prefix_attention, "BLOCK", 48)
    config = dataclasses.replace(TARGET, rope_theta=1e4)
    params = tiny_params().target
    tokens = jnp.asarray(np.random.default_rng(0).integers(7, 40, (2, 160)), jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(160, dtype=jnp.int32)[None], (2, 160))
    target = Target(config)
    wanted = target.apply({"params": params}, tokens, positions).logits
    cache, found = init_target_cache(config, 2, 200), []
    for start in range(0, 160, 32):
        part = slice(start, start + 32)
        out = target.apply({"params": params}, tokens[:, part], positions[:, part], cache, live=192)
        cache, found = out.cache, [*found, out.logits]
    np.testing.assert_allclose(jnp.concatenate(found, axis=1), wanted, rtol=1e-4, atol=1e-4)


def test_a_long_prompt_needs_no_square_of_scores():
    """The temporaries of a chunk do not grow with the cache, apart from the cache."""
    config = dataclasses.replace(TARGET, num_layers=1, capture=(0, 0, 0))
    params = jax.eval_shape(lambda: tiny_params(config).target)

    def temporaries(capacity: int) -> int:
        cache = jax.eval_shape(lambda: init_target_cache(config, 1, capacity))
        ids = jax.ShapeDtypeStruct((1, 512), jnp.int32)

        def chunk(params, ids, positions, cache):
            return Target(config).apply({"params": params}, ids, positions, cache, logits=False).cache

        lowered = jax.jit(chunk, donate_argnums=3).lower(params, ids, ids, cache)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    few, many = temporaries(4096), temporaries(32768)
    assert many < 1.2 * few < 20 * 2**20
