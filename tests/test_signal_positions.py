"""Boundary tokens spread over traces: as many traces as the budget of positions, or of tokens, allows."""

import numpy as np
import pytest

from specexit_jax.data.batches import RowsInMemory
from specexit_jax.training.features import TokenReader
from specexit_jax.training.signal_positions import spread_positions

LENGTH, DOCUMENTS = 40, 3


class Rows(RowsInMemory):
    """Counts what is read."""

    seen = 0

    def __getitem__(self, row):
        self.seen += 1
        return super().__getitem__(row)


def packed_rows(count=20, seed=0):
    """Rows of 3 documents of different lengths; `features` name the row and the token. Document 2 repeats the prompt of the same
    document in the row before, in every second row."""
    rng, rows = np.random.default_rng(seed), []
    for number in range(count):
        lengths = [6, 12, 18]
        segment = np.repeat([1, 2, 3, 0], [*lengths, LENGTH - sum(lengths)])
        start = np.cumsum([0, *lengths])[:3]
        tokens = rng.integers(1, 500, LENGTH)
        written = segment > 0
        for first in start:
            written[first : first + 2] = False
        if number % 2:
            tokens[start[1] : start[1] + 2] = rows[-1]["tokens"][start[1] : start[1] + 2]
        boundary = written & (rng.random(LENGTH) < 0.7)
        mask = np.where(boundary[:, None], rng.random((LENGTH, 3)) < 0.8, True) * 1.0
        rows.append(
            {"tokens": tokens.astype(np.int32), "segment_ids": segment.astype(np.int32), "loss_mask": written,
             "positions": np.arange(LENGTH, dtype=np.int32), "boundary": boundary, "label_mask": mask.astype(np.float32),
             "labels": rng.random((LENGTH, 3)).astype(np.float32),
             "features": np.stack([np.full(LENGTH, number), np.arange(LENGTH)], 1).astype(np.float32)}
        )  # fmt: skip
    return Rows({name: np.stack([row[name] for row in rows]) for name in rows[0]})


READER = TokenReader(lambda _, batch: batch["features"], None)


def spread(source, most=10**6, tokens=10**9, seed=0, **options):
    return spread_positions(READER, source, most, tokens, seed, 4, **options)


def labelled(source):
    """{(row, document): its labelled boundaries}, the slow way."""
    found = {}
    for row in range(len(source)):
        one = source[row]
        for place in range(LENGTH):
            if one["boundary"][place] and one["label_mask"][place].any():
                found.setdefault((row, int(one["segment_ids"][place])), []).append(place)
    return found


def drawn(source, found):
    """The same of what was drawn, from its features."""
    rows, places = found.inputs.astype(int).T
    drawn = {}
    for row, place in zip(rows, places, strict=True):
        drawn.setdefault((int(row), int(source[row]["segment_ids"][place])), []).append(int(place))
    return {key: sorted(values) for key, values in drawn.items()}


def test_everything_is_taken_where_the_budgets_allow():
    source = packed_rows()
    found = spread(source)
    assert drawn(source, found) == labelled(source)
    rows, places = found.inputs.astype(int).T
    np.testing.assert_array_equal(found.labels, source.rows["labels"][rows, places])
    np.testing.assert_array_equal(found.mask, source.rows["label_mask"][rows, places] > 0)
    assert found.tokens == 20 * LENGTH


@pytest.mark.parametrize("most", [25, 60, 97, 200])
def test_every_trace_gives_the_same_share(most):
    """Up to rounding; so as many traces as can be are among them."""
    source = packed_rows()
    found, there = drawn(source, spread(source, most)), labelled(source)
    counts = {key: len(found.get(key, ())) for key in there}
    assert sum(counts.values()) == most
    assert all(set(places) <= set(there[key]) for key, places in found.items())
    # One share t explains every count: floor or ceiling of n t.
    low = max((count - 1) / len(there[key]) for key, count in counts.items())
    high = min((count + 1) / len(there[key]) for key, count in counts.items())
    assert low < high


def test_places_are_drawn_at_random():
    """Over seeds every boundary of every trace comes about equally often."""
    source = packed_rows(4)
    places = [(*key, place) for key, own in labelled(source).items() for place in own]
    counts = dict.fromkeys(places, 0)
    rounds, most = 300, 12
    for seed in range(rounds):
        for key, own in drawn(source, spread(source, most, seed=seed)).items():
            for place in own:
                counts[(*key, place)] += 1
    wanted = rounds * most / len(places)
    assert all(abs(count - wanted) < 5 * wanted**0.5 for count in counts.values())


def test_the_tokens_that_are_read_are_bounded():
    source = packed_rows()
    found = spread(source, tokens=8 * LENGTH + 1)
    assert found.tokens == 8 * LENGTH and len({row for row, _ in drawn(source, found)}) == 8
    assert spread(source, tokens=1).tokens == 4 * LENGTH  # one batch at least


def test_it_follows_from_the_seed():
    source = packed_rows()
    one, again, other = (spread(source, 50, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.inputs, again.inputs)
    assert drawn(source, one) != drawn(source, other)


def test_traces_of_one_problem_share_its_number():
    source = packed_rows()
    found = spread(source)
    rows, places = found.inputs.astype(int).T
    prompts = {}
    for row, place, problem in zip(rows, places, found.problem, strict=True):
        segment = source[row]["segment_ids"][place]
        start = int(np.argmax(source[row]["segment_ids"] == segment))
        prompts.setdefault(tuple(source[row]["tokens"][start : start + 2]), set()).add(int(problem))
    assert all(len(numbers) == 1 for numbers in prompts.values())
    assert len(prompts) == len(np.unique(found.problem)) == 50 < len(np.unique(found.trace)) == 60


def test_inputs_are_kept_where_they_are_solved():
    source = packed_rows()
    full, bare = spread(source, 50), spread(source, 50, keep=False)
    assert bare.inputs is None
    np.testing.assert_array_equal(full.labels, bare.labels)
    np.testing.assert_array_equal(full.trace, bare.trace)


def test_rows_without_a_labelled_boundary_are_refused():
    rows = packed_rows().rows
    with pytest.raises(ValueError, match="no boundary"):
        spread(Rows(rows | {"label_mask": np.zeros_like(rows["label_mask"])}))
