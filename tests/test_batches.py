"""Batches depend on the step alone, and not on how they are read or shared among processes."""

import numpy as np
import pytest

from specexit_jax.data.batches import Batches, RowsInMemory

COUNT, SIZE = 11, 4


class Counted(RowsInMemory):
    """Rows that record which of them were read."""

    def __init__(self):
        super().__init__({"tokens": 10 * np.arange(COUNT)[:, None] + np.arange(3)})
        self.asked = []

    def __getitem__(self, row):
        self.asked.append(row)
        return super().__getitem__(row)


def numbers(*batches):
    return [number for batch in batches for number in (batch["tokens"][:, 0] // 10).tolist()]


def test_batches_are_a_function_of_the_step_and_epochs_are_permutations():
    batches, again = (Batches(Counted(), SIZE, seed=5) for _ in range(2))
    epochs = 4
    stream = numbers(*(batches(step) for step in range(COUNT * epochs // SIZE)))
    for step in (7, 0, 4):  # out of order, from another object
        assert numbers(again(step)) == stream[step * SIZE : (step + 1) * SIZE]
    orders = [stream[e * COUNT : (e + 1) * COUNT] for e in range(epochs)]
    assert all(sorted(order) == list(range(COUNT)) for order in orders)
    assert orders[0] != orders[1]
    other = Batches(Counted(), SIZE, seed=6)
    assert stream != numbers(*(other(step) for step in range(11)))


@pytest.mark.parametrize("start", [0, 1, 9])
def test_reading_ahead_starts_at_any_step(start):
    batches = Batches(Counted(), SIZE, seed=5)
    ahead = batches.iterate(start)
    for step in range(start, start + 6):
        np.testing.assert_array_equal(next(ahead)["tokens"], batches(step)["tokens"])


def test_processes_share_a_batch_and_read_their_own_rows_alone():
    whole = Batches(Counted(), SIZE, seed=5)
    shares, sources = ([0, 1], [2], [3]), [Counted() for _ in range(3)]
    parts = [Batches(source, SIZE, seed=5, share=share) for source, share in zip(sources, shares, strict=True)]
    for step in range(5):
        assert numbers(*(part(step) for part in parts)) == numbers(whole(step))
    assert [len(source.asked) for source in sources] == [10, 5, 5]


def test_nothing_to_read_is_refused():
    with pytest.raises(ValueError, match="no rows"):
        Batches(RowsInMemory({"tokens": np.zeros((0, 3))}), 2)
    with pytest.raises(ValueError, match="at least 1 row"):
        Batches(Counted(), 0)
