"""The target is causal, blocked by segments, and the same with a cache as without."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from random_params import random_params

from specexit_jax.models.config import RopeScaling, TargetConfig
from specexit_jax.models.layers import FeedForward, attend, attend_causally, causal_bias, inverse_frequencies
from specexit_jax.models.target import Target, init_target, init_target_cache
from specexit_jax.parallel.sharding import make_mesh

CONFIG = TargetConfig(
    "qwen3", vocab_size=40, hidden_size=16, intermediate_size=24, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=8,
    qk_norm=True, qkv_bias=True, tie_embeddings=True, capture=(0, 2, 3),
)  # fmt: skip
ROWS, TOKENS = 3, 12


def positions(batch=ROWS, tokens=TOKENS, start=0):
    return jnp.broadcast_to(jnp.arange(start, start + tokens, dtype=jnp.int32)[None], (batch, tokens))


@pytest.fixture(scope="module")
def params():
    return random_params(init_target, CONFIG, 0)


@pytest.fixture(scope="module")
def tokens():
    return jax.random.randint(jax.random.key(2), (ROWS, TOKENS), 0, CONFIG.vocab_size, jnp.int32)


@jax.jit
def full_pass(params, tokens, segment_ids=None):
    return Target(CONFIG).apply({"params": params}, tokens, positions(*tokens.shape), segment_ids=segment_ids)


def test_later_tokens_have_exactly_no_influence(params, tokens):
    """The gradient of logits at t with respect to the embedding of token t + 1 .. is exactly zero."""
    distinct = jnp.arange(TOKENS, dtype=jnp.int32)[None]

    def logit_sum(table, at):
        out = Target(CONFIG).apply({"params": params | {"embed": {"embedding": table}}}, distinct, positions(1))
        # Features and head read the same table; only rows of tokens in the prompt count below.
        return jnp.sum(out.features[0, at])

    slope = jax.jit(jax.grad(logit_sum))
    for at in (0, 5, TOKENS - 1):
        gradient = np.asarray(slope(params["embed"]["embedding"], at))
        assert np.all(gradient[at + 1 :] == 0.0)
        assert np.all(np.abs(gradient[: at + 1]).sum(axis=1) > 0)


def test_segments_are_as_if_alone(params, tokens):
    segment_ids = jnp.asarray([[1] * 5 + [2] * 7, [1] * 12, [1] * 3 + [2] * 6 + [0] * 3], jnp.int32)
    packed = full_pass(params, tokens, segment_ids)
    for row, start, end in ((0, 5, 12), (2, 3, 9)):
        # RoPE is relative, so a document reads the same at any offset.
        alone = full_pass(params, tokens[row : row + 1, start:end])
        np.testing.assert_allclose(packed.logits[row, start:end], alone.logits[0], atol=2e-5)
        np.testing.assert_allclose(packed.features[row, start:end], alone.features[0], atol=2e-5)
    assert np.abs(packed.logits - full_pass(params, tokens).logits).max() > 1e-2
    assert np.all(np.isfinite(packed.logits))


@pytest.mark.parametrize("batch", [1, ROWS])
def test_cached_decoding_equals_one_pass_with_ragged_rows(params, tokens, batch):
    """Rows are prefilled with different lengths and advance by different numbers of tokens; rejected tokens are rewound."""
    expected = full_pass(params, tokens)
    cache = init_target_cache(CONFIG, batch, TOKENS + 4)
    step = jax.jit(
        lambda tokens, cache, live: Target(CONFIG).apply(
            {"params": params},
            tokens,
            cache.length[:, None] + jnp.arange(tokens.shape[1], dtype=jnp.int32)[None],
            cache,
            live=live,
        ),
        static_argnums=2,
    )
    start = np.asarray([2, 5, 4][:batch], np.int32)
    rows = np.arange(batch)[:, None]
    cache = step(tokens[:batch, :5], cache, None).cache.replace(length=jnp.asarray(start))
    for width, advance, live in ((3, (1, 2, 3), 8), (4, (4, 1, 2), 12), (1, (1, 1, 1), None)):
        columns = start[:, None] + np.arange(width)[None]
        # Columns after those that a row accepts hold wrong tokens, like rejected drafts.
        accepted = np.arange(width)[None] < np.asarray(advance[:batch])[:, None]
        fed = np.where(accepted, np.asarray(tokens)[rows, np.minimum(columns, TOKENS - 1)], 7)
        out = step(jnp.asarray(fed, jnp.int32), cache, live)
        for row in range(batch):
            where = columns[row][accepted[row]]
            np.testing.assert_allclose(out.logits[row][accepted[row]], expected.logits[row, where], atol=2e-5)
            np.testing.assert_allclose(out.features[row][accepted[row]], expected.features[row, where], atol=2e-5)
        np.testing.assert_array_equal(out.cache.length, start + width)
        start = start + np.asarray(advance[:batch], np.int32)
        cache = out.cache.replace(length=jnp.asarray(start))


def test_features_are_the_inputs_of_the_captured_layers(params, tokens):
    out = full_pass(params, tokens)
    first = params["embed"]["embedding"][tokens]
    np.testing.assert_array_equal(out.features[..., : CONFIG.hidden_size], first)
    assert dataclasses.replace(CONFIG, num_layers=24, capture=None).capture_layers == (2, 12, 21)


def test_hidden_and_head_give_the_logits(params, tokens):
    out = full_pass(params, tokens)
    without = jax.jit(lambda: Target(CONFIG).apply({"params": params}, tokens, positions(), logits=False))()
    assert without.logits is None
    again = Target(CONFIG).apply({"params": params}, without.hidden, method="head")
    np.testing.assert_allclose(again, out.logits, atol=1e-5)


def dense_attention(q, k, v, bias, own):
    """Attention as in a textbook: a diagonal is 128 more keys, each masked to its own position."""
    diagonal = jnp.where(jnp.eye(bias.shape[1], dtype=bool), jnp.float32(0), jnp.float32(-1e30))[None]
    keys = jnp.concatenate([jnp.swapaxes(k, 2, 3), *(key for key, _ in own)], axis=2)
    values = jnp.concatenate([v, *(value for _, value in own)], axis=2)
    mask = jnp.concatenate([bias, *(jnp.broadcast_to(diagonal, bias.shape) for _ in own)], axis=2)
    scores = jnp.einsum("bkgth,bksh->bkgts", q, keys) / np.float32(np.sqrt(q.shape[-1])) + mask[:, None, None]
    return jnp.einsum("bkgts,bksh->bkgth", jax.nn.softmax(scores, axis=-1), values)


@pytest.mark.parametrize("diagonals", [0, 2])
def test_attention_equals_the_dense_form_in_value_and_gradient(diagonals):
    """Gradients are tested too: merging diagonals through log-sum-exp residuals would give wrong ones without an error."""
    keys = jax.random.split(jax.random.key(3), 3 + 2 * diagonals)
    q = jax.random.normal(keys[0], (2, 2, 2, 128, 4))
    k, v, *rest = (jax.random.normal(key, (2, 2, 128, 4)) for key in keys[1:])
    k, own = jnp.swapaxes(k, 2, 3), tuple(zip(rest[::2], rest[1::2], strict=True))
    segment_ids = jnp.asarray([[1] * 70 + [2] * 58, [3] * 128], jnp.int32)
    bias = causal_bias(segment_ids, 128)

    def value_and_slopes(function):
        def loss(q, k, v, own):
            out = function(q, k, v, bias, own)
            return jnp.sum(jnp.sin(out)), out

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True))(q, k, v, own)

    expected = value_and_slopes(dense_attention)
    for function in (attend_causally, attend):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), value_and_slopes(function), expected)


def test_llama3_scaling_stretches_only_long_wavelengths():
    plain = inverse_frequencies(64, 500000.0, None)
    scaled = inverse_frequencies(64, 500000.0, RopeScaling(8.0, 1.0, 4.0, 8192))
    assert scaled[0] == plain[0]
    np.testing.assert_allclose(scaled[-1], plain[-1] / 8, rtol=1e-6)
    assert np.all(np.diff(scaled / plain) <= 0)


def test_bad_calls_are_refused(params, tokens):
    cache = init_target_cache(CONFIG, ROWS, 16)
    with pytest.raises(ValueError, match="segments and a cache"):
        Target(CONFIG).apply({"params": params}, tokens, positions(), cache, segment_ids=tokens)
    with pytest.raises(ValueError, match="32 positions of a cache whose capacity is 16"):
        Target(CONFIG).apply({"params": params}, tokens, positions(), cache, live=32)
    with pytest.raises(ValueError, match="architecture 'gpt2' is unknown"):
        dataclasses.replace(CONFIG, architecture="gpt2")
    with pytest.raises(ValueError, match="multiple of 3 key/value heads"):
        dataclasses.replace(CONFIG, num_kv_heads=3)
    small = dataclasses.replace(CONFIG, num_layers=2, capture=None)
    assert small.capture_layers == (1, 1, 0)
    with pytest.raises(ValueError, match="not among the target's 2"):
        _ = dataclasses.replace(small, capture=(0, 1, 2)).capture_layers


def test_the_feed_forward_of_many_rows_is_that_of_few():
    """Its product takes one form up to 256 rows and another above; both are SwiGLU as written out here."""
    feed = FeedForward(24)
    x = jax.random.normal(jax.random.key(0), (2, 150, 16), jnp.float32)
    params = jax.jit(feed.init)(jax.random.key(1), x)["params"]
    many = jax.jit(feed.apply)({"params": params}, x)
    few = jnp.concatenate([jax.jit(feed.apply)({"params": params}, x[:, i : i + 50]) for i in (0, 50, 100)], axis=1)
    gate, up = (np.asarray(x) @ np.asarray(params["gate_up"][:, i]) for i in (0, 1))
    expected = (gate / (1 + np.exp(-gate)) * up) @ np.asarray(params["down"])
    np.testing.assert_allclose(many, expected, atol=1e-5)
    np.testing.assert_allclose(few, expected, atol=1e-5)


def test_under_a_mesh_activations_keep_their_rows_apart(params, tokens):
    mesh = make_mesh(2, 2, 1, devices=jax.devices()[:4])
    plain = Target(CONFIG).apply({"params": params}, tokens[:1].repeat(4, axis=0), positions()[:1].repeat(4, axis=0))
    whole = NamedSharding(mesh, PartitionSpec())
    with jax.set_mesh(mesh):
        arguments = jax.device_put((params, tokens[:1].repeat(4, axis=0), positions()[:1].repeat(4, axis=0)), whole)
        found = jax.jit(lambda p, *rest: Target(CONFIG).apply({"params": p}, *rest).hidden)(*arguments)
    np.testing.assert_allclose(found, plain.hidden, atol=1e-5)
    assert found.addressable_shards[0].data.shape[0] == 1
