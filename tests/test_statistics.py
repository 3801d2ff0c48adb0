"""Statistics against scipy, scikit-learn and brute force."""

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn import calibration as sklearn_calibration
from sklearn import metrics

from specexit_jax.evaluation import score_quality, statistics


@pytest.mark.parametrize(("successes", "n"), [(0, 20), (1, 20), (10, 20), (20, 20), (5953, 6000)])
def test_the_interval_of_a_proportion_is_scipys(successes, n):
    expected = scipy_stats.binomtest(successes, n).proportion_ci(method="wilson")
    got = statistics.wilson(successes, n)
    np.testing.assert_allclose([got.low, got.high], [expected.low, expected.high], atol=1e-12)
    assert got.low <= got.value <= got.high


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="3 successes of 2"):
        statistics.wilson(3, 2)
    with pytest.raises(ValueError, match="0 successes of 0"):
        statistics.wilson(0, 0)


def test_mean_of_estimates_covers_the_mean_over_tasks():
    rng = np.random.default_rng(0)
    p = np.array([0.95, 0.99, 0.7])
    hits = 0
    for _ in range(600):
        draws = rng.binomial(60, p)
        mean = statistics.mean_of_estimates([statistics.wilson(int(k), 60) for k in draws])
        hits += mean.low <= p.mean() <= mean.high
    assert 0.93 < hits / 600 < 0.985


def test_mean_of_estimates_keeps_a_width_where_nothing_went_wrong():
    mean = statistics.mean_of_estimates([statistics.wilson(20, 20)] * 6)
    assert mean.value == mean.high == 1.0
    assert 0.90 < mean.low < 0.97


def test_bootstrap_is_scipys():
    rng = np.random.default_rng(1)
    x = rng.exponential(size=150)
    y = x * rng.uniform(0.2, 0.9, 150)

    def ratio(a, b, axis):
        return a.mean(axis) / b.mean(axis)

    expected = scipy_stats.bootstrap(
        (y, x), ratio, paired=True, vectorized=True, method="percentile", n_resamples=20_000, rng=rng
    ).confidence_interval  # fmt: skip
    got = statistics.paired_ratio([np.stack([y, x], axis=1)], resamples=20_000)
    np.testing.assert_allclose(got.value, y.mean() / x.mean())
    np.testing.assert_allclose([got.low, got.high], expected, atol=0.004)


def test_paired_difference_uses_the_pairing():
    rng = np.random.default_rng(2)
    hard = rng.random(800)
    base = (hard < 0.8).astype(float)
    better = (hard < 0.82).astype(float)
    pairs = np.stack([better, base], axis=1)
    paired = statistics.paired_difference([pairs])
    broken = statistics.paired_difference([np.stack([better, rng.permutation(base)], axis=1)])
    assert paired.low > 0 > broken.low
    assert paired.high - paired.low < 0.5 * (broken.high - broken.low)


def test_difference_weighs_tasks_alike():
    small, large = np.array([[1.0, 0.0]] * 4), np.array([[0.0, 0.0]] * 400)
    got = statistics.paired_difference([small, large])
    assert got == (0.5, 0.5, 0.5)


def test_stratified_interval_covers():
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(300):
        strata = [rng.normal([1.0 + k, 1.0], [1.0, 0.5], (60, 2)) for k in range(3)]
        got = statistics.paired_difference(strata, resamples=400, seed=trial)
        hits += got.low <= 1.0 <= got.high
    assert 0.90 < hits / 300 < 0.985


def test_bootstrap_is_fixed_by_its_seed_and_chunks_do_not_matter(monkeypatch):
    values = [np.random.default_rng(4).random((50, 2)), np.random.default_rng(5).random((7, 2))]
    one = statistics.bootstrap_means(values, 300, seed=1)
    np.testing.assert_array_equal(one, statistics.bootstrap_means(values, 300, seed=1))
    assert np.any(one != statistics.bootstrap_means(values, 300, seed=2))
    monkeypatch.setattr(statistics, "_CHUNK", 64)
    small = statistics.bootstrap_means(values, 300, seed=1)
    np.testing.assert_allclose(small.mean(0), one.mean(0), atol=0.02)
    with pytest.raises(ValueError, match="over no problems"):
        statistics.bootstrap_means([np.zeros((0, 2))])


def test_bootstrap_of_two_problems_is_the_binomial():
    drawn = statistics.bootstrap_means([np.array([[0.0], [1.0]])], 20_000)[:, 0]
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [0.0, 0.5, 1.0]
    np.testing.assert_allclose(counts / 20_000, [0.25, 0.5, 0.25], atol=0.015)


def test_undefined_ratio_is_nan_not_an_error():
    assert np.isnan(statistics.paired_ratio([np.zeros((5, 2))]).value)


