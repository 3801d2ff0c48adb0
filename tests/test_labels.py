"""T* and the labels of every token, by hand."""

import numpy as np
import pytest

from specexit_jax.exits.labels import confidence_targets, sufficient_boundary, token_labels


@pytest.mark.parametrize(
    "agree, first, stable",
    [
        ([], None, None),
        ([0, 0], None, None),
        ([0, 1, 0, 1, 1, 1, 1, 0], 1, 3),
        ([1, 1, 1, 0, 1, 1], 0, 4),  # three are not enough before a failure, but they are at the end
        ([1, 1, 1, 1, 0], 0, 0),
        ([0, 0, 1], 2, 2),
        ([0.4, 0.5, 0.9], 1, 1),
    ],
)
def test_sufficient_boundary(agree, first, stable):
    assert sufficient_boundary(agree, "first") == first
    assert sufficient_boundary(agree, "stable") == stable


def test_stable_with_another_m():
    assert sufficient_boundary([1, 1, 0, 1, 1, 1], "stable", m=1) == 0
    assert sufficient_boundary([1, 0, 1], "stable", m=0) == 0


def test_labels_at_the_paragraphs_end():
    labels = token_labels(length=10, think_end=8, boundaries=[2, 4], agree=[0, 1], sufficient=1)
    np.testing.assert_array_equal(labels.mask, [[1] * 3] * 8 + [[0] * 3] * 2)
    np.testing.assert_array_equal(labels.values[:, 0], [0, 0, 0, 1, 1, 1, 1, 1, 0, 0])
    np.testing.assert_allclose(labels.values[:, 1], [0.6] * 3 + [1.0] * 5 + [0] * 2)
    np.testing.assert_array_equal(labels.values[:, 2], [2, 2, 2] + [0] * 7)
    assert labels.values.dtype == labels.mask.dtype == np.float32


def test_labels_at_the_token():
    labels = token_labels(10, 8, [2, 4], [0, 1], 1, place="token")
    np.testing.assert_array_equal(labels.values[:, 0], [0, 0, 0, 1, 1, 1, 1, 1, 0, 0])
    np.testing.assert_allclose(labels.values[:, 1], [0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(labels.values[:, 2], [4, 3, 2, 1, 0, 0, 0, 0, 0, 0])


def test_both_places_agree_at_boundaries():
    one, other = (token_labels(40, 35, [4, 11, 20, 30], [0, 0, 1, 1], 2, place) for place in ("paragraph_end", "token"))
    np.testing.assert_array_equal(one.values[[4, 11, 20, 30]], other.values[[4, 11, 20, 30]])


def test_closing_is_sufficient_where_no_boundary_is():
    labels = token_labels(7, 5, [1], [0], None, place="token")
    np.testing.assert_allclose(labels.values[:5, 1], [0.2, 0.4, 0.6, 0.8, 1.0])
    np.testing.assert_array_equal(labels.values[:5, 2], [4, 3, 2, 1, 0])


def test_a_trace_that_never_closes_trains_progress_zero_only():
    labels = token_labels(6, None, [1, 3], [0, 0], None)
    np.testing.assert_array_equal(labels.mask, [[0, 1, 0]] * 6)
    assert not labels.values.any()


def test_thinking_without_a_token_has_no_labels():
    assert not token_labels(3, 0, [], [], None).mask.any()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((5, 9, [], [], None), "outside a trace"),
        ((9, 8, [2], [], None), "1 boundaries but 0 agreements"),
        ((9, 8, [4, 2], [1, 1], None), "must ascend"),
        ((9, 8, [8], [1], None), "must ascend inside the 8"),
        ((9, 8, [2], [1], 1), "not one of the 1"),
        ((9, 8, [2], [1], 0, "middle"), "unknown place"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        token_labels(*arguments)


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unknown kind"):
        sufficient_boundary([1], "last")


def test_confidence_in_three_forms():
    label = {"id": "a", "agree": [True, False], "logprob": [-0.5, 0.0], "forced_ids": [[5, 6], []]}
    assert confidence_targets(label) == [1.0, 0.0]
    np.testing.assert_allclose(confidence_targets(label, "deer"), [np.exp(-0.5), 0.0])
    with pytest.raises(ValueError, match="the labels of a were made with one key, .* annotate with"):
        confidence_targets(label, "keys")
    assert confidence_targets(label | {"agree_share": [0.75, 0.25]}, "keys") == [0.75, 0.25]
    with pytest.raises(ValueError, match="unknown confidence 'mean': choose one of one, keys, deer"):
        confidence_targets(label, "mean")
