"""Packing keeps all documents and keeps them apart."""

import numpy as np
import pytest

from specexit_jax.data.packing import PackedRows, pack, plan_rows


def documents(count=40, seed=1):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 17, count)
    return [(np.arange(n, dtype=np.int64) + 100 * i, rng.random(n) < 0.5) for i, n in enumerate(lengths)]


def unpack(rows):
    """Documents found in packed rows, by segment."""
    found = []
    for row, segments in enumerate(rows["segment_ids"]):
        for segment in range(1, segments.max() + 1):
            where = np.flatnonzero(segments == segment)
            assert (np.diff(where) == 1).all()
            np.testing.assert_array_equal(rows["positions"][row, where], np.arange(len(where)))
            found.append((rows["tokens"][row, where], rows["loss_mask"][row, where]))
    return found


def test_every_document_is_packed_once_and_whole():
    given = documents()
    found = unpack(pack(given, row_length=16))
    assert len(found) == len(given)
    by_start = {int(ids[0]): (ids, mask) for ids, mask in found}
    for ids, mask in given:
        np.testing.assert_array_equal(by_start[int(ids[0])][0], ids)
        np.testing.assert_array_equal(by_start[int(ids[0])][1], mask)


def test_padding_is_segment_zero_and_carries_no_loss():
    rows = pack(documents(), row_length=16)
    padding = rows["segment_ids"] == 0
    assert padding.any()
    assert not rows["loss_mask"][padding].any() and not rows["tokens"][padding].any()


def test_rows_are_well_filled_and_their_order_is_seeded():
    lengths = np.random.default_rng(0).integers(20, 200, 2000)
    plan = plan_rows(lengths, 512, seed=3)
    assert sum(lengths) / (512 * len(plan)) > 0.97
    assert plan == plan_rows(lengths, 512, seed=3) != plan_rows(lengths, 512, seed=4)


def test_extra_columns_follow_their_tokens():
    given = documents()
    labels = [np.stack([ids, -ids], axis=-1).astype(np.float32) for ids, _ in given]
    rows = pack(given, row_length=16, extra={"labels": labels})
    np.testing.assert_array_equal(rows["labels"][..., 0], rows["tokens"])
    np.testing.assert_array_equal(rows["labels"][..., 1], -rows["tokens"])


@pytest.mark.parametrize("length", [0, 17])
def test_a_document_that_does_not_fit_is_named(length):
    with pytest.raises(ValueError, match=f"document 1 has {length} tokens"):
        pack([(np.arange(3), np.ones(3, bool)), (np.arange(length), np.ones(length, bool))], row_length=16)


def test_an_empty_list_and_a_short_column_are_refused():
    with pytest.raises(ValueError, match="no documents"):
        pack([], 16)
    with pytest.raises(ValueError, match="2 entries of labels for 3 tokens"):
        pack([(np.arange(3), np.ones(3, bool))], 16, extra={"labels": [np.zeros(2)]})


def test_rows_are_laid_out_when_they_are_asked_for():
    given = [{"tokens": ids, "loss_mask": mask} for ids, mask in documents()]
    lengths = [len(document["tokens"]) for document in given]
    lazy, whole = PackedRows(given, lengths, 16, seed=2), pack(documents(), 16, seed=2)
    assert len(lazy) == len(whole["tokens"])
    for name, values in whole.items():
        np.testing.assert_array_equal(np.stack([lazy[row][name] for row in range(len(lazy))]), values)
    alone = PackedRows(given, lengths, 16, together=False)
    assert len(alone) == len(given) and max(alone[row]["segment_ids"].max() for row in range(len(alone))) == 1
    starts = sorted(int(alone[row]["tokens"][0]) for row in range(len(alone)))
    assert starts == [100 * i for i in range(len(given))]
