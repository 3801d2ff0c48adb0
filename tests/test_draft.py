"""The draft layer: cached steps equal a full pass, training-time test equals decoding, signals are read at the right place."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import random_params

from specexit_jax.models.config import DraftConfig
from specexit_jax.models.draft import draft_of, init_draft, init_draft_cache

CONFIG = DraftConfig(16, 16, 24, 4, 2, 8, vocab_size=48, draft_vocab_size=20, signals="draft")
ROWS, TOKENS = 2, 10


def run(config, method="__call__"):
    return jax.jit(
        lambda params, *args, **kwargs: draft_of(config).apply({"params": params}, *args, method=method, **kwargs),
        static_argnames="live",
    )


@pytest.fixture(scope="module")
def params():
    return random_params(init_draft, CONFIG, 0)


@pytest.fixture(scope="module")
def pairs():
    keys = jax.random.split(jax.random.key(2), 2)
    embedded, hidden = (jax.random.normal(key, (ROWS, TOKENS, 16), jnp.float32) for key in keys)
    return embedded, hidden, jnp.broadcast_to(jnp.arange(TOKENS, dtype=jnp.int32)[None], (ROWS, TOKENS))


def test_step_by_step_equals_the_full_pass(params, pairs):
    step = run(CONFIG)
    expected = step(params, *pairs)
    cache = init_draft_cache(CONFIG, ROWS, TOKENS + 2)
    for t in range(TOKENS):
        out = step(params, *(x[:, t : t + 1] for x in pairs), cache)
        cache = out.cache
        for name in ("logits", "hidden", "raw_signals"):
            np.testing.assert_allclose(getattr(out, name)[:, 0], getattr(expected, name)[:, t], atol=2e-5)


def test_training_time_test_is_what_decoding_does(params, pairs):
    """Steps 1 and 2 at t equal the draft's second and third own steps after a cache of t + 1 verified pairs."""
    embedded, hidden, positions = pairs
    layer, step = run(CONFIG, "layer"), run(CONFIG)
    following = jnp.roll(embedded, -1, axis=1)
    first, kv0 = layer(params, embedded, hidden, positions)
    second, kv1 = layer(params, following, first, positions + 1, None, (kv0,))
    third, _ = layer(params, following, second, positions + 2, None, (kv0, kv1))
    prefilled = step(params, *pairs, init_draft_cache(CONFIG, ROWS, TOKENS + 2))
    np.testing.assert_allclose(prefilled.hidden, first, atol=2e-5)
    for t in (0, 4, TOKENS - 1):
        cache = prefilled.cache.replace(length=jnp.full((ROWS,), t + 1, jnp.int32))
        own = prefilled.hidden[:, t : t + 1]
        for i, expected in enumerate((second, third), start=1):
            out = step(params, following[:, t : t + 1], own, positions[:, t : t + 1] + i, cache)
            np.testing.assert_allclose(out.hidden[:, 0], expected[:, t], atol=2e-5)
            own, cache = out.hidden, out.cache


def test_earlier_steps_are_seen_only_at_their_own_position(params, pairs):
    embedded, hidden, positions = pairs
    layer = run(CONFIG, "layer")
    first, kv0 = layer(params, embedded, hidden, positions)
    second, kv1 = layer(params, embedded, first, positions + 1, None, (kv0,))
    before, _ = layer(params, embedded, second, positions + 2, None, (kv0, kv1))
    changed = tuple(x.at[:, :, 4].add(1.0) for x in kv1)
    after, _ = layer(params, embedded, second, positions + 2, None, (kv0, changed))
    moved = np.abs(after - before).max(axis=(0, 2))
    assert moved[4] > 1e-3 and np.all(np.delete(moved, 4) == 0)


def test_segments_block_attention(params, pairs):
    segment_ids = jnp.asarray([[1] * 4 + [2] * 6] * ROWS, jnp.int32)
    packed = run(CONFIG)(params, *pairs, None, segment_ids)
    alone = run(CONFIG)(params, *(x[:, 4:] for x in pairs))
    np.testing.assert_allclose(packed.hidden[:, 4:], alone.hidden, atol=2e-5)
    layered, _ = run(CONFIG, "layer")(params, *pairs, segment_ids)
    np.testing.assert_allclose(layered, packed.hidden, atol=2e-5)


def test_placements(params, pairs):
    embedded, _, positions = pairs
    out = run(CONFIG)(params, *pairs)
    np.testing.assert_allclose(run(CONFIG, "signal")(params, out.hidden), out.raw_signals, atol=2e-5)
    np.testing.assert_allclose(run(CONFIG, "head")(params, out.hidden), out.logits, atol=2e-5)

    features = jax.random.normal(jax.random.key(5), (ROWS, TOKENS, 48), jnp.float32)
    fused, raw = run(CONFIG, "fuse")(params, features)
    assert raw is None
    config = dataclasses.replace(CONFIG, signals="fc")
    rows = jax.random.normal(jax.random.key(6), (48, 3), jnp.float32)
    wide = {name: value for name, value in params.items() if name != "signal_head"}
    wide["fc"] = jnp.concatenate([params["fc"], rows], axis=1)
    again, raw = run(config, "fuse")(wide, features)
    np.testing.assert_allclose(again, fused, atol=2e-5)
    np.testing.assert_allclose(raw, jnp.einsum("bta,as->bts", features, rows), atol=2e-5)
    out = run(config)(wide, embedded, again, positions)
    assert raw.dtype == jnp.float32 and out.raw_signals is None


def test_norm_before_residual_changes_the_residual_only(params, pairs):
    embedded, hidden, positions = pairs
    config = dataclasses.replace(CONFIG, norm_before_residual=True)
    scale = params["hidden_norm"]["scale"][None, None]
    normed = hidden / jnp.sqrt(jnp.mean(hidden**2, axis=-1, keepdims=True) + CONFIG.rms_norm_eps) * scale
    # Without the output of attention the layer is residual + mlp(norm(residual)).
    silent = params | {"attention": params["attention"] | {"o": jnp.zeros_like(params["attention"]["o"])}}
    expected = run(CONFIG)(silent, embedded, normed, positions).hidden
    np.testing.assert_allclose(run(config)(silent, *pairs).hidden, expected, atol=2e-5)
    assert np.abs(run(CONFIG)(silent, *pairs).hidden - expected).max() > 1e-2


def test_bad_configurations_are_refused():
    with pytest.raises(ValueError, match="placement 'mtp' is unknown"):
        dataclasses.replace(CONFIG, signals="mtp")
    with pytest.raises(ValueError, match="must equal the target's 32"):
        dataclasses.replace(CONFIG, target_hidden_size=32)
