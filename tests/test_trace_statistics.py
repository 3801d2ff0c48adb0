"""Readings and running statistics: against a plain definition, and equal however the text is divided."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specexit_jax.exits.readings import READINGS, readings_ahead, written_readings
from specexit_jax.exits.score import Score, ScoreNetwork, from_json, statistics_of, to_json
from specexit_jax.exits.signals import PAPER
from specexit_jax.exits.trace_statistics import SURPRISED, statistic_names

TOKENS = 41


@pytest.fixture
def text():
    """(columns [2, TOKENS, 8], boundary [2, TOKENS])"""
    rng = np.random.default_rng(0)
    shares = rng.uniform(0.05, 0.95, (2, TOKENS, 2))
    remain, readings = rng.uniform(1, 300, (2, TOKENS, 1)), rng.exponential(0.8, (2, TOKENS, 5))
    columns = np.concatenate([shares, remain, readings], axis=-1).astype(np.float32)
    return columns, rng.random((2, TOKENS)) < 0.2


def network(seed=1, hidden=5):
    rng, size = np.random.default_rng(seed), len(statistic_names(PAPER))
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return ScoreNetwork(draw(size), 1 + draw(size) ** 2, 0.3 * draw(size, hidden), draw(hidden), draw(hidden + 1))


def test_readings_are_of_the_softmax():
    rng = np.random.default_rng(3)
    logits, tokens = rng.normal(size=(2, 3, 17)) * 4, rng.integers(0, 17, (2, 3))
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    own = np.take_along_axis(p, tokens[..., None], -1)[..., 0]
    expected = np.stack([-np.log(own), np.log(p.max(-1) / own), -(p * np.log(p)).sum(-1)], axis=-1)
    logits = jnp.asarray(logits, jnp.float32)
    np.testing.assert_allclose(written_readings(logits, jnp.asarray(tokens, jnp.int32)), expected, rtol=1e-5, atol=1e-5)
    ahead = readings_ahead(logits, (4, 9))
    np.testing.assert_allclose(ahead, np.stack([-np.log(p[..., 4]), expected[..., 2]], axis=-1), rtol=1e-5, atol=1e-5)
    assert (readings_ahead(logits, ())[..., 0] == 0).all()


def test_readings_where_tokens_are_ruled_out():
    logits = jnp.asarray([[[0.0, -jnp.inf, 0.0]]], jnp.float32)
    np.testing.assert_allclose(
        written_readings(logits, jnp.zeros((1, 1), jnp.int32))[0, 0], [np.log(2), 0, np.log(2)], atol=1e-6
    )


def plainly(columns, boundary):
    """The statistics after the last token, from the whole text."""
    raw = np.concatenate(
        [np.log(columns[:, :2] / (1 - columns[:, :2])), np.log(columns[:, 2:3]), columns[:, 6:7]], axis=1
    )
    seen, ends = columns[:, 3:6], np.flatnonzero(boundary[:-1])
    starts = [0, *(ends + 1)]
    paragraphs = [seen[a:b] for a, b in zip(starts, [*(ends + 1), len(seen)], strict=True)]
    here, past = paragraphs[-1], raw[ends]
    found = [
        seen.mean(0),
        seen.max(0),
        np.sort(seen, axis=0)[-2] if len(seen) > 1 else np.zeros(3),
        here.mean(0),
        here.max(0),
    ]
    found += [paragraphs[0].mean(0), paragraphs[0].max(0), np.max([p.mean(0) for p in paragraphs], axis=0), seen[-1]]
    counts = [np.log1p(len(seen)), np.log1p(len(here)), np.log1p(len(ends))]
    found += [counts, [(seen[:, 0] > SURPRISED).mean(), (here[:, 0] > SURPRISED).mean()]]
    found += [columns[-1, 7:8]]
    found += [raw[-1], past.max(0), past.min(0), past[-1], past.mean(0)] if len(ends) else [raw[-1]] * 5
    return np.concatenate(found)


def test_statistics_are_those_of_the_text_so_far(text):
    columns, boundary = text
    found = np.asarray(statistics_of(PAPER, jnp.asarray(columns), jnp.asarray(boundary)))
    assert found.shape[-1] == len(statistic_names(PAPER)) and boundary[:, : TOKENS - 1].sum() > 4
    for row in range(2):
        for token in range(TOKENS):
            expected = plainly(columns[row, : token + 1], boundary[row, : token + 1])
            np.testing.assert_allclose(found[row, token], expected, rtol=2e-4, atol=2e-4)


def test_the_score_of_a_boundary_stands_until_the_next(text):
    columns, boundary = (jnp.asarray(values) for values in text)
    score = Score(network(), PAPER)
    found = np.asarray(score.scan(score.init(2), columns, boundary))[..., -1]
    each = np.asarray(network()(statistics_of(PAPER, columns, boundary)))
    for row in range(2):
        standing = 0.0
        for token in range(TOKENS):
            standing = each[row, token] if boundary[row, token] else standing
            np.testing.assert_allclose(found[row, token], standing, rtol=1e-5)
    assert not boundary[:, 0].any() and len(np.unique(found)) > 8


def test_a_network_may_read_some_of_the_statistics(text):
    columns, boundary = (jnp.asarray(values) for values in text)
    names = tuple(name for name in statistic_names(PAPER) if "entropy" not in name)
    some = np.isin(statistic_names(PAPER), names)
    whole = network()
    part = {name: getattr(whole, name)[some] for name in ("centre", "spread", "weights")}
    fewer, zeroed = (
        whole.replace(statistics=names, **part),
        whole.replace(weights=jnp.where(some[:, None], whole.weights, 0)),
    )
    found, same = (Score(one, PAPER).scan(Score(one, PAPER).init(2), columns, boundary) for one in (fewer, zeroed))
    np.testing.assert_allclose(found, same, rtol=1e-5, atol=1e-6)
    back = from_json(to_json(fewer, PAPER), PAPER)
    assert back.statistics == names and back.weights.shape == (len(names), 5)


@pytest.mark.parametrize("parts", [[41], [1] * 41, [4] * 10 + [1], [17, 3, 21]])
def test_a_score_does_not_depend_on_how_the_text_is_divided(text, parts):
    """Each part is seen with 3 more tokens, which are then not kept."""
    columns, boundary = (jnp.asarray(values) for values in text)
    score = Score(network(), PAPER)
    whole = score.scan(score.init(2), columns, boundary)
    assert whole.shape == (2, TOKENS, 4) and score.reads == (*PAPER, *READINGS)
    np.testing.assert_array_equal(whole[..., :3], columns[..., :3])
    wide, marks = jnp.pad(columns, ((0, 0), (0, 3), (0, 0)), constant_values=0.5), jnp.pad(boundary, ((0, 0), (0, 3)))
    state, start, found = score.init(2), 0, []
    scan, commit = jax.jit(score.scan), jax.jit(score.commit)
    for size in parts:
        seen = wide[:, start : start + size + 3], marks[:, start : start + size + 3]
        found.append(scan(state, *seen)[:, :size])
        state, start = commit(state, *seen, jnp.full((2,), size, jnp.int32)), start + size
    np.testing.assert_allclose(jnp.concatenate(found, axis=1), whole, rtol=1e-5, atol=1e-6)


def test_a_network_comes_back_from_json_and_a_broken_one_is_refused():
    told = to_json(network(), PAPER)
    back = from_json(told, PAPER)
    jax.tree.map(np.testing.assert_array_equal, back, network())
    for broken, reason in [
        ({"hidden": 4}, "weights .* are not"),
        ({"statistics": ["tokens", "of tea leaves"]}, "other statistics"),
        ({"statistics": ["paragraphs", "tokens"]}, "other statistics"),
        ({"statistics": ["tokens"]}, "centre .* are not 1"),
        ({"centre": "!"}, "centre"),
        ({"hidden": True}, "hidden units"),
        ({"spread": to_json(network().replace(spread=jnp.full((53,), jnp.nan)), PAPER)["spread"]}, "finite"),
    ]:
        with pytest.raises(ValueError, match=reason):
            from_json(told | broken, PAPER)
    with pytest.raises(ValueError, match="exactly"):
        from_json({}, PAPER)