def test_auc_and_brier_are_sklearns_with_ties():
    rng = np.random.default_rng(6)
    labels = rng.random(500) < 0.3
    scores = np.round(np.clip(0.4 * labels + rng.random(500) * 0.6, 0, 1), 1)
    assert len(np.unique(scores)) < 12
    np.testing.assert_allclose(score_quality.auc(labels, scores), metrics.roc_auc_score(labels, scores))
    np.testing.assert_allclose(score_quality.brier(labels, scores), metrics.brier_score_loss(labels, scores))
    assert score_quality.auc(labels, np.zeros(500)) == 0.5
    assert np.isnan(score_quality.auc(np.ones(5, bool), np.arange(5)))


def test_reliability_is_sklearns():
    rng = np.random.default_rng(7)
    p = rng.beta(0.5, 0.5, 2000)
    labels = rng.random(2000) < p
    observed, predicted = sklearn_calibration.calibration_curve(labels, p, n_bins=10)
    bins = score_quality.reliability(labels, p, bins=10)
    np.testing.assert_allclose(bins.observed, observed)
    np.testing.assert_allclose(bins.predicted, predicted)
    assert bins.count.sum() == 2000 and bins.error < 0.05
    assert score_quality.reliability(~labels, p).error > 0.2
    edge = score_quality.reliability(np.array([True, False]), np.array([1.0, 0.0]))
    assert edge.error == 0.0 and list(edge.left) == [0.0, 0.9]


def test_mcnemar():
    assert statistics.mcnemar(0, 0) == 1.0
    np.testing.assert_allclose(statistics.mcnemar(0, 6), 2 / 64)


def test_identical_seeds_say_what_one_says():
    """Three equal seeds are one observation of a problem, so interval and p-value are those of one seed."""
    rng = np.random.default_rng(8)
    right = rng.random((60, 2)) < (0.9, 0.8)
    names = [str(number) for number in range(60)]
    thrice = statistics.by_problem(np.repeat(right, 3, axis=0), np.repeat(names, 3).tolist())
    np.testing.assert_array_equal(thrice, right)
    assert statistics.share(thrice[:, 0]) == statistics.wilson(int(right[:, 0].sum()), 60)
    harmed, mended = (right[:, 0] & ~right[:, 1]).sum(), (~right[:, 0] & right[:, 1]).sum()
    assert statistics.sign_flips(thrice @ [1, -1]) == statistics.mcnemar(int(harmed), int(mended))


def test_a_share_of_one_keeps_the_width_of_its_problems():
    assert statistics.share(np.ones(30)) == statistics.wilson(30, 30)
    nearly = statistics.share(np.r_[np.ones(29), 2 / 3])
    assert 0.85 < nearly.low < 0.9 and nearly.high < 1, "one seed of 90 wrong is not known better than none"


@pytest.mark.parametrize("spread", [0.02, 0.5, 0.98])
def test_the_interval_of_a_share_covers_with_correlated_seeds(spread):
    """60 problems of three seeds; spread: the correlation of a problem's seeds."""
    rng, truth = np.random.default_rng(9), 0.9
    odds = 1 / spread - 1
    drawn = rng.binomial(3, rng.beta(truth * odds, (1 - truth) * odds, (800, 60))) / 3
    found = np.array([statistics.share(row) for row in drawn])
    covers = (found[:, 1] <= truth) & (truth <= found[:, 2])
    assert covers.mean() > 0.93
    if spread < 0.1:  # nearly independent seeds give more information than one
        alone = statistics.wilson(54, 60)
        assert np.median(found[:, 2] - found[:, 1]) < 0.75 * (alone.high - alone.low)


def test_sign_flips_are_all_flips():
    rng = np.random.default_rng(10)
    for parts in (3, 4, 6):
        apart = rng.integers(-parts, parts + 1, 11) / parts
        signs = 1 - 2 * (np.arange(2**11)[:, None] >> np.arange(11) & 1)
        exact = np.mean(np.abs(signs @ apart) >= abs(apart.sum()) - 1e-9)
        assert statistics.sign_flips(apart) == pytest.approx(exact)
    assert statistics.sign_flips(np.zeros(5)) == 1.0


def test_a_p_value_of_correlated_seeds_is_rarely_small_without_an_effect():
    """Five correlated seeds of each of 40 problems. Counted as independent, they would reject in one draw of four."""
    rng, small, naive = np.random.default_rng(11), 0, 0
    for _ in range(400):
        luck = rng.normal(size=(40, 1)) + 0.3 * rng.normal(size=(40, 5))
        apart = (luck > 0.8).astype(int) - (luck < -0.8).astype(int)
        small += statistics.sign_flips(apart.mean(axis=1)) <= 0.05
        naive += statistics.mcnemar(int((apart > 0).sum()), int((apart < 0).sum())) <= 0.05
    assert small <= 29 and naive > 80


def test_boundaries_of_a_problem_do_not_narrow_a_reliability_curve():
    rng = np.random.default_rng(12)
    p = rng.random(300)
    labels = rng.random(300) < p
    once = score_quality.reliability(labels, p)
    problems = np.repeat(np.arange(300).astype(str), 20).tolist()
    many = score_quality.reliability(np.repeat(labels, 20), np.repeat(p, 20), problems=problems)
    np.testing.assert_allclose([many.low, many.high, many.observed], [once.low, once.high, once.observed], atol=1e-9)
