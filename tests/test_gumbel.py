"""Noise of chosen ids is that of the whole vocabulary, and a token chosen among few is the token chosen among all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specexit_jax.backend import tracing_for
from specexit_jax.decoding import filters
from specexit_jax.decoding.gumbel import _bits, gumbel_at
from specexit_jax.decoding.keyed import few_kept, keyed_sample
from specexit_jax.decoding.sampling import Sampling, SamplingRows, keyed_gumbel, placeholder_keys

POSITIONS = jnp.array([[0, 1, 7], [2**20, 5, 3]], jnp.int32)


@pytest.mark.parametrize("vocabulary", [7, 1000, 151_936])
def test_the_noise_of_chosen_ids_is_that_of_the_whole(vocabulary):
    keys = placeholder_keys(3, 4)
    with jax.threefry_partitionable(True):
        whole = jax.vmap(lambda key: jax.random.gumbel(key, (vocabulary,), jnp.float32, mode="high"))(keys)
    ids = jnp.asarray(np.random.default_rng(0).integers(0, vocabulary, (4, 50)), jnp.int32)
    found = gumbel_at(jax.random.key_data(keys), ids, vocabulary)
    # Programs of other shapes may round the last digit of a logarithm otherwise.
    np.testing.assert_allclose(found, jnp.take_along_axis(whole, ids, axis=1), rtol=4e-7, atol=4e-7)
    everything = jnp.broadcast_to(jnp.arange(vocabulary, dtype=jnp.int32), (4, vocabulary))
    np.testing.assert_allclose(
        gumbel_at(jax.random.key_data(keys), everything, vocabulary), whole, rtol=4e-7, atol=4e-7
    )


def test_the_bits_are_those_of_jax():
    keys = placeholder_keys(3, 4)
    with jax.threefry_partitionable(True):
        whole = jax.vmap(lambda key: jax.random.bits(key, (1000,), jnp.uint32))(keys)
    ids = jnp.broadcast_to(jnp.arange(1000, dtype=jnp.uint32), (4, 1000))
    np.testing.assert_array_equal(_bits(jax.random.key_data(keys), ids), whole)


def test_ids_and_purposes_choose_columns_of_the_noise():
    keys, ids = placeholder_keys(0, 2), jnp.array([3, 900, 0], jnp.int32)
    for purpose in (None, 2):
        whole = keyed_gumbel(keys, POSITIONS, 1000, purpose)
        np.testing.assert_array_equal(keyed_gumbel(keys, POSITIONS, 1000, purpose, ids), whole[:, :, ids])


def scores_with_ties() -> jax.Array:
    """Of 60 columns, some equal; the least of some filters is shared by several."""
    scores = np.random.default_rng(1).normal(0, 2, (2, 40, 60)).astype(np.float32)
    scores[1] = np.round(scores[1])
    return jnp.asarray(scores)


@pytest.mark.parametrize(
    "rows",
    [
        [Sampling(1.0, 5), Sampling(0.7, 3, 0.9)],
        [Sampling(1.0, 0, 0.5), Sampling()],
        [Sampling(1.0, min_p=0.2), Sampling(0.5, 4, min_p=0.1)],
        [Sampling(1.0), Sampling(1.0, 5)],  # the first keeps all, so all noise is drawn
        [Sampling(), Sampling()],
    ],
)
def test_a_token_among_few_is_the_token_among_all(monkeypatch, rows):
    logits, keys, sampling = scores_with_ties(), placeholder_keys(0, 2), SamplingRows.of(rows)
    positions = jnp.arange(80, dtype=jnp.int32).reshape(2, 40)
    names = jnp.arange(60, dtype=jnp.int32) * 3 + 1  # a draft's vocabulary
    wanted = [
        keyed_sample(logits, keys, positions, sampling),
        keyed_sample(logits, keys, positions, sampling, 200, names),
    ]
    monkeypatch.setattr(filters, "SMALL", 30)
    monkeypatch.setattr(filters, "RANKED", 24)
    monkeypatch.setattr(filters, "_least_kept", filters._least_kept.__wrapped__)
    edge = filters.least_kept(logits, sampling)
    expected = any(not row.greedy for row in rows) and Sampling(1.0) not in rows
    assert bool(few_kept(logits, edge, sampling)) == expected
    np.testing.assert_array_equal(keyed_sample(logits, keys, positions, sampling), wanted[0])
    np.testing.assert_array_equal(keyed_sample(logits, keys, positions, sampling, 200, names), wanted[1])


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_a_large_vocabulary_is_not_sorted(platform):
    """Neither to sample from it nor to filter it. On a CPU the few best are picked by a selection of XLA's own."""
    keys, sampling = jax.eval_shape(lambda: placeholder_keys(0, 1)), SamplingRows.of([Sampling(0.6, 0, 0.95)])
    logits, positions = jax.ShapeDtypeStruct((1, 1, 20_000), jnp.float32), jax.ShapeDtypeStruct((1, 1), jnp.int32)
    with tracing_for(platform):
        program = (
            jax.jit(lambda *given: keyed_sample(*given)).lower(logits, keys, positions, sampling).compile().as_text()
        )
    assert " sort(" not in program
    assert ('custom_call_target="TopK"' in program) == (platform == "cpu")
