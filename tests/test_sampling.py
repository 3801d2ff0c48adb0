"""Position-keyed sampling: reproducible, with the usual filters, and with the right distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from specexit_jax.decoding import filters
from specexit_jax.decoding.filters import filtered_scores
from specexit_jax.decoding.keyed import keyed_sample
from specexit_jax.decoding.sampling import (
    Sampling,
    SamplingRows,
    best_token,
    keyed_gumbel,
    keyed_uniform,
    placeholder_keys,
    token_log_probability,
)
from specexit_jax.engine.keys import request_keys


def random_logits(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(0, 2, shape), jnp.float32)


def keys_of(*seeds):
    return jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))


def test_is_the_documented_formula():
    logits, positions = random_logits(1, 3, 11), jnp.array([[4, 5, 9]], jnp.int32)
    tokens = keyed_sample(logits, keys_of(7), positions, SamplingRows.of([Sampling(0.7)]))
    for column, position in enumerate((4, 5, 9)):
        noise = jax.random.gumbel(jax.random.fold_in(jax.random.key(7), position), (11,), jnp.float32, mode="high")
        assert int(tokens[0, column]) == int(jnp.argmax(logits[0, column] / 0.7 + noise))


def test_best_token_is_argmax_and_takes_the_first_of_a_tie():
    scores = np.random.default_rng(3).integers(0, 5, (4, 3, 40)).astype(np.float32)
    scores[0, 0] = -np.inf
    tokens = jax.jit(best_token)(scores)
    assert tokens.dtype == jnp.int32
    np.testing.assert_array_equal(tokens, np.argmax(scores, axis=-1))


def test_depends_on_key_and_position_alone():
    logits = jnp.broadcast_to(random_logits(1, 1, 50), (2, 6, 50))
    positions = jnp.array([[3, 4, 5, 6, 7, 8], [5, 6, 7, 8, 9, 10]], jnp.int32)
    wide = keyed_sample(logits, keys_of(1, 1), positions, SamplingRows.of([Sampling(1.0)]))
    np.testing.assert_array_equal(wide[0, 2:], wide[1, :4])
    other = keyed_sample(logits[:1], keys_of(2), positions[:1], SamplingRows.of([Sampling(1.0)]))
    assert (np.asarray(other[0]) != np.asarray(wide[0])).any()
    assert len(set(np.asarray(wide).ravel().tolist())) > 1


@pytest.fixture(params=[("default_prng_impl", "rbg"), ("threefry_partitionable", False), ("random_seed_offset", 7)])
def changed(request):
    """Yields a function that changes one of JAX's settings of random numbers."""
    name, value = request.param
    before = getattr(jax.config, f"jax_{name}")
    yield lambda: jax.config.update(f"jax_{name}", value)
    jax.config.update(f"jax_{name}", before)


def test_the_noise_is_the_same_whatever_a_process_has_set(changed):
    """Many TPU jobs set `rbg`. With it, in a batch of keys, the numbers of one row depend on the other rows."""
    positions = jnp.array([[3, 4], [8, 9]], jnp.int32)

    def drawn():
        keys = request_keys(["a", "b"], [0, 1])
        assert placeholder_keys(0, 2).dtype == keys.dtype
        whole = [keyed_gumbel(keys, positions, 16), keyed_uniform(keys, positions, 16, 2)]
        np.testing.assert_array_equal(keyed_gumbel(keys[1:], positions[1:], 16)[0], whole[0][1])
        return np.concatenate(whole)

    before = drawn()
    changed()
    np.testing.assert_array_equal(drawn(), before)


def test_the_noise_reaches_what_a_thin_tail_needs():
    """JAX's default mode ends at 15.94. It would sample only a third of the tail, if 151,936 tokens share 1 % evenly."""
    noise = jax.jit(keyed_gumbel, static_argnums=2)(keys_of(0), jnp.arange(64, dtype=jnp.int32)[None, :], 151_936)
    assert float(noise.max()) > 16.5 and float(noise.min()) < -2.7 and bool(jnp.isfinite(noise).all())


@pytest.mark.parametrize("temperature", [1e-45, 1e-39, 1.1e-38, 1e-31, 1e-30, 1e-20])
def test_a_temperature_too_small_for_float32_is_greedy(temperature):
    logits, positions = 300 * random_logits(2, 4, 9), jnp.zeros((2, 4), jnp.int32)
    tokens = keyed_sample(logits, keys_of(1, 2), positions, SamplingRows.of([Sampling(temperature)]))
    np.testing.assert_array_equal(tokens, jnp.argmax(logits, -1))
    assert Sampling(temperature).greedy == (temperature < 1e-30)


def test_greedy_ignores_the_key():
    logits, positions = random_logits(2, 4, 9), jnp.zeros((2, 4), jnp.int32)
    np.testing.assert_array_equal(
        keyed_sample(logits, keys_of(1, 2), positions, SamplingRows.of([Sampling()])), jnp.argmax(logits, -1)
    )


def reference_filter(scores: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Kept tokens, one row at a time: top_k, the smallest set that reaches top_p, then min_p of those left."""
    kept = np.zeros(scores.shape, bool)
    for index in np.ndindex(scores.shape[:-1]):
        order = np.argsort(-scores[index])[: sampling.top_k or None]
        weights = np.exp(scores[index][order] - scores[index].max())
        cumulative = np.cumsum(weights / weights.sum())
        needed = int(np.searchsorted(cumulative, sampling.top_p)) + 1 if sampling.top_p < 1 else len(order)
        left = weights[:needed] / weights[:needed].sum()
        kept[index][order[:needed][left >= sampling.min_p * left.max()]] = True
    return kept


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(1),
        Sampling(1, 5),
        Sampling(1, 0, 0.8),
        Sampling(1, 7, 0.6),
        Sampling(1, 0, 1e-6),
        Sampling(1, 0, 1e-40),
        Sampling(1, 5, 1e-50),
        Sampling(1, 99, 0.9),
        Sampling(1, min_p=0.1),
        Sampling(1, min_p=1),
        Sampling(1, 7, 0.9, 0.2),
    ],
)
def test_filters_keep_what_a_plain_loop_keeps(sampling):
    scores = random_logits(20, 4, 30, seed=3)
    filtered = np.asarray(filtered_scores(scores, SamplingRows.of([sampling])))
    kept = reference_filter(np.asarray(scores), sampling)
    np.testing.assert_array_equal(np.isfinite(filtered), kept)
    np.testing.assert_array_equal(filtered[kept], np.asarray(scores)[kept])


@pytest.mark.parametrize("asked", [slice(0, 4), slice(4, 9), slice(0, 11)])
def test_every_row_has_its_own_filters_whether_few_are_ranked_or_all(monkeypatch, asked):
    rows = [
        Sampling(1, 5), Sampling(1, 7, 0.6), Sampling(1, 2, min_p=0.2), Sampling(),
        Sampling(1, 9), Sampling(1, 0, 0.8), Sampling(0.5), Sampling(1.5, min_p=0.1), Sampling(0.3, 20, 0.9),
        Sampling(2, 0, 0.99), Sampling(1, 0, 0.3),
    ][asked]  # fmt: skip
    scores, untraced = random_logits(11, 4, 30, seed=4)[asked], filters._least_kept.__wrapped__
    expected = [filtered_scores(scores[i : i + 1], SamplingRows.of([row]))[0] for i, row in enumerate(rows)]
    for small, ranked in ((8192, 128), (4, 8)):
        monkeypatch.setattr(filters, "SMALL", small)
        monkeypatch.setattr(filters, "RANKED", ranked)
        monkeypatch.setattr(filters, "_least_kept", untraced)
        np.testing.assert_array_equal(filtered_scores(scores, SamplingRows.of(rows)), expected)


def test_what_a_row_keeps_does_not_depend_on_its_neighbours():
    """Where the last digit of a sum decides what top_p keeps, and another row needs all of a large vocabulary sorted."""
    logits = random_logits(2, 40, filters.SMALL + 8, seed=7)
    ranked = jax.lax.top_k(logits[0], filters.RANKED)[0]
    probability = jax.nn.softmax(jnp.where(jnp.arange(filters.RANKED) < 100, ranked, -jnp.inf), axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability
    for place in range(40):
        own = Sampling(1.0, top_k=100, top_p=float(before[place, 20 + place]))
        here = logits[:, place : place + 1]
        alone = filters.least_kept(here[:1], SamplingRows.of([own]))
        together = filters.least_kept(here, SamplingRows.of([own, Sampling(1.0, top_p=0.9)]))
        np.testing.assert_array_equal(together[0], alone[0])


def test_draws_follow_the_filtered_softmax():
    sampling = Sampling(temperature=0.8, top_k=6, top_p=0.95)
    logits = random_logits(8, seed=5)
    positions = jnp.arange(20_000, dtype=jnp.int32)[None, :]
    tokens = keyed_sample(jnp.broadcast_to(logits, (1, 20_000, 8)), keys_of(3), positions, SamplingRows.of([sampling]))
    expected = np.asarray(jax.nn.softmax(filtered_scores(logits, SamplingRows.of([sampling]))), np.float64)
    counts = np.bincount(np.asarray(tokens[0]), minlength=8)
    assert counts[expected == 0].sum() == 0
    cells = expected > 0
    expected = expected[cells] / expected[cells].sum() * 20_000
    assert scipy.stats.chisquare(counts[cells], expected).pvalue > 0.01


def test_noise_of_neighbours_is_unrelated():
    noise = np.asarray(keyed_gumbel(keys_of(0, 1), jnp.array([[0, 1], [0, 1]], jnp.int32), 4000)).reshape(4, 4000)
    correlation = np.corrcoef(noise) - np.eye(4)
    assert np.abs(correlation).max() < 0.06
    assert abs(noise.mean() - np.euler_gamma) < 0.05


def test_log_probability_is_unfiltered():
    logits, tokens = random_logits(2, 3, 7), jnp.array([[0, 1, 2], [3, 4, 5]], jnp.int32)
    expected = jax.nn.log_softmax(logits)[jnp.arange(2)[:, None], jnp.arange(3)[None, :], tokens]
    np.testing.assert_allclose(token_log_probability(logits, tokens), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "bad",
    [
        *({"temperature": value} for value in (-1.0, float("nan"), float("inf"), 1e39)),
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        *({"repetition_penalty": value} for value in (0.0, 1e-50, 1e300, float("nan"))),
        {"rule": "lenient"},
    ],
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Sampling(**bad)
