"""Exits that are computed without decoding: the oracle, thresholds of a score, and the causality of the ceiling."""

import dataclasses

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from specexit_jax.evaluation import bounds, ceiling
from specexit_jax.evaluation.score_quality import auc


def _annotated(count: int, seed: int, width: int = 12) -> tuple[list, list, dict]:
    """Traces whose features hold a noisy signal of whether the answer forced at a boundary agrees."""
    rng, directions = np.random.default_rng(seed), np.random.default_rng(99).normal(size=(2, width))
    traces, labels, features = [], [], {}
    for i in range(count):
        boundaries = np.cumsum(rng.integers(3, 9, rng.integers(3, 10))) - 1
        agree = np.arange(len(boundaries)) >= rng.integers(1, len(boundaries))
        full = bool(rng.random() < 0.9)
        end = int(boundaries[-1]) + 1
        latent = np.stack([0.9 * (2 * agree - 1) + rng.normal(size=len(agree)), rng.normal(size=len(agree))], axis=1)
        name = f"{'ab'[i % 2]}-{i}"
        traces.append(
            {"id": name, "task": "ab"[i % 2], "split": "test", "ids": list(range(end + 4)), "think_end": end,
             "answer": "7", "correct": full, "finish": "stop", "seed": 3}
        )  # fmt: skip
        labels.append(
            {"id": name, "boundaries": boundaries.tolist(), "forced_ids": [[1, 2, 3]] * len(agree),
             "forced": ["7" if a else "8" for a in agree], "agree": agree.tolist(),
             "correct": (agree & full).tolist(), "first": int(np.argmax(agree)), "stable": int(np.argmax(agree))}
        )  # fmt: skip
        features[name] = (latent @ directions + 0.3 * rng.normal(size=(len(agree), width))).astype(np.float32)
    return traces, labels, features


class Fitted:
    """Both stages, on traces apart, with few trees."""

    def __init__(self, train: bounds.Boundaries, development: bounds.Boundaries):
        with threadpool_limits(1):  # threads cost more than they spare on so little
            self.reading = ceiling.fit_reading(train)
            self.ceiling = ceiling.fit_ceiling(self.reading.columns(development), development, trees=8)

    def scores(self, table: bounds.Boundaries) -> np.ndarray:
        return self.ceiling.scores(self.reading.columns(table))


@pytest.fixture(scope="module")
def fitted():
    return Fitted(*(bounds.gather_boundaries(*_annotated(count, seed)) for count, seed in ((300, 0), (400, 20))))


def test_outcomes_are_those_of_the_labels():
    traces, labels, features = _annotated(30, 1)
    table = bounds.gather_boundaries(traces, labels[::-1], features, end_think_length=2)
    exits = np.full(30, bounds.NO_EXIT)
    exits[4] = table.starts[4] + 2
    tokens, correct = bounds.outcomes(table, exits)
    for i in range(30):
        if i != 4:
            assert (tokens[i], correct[i]) == (len(traces[i]["ids"]), traces[i]["correct"])
    assert tokens[4] == labels[4]["boundaries"][2] + 1 + 2 + 3
    assert correct[4] == labels[4]["correct"][2]


def test_oracle_keeps_every_answer_and_no_agreeing_exit_is_shorter():
    traces, labels, features = _annotated(200, 2)
    table = bounds.gather_boundaries(traces, labels, features)
    tokens, correct = bounds.outcomes(table, bounds.oracle_exits(table))
    np.testing.assert_array_equal(correct, table.full_correct)
    for i, label in enumerate(labels):
        assert tokens[i] == min(b + 5 for b, agrees in zip(label["boundaries"], label["agree"], strict=True) if agrees)


def test_threshold_exits_at_the_first_boundary_that_reaches_it():
    table = bounds.gather_boundaries(*_annotated(3, 3)[:2])
    scores = np.zeros(len(table.row))
    second = table.starts[1]
    scores[[second + 1, second + 2]] = 0.5, 0.9
    assert bounds.threshold_exits(table, scores, 0.5).tolist() == [-1, second + 1, -1]
    assert bounds.threshold_exits(table, scores, 0.6).tolist() == [-1, second + 2, -1]
    assert bounds.threshold_exits(table, scores, 1.0).tolist() == [-1] * 3


def test_the_chosen_threshold_keeps_to_the_bound_with_the_fewest_tokens():
    table = bounds.gather_boundaries(*_annotated(400, 4)[:2])
    rng = np.random.default_rng(0)
    scores = table.agree + rng.normal(0, 0.6, len(table.row))
    weights = np.full(400, 1 / 400)  # two tasks of 200
    drops, tokens = {}, {}
    for bound in (0.0, 0.02, 0.2):
        choice = bounds.choose_threshold(table, scores, bound)
        counted, correct = bounds.outcomes(table, bounds.threshold_exits(table, scores, choice.thresholds[0]))
        drops[bound] = weights @ (table.full_correct.astype(float) - correct)
        tokens[bound] = weights @ counted
        np.testing.assert_allclose([choice.tokens, choice.drop], [tokens[bound], drops[bound]], atol=1e-9)
        assert drops[bound] <= bound + 1e-9
    assert tokens[0.2] < tokens[0.02] < tokens[0.0] <= weights @ table.full_tokens


def test_records_of_a_bound():
    traces, labels, features = _annotated(6, 5)
    labels[1]["first"] = None
    table = bounds.gather_boundaries(traces, labels, features)
    records = bounds.bound_records(table, bounds.oracle_exits(table), "oracle")
    first = labels[0]["boundaries"][labels[0]["first"]]
    assert (records[0].exit_index, records[0].thinking_tokens, records[0].tokens) == (first + 1, first + 1, first + 5)
    assert (records[0].answer, records[0].seed, records[0].source, records[0].key) == (
        "7",
        3,
        "replay",
        ("a", "a-0", 3),
    )
    assert not records[1].exited and records[1].tokens == len(traces[1]["ids"])
    assert records[1].thinking_tokens == traces[1]["think_end"]


def test_no_exit_after_the_last_token_of_a_trace_that_ran_out_of_room():
    traces, labels, features = _annotated(4, 6)
    traces[1] |= {
        "think_end": None,
        "ids": traces[1]["ids"][: traces[1]["think_end"]],
        "finish": "length",
        "correct": False,
    }
    labels[1] |= {"first": None}
    table = bounds.gather_boundaries(traces, labels, features)
    counts = [len(label["boundaries"]) for label in labels]
    counts[1] -= 1
    assert np.diff(table.starts).tolist() == counts
    assert len(table.features) == len(table.answers) == sum(counts)
    for i in (0, 2, 3):  # `first` still points at the same boundary
        assert table.index[table.first[i]] == labels[i]["boundaries"][labels[i]["first"]]
    assert table.first[1] == bounds.NO_EXIT and not table.closed[1]


def test_the_ceiling_reads_statistics():
    """Features that tell nothing, and statistics that tell all that there is."""
    traces, labels, known = _annotated(300, 8)
    rng, found = np.random.default_rng(1), []
    noise = {name: rng.normal(size=rows.shape).astype(np.float32) for name, rows in known.items()}
    for statistics in (None, known):
        table = bounds.gather_boundaries(traces, labels, noise, statistics=statistics)
        found.append(max(Fitted(table, table).ceiling.held_out.values()))
    assert found[1] > 0.9 > found[0] + 0.02
    assert bounds.select(table, table.row == 0).statistics.shape == known[traces[0]["id"]].shape


def test_signals_that_know_their_own_traces_do_not_mislead():
    """Extra columns that hold the answer on the draft's training split, as signals of an overfitted draft would, and nothing on
    other traces: the first stage does not read them there."""
    splits = []
    for seed in (0, 20, 30):
        traces, labels, features = _annotated(300, seed)
        rng = np.random.default_rng(seed)
        told = {label["id"]: np.asarray(label["agree"], np.float32)[:, None] for label in labels}
        if seed:
            told = {name: rng.permutation(rows) for name, rows in told.items()}
        splits.append(bounds.gather_boundaries(traces, labels, features, told))
    train, development, test = splits
    bare = [dataclasses.replace(split, extra=split.extra[:, :0]) for split in splits]
    told, alone = Fitted(train, development).scores(test), Fitted(*bare[:2]).scores(bare[2])
    assert auc(test.agree, told) > auc(test.agree, alone) - 0.02 > 0.85


def test_scores_of_development_come_from_other_problems(fitted):
    """Columns that name the problem: in-sample scores would be perfect."""
    table = bounds.gather_boundaries(*_annotated(200, 21))
    rng = np.random.default_rng(0)
    table = dataclasses.replace(table, agree=rng.random(len(table.agree)) < rng.random(200)[table.row])
    columns = np.eye(200, dtype=np.float32)[table.row]
    with threadpool_limits(1):
        found = ceiling.fit_ceiling(columns, table, trees=8)
    assert auc(table.agree, found.left_out) < 0.6 and found.held_out[found.chosen] < 0.6
    assert auc(table.agree, found.scores(columns)) > 0.7  # of models that have seen all of them


def test_samples_of_a_problem_are_on_one_side_of_every_split():
    traces, labels, features = _annotated(90, 9)
    for number, (trace, label) in enumerate(zip(traces, labels, strict=True)):
        name, sample = f"a/train/{number // 3}", number % 3
        features[name := name + (f"/sample-{sample}" if sample else "")] = features.pop(trace["id"])
        trace.update(id=name, sample=sample)
        label.update(id=name)
    table = bounds.gather_boundaries(traces, labels, features)
    fold, order = ceiling._folds_and_order(table, 0)
    sides = {}
    for row, *sorts in zip(table.row, fold, order, strict=True):
        sides.setdefault(table.problems[row], set()).add(tuple(sorts))
    assert len(sides) == 30 and all(len(numbers) == 1 for numbers in sides.values())
    assert len({*map(tuple, sides.values())}) == 30 and set(fold) == set(range(5))


def test_mismatched_files_are_refused():
    traces, labels, features = _annotated(4, 7)
    with pytest.raises(ValueError, match="1 traces have no labels"):
        bounds.gather_boundaries(traces, labels[1:])
    with pytest.raises(ValueError, match="features do not match"):
        bounds.gather_boundaries(traces, labels, features | {traces[0]["id"]: np.zeros((1, 12))})
    with pytest.raises(ValueError, match="features do not match"):
        bounds.gather_boundaries(traces, labels, {})
    with pytest.raises(ValueError, match="needs captured features"):
        ceiling.fit_reading(bounds.gather_boundaries(traces, labels))


def test_the_ceiling_beats_one_boundarys_features(fitted):
    test = bounds.gather_boundaries(*_annotated(300, 8))
    directions = np.random.default_rng(99).normal(size=(2, 12))
    # least squares on the boundary alone: the latent variable of the features, without earlier boundaries
    alone = np.linalg.lstsq(directions.T, test.features.T, rcond=None)[0][0]
    assert auc(test.agree, fitted.scores(test)) > auc(test.agree, alone) + 0.01
    held_out = fitted.ceiling.held_out
    assert held_out[fitted.ceiling.chosen] == max(held_out.values()) > 0.9


def test_the_ceiling_is_causal_and_keeps_traces_apart(fitted):
    table = bounds.gather_boundaries(*_annotated(40, 9))
    scores = fitted.scores(table)
    place = table.starts[7] + 2
    changed = table.features.copy()
    changed[place] += 5.0
    moved = np.flatnonzero(fitted.scores(dataclasses.replace(table, features=changed)) != scores)
    assert place in moved
    assert set(moved) <= set(range(place, table.starts[8]))


def test_causal_columns_are_those_of_the_prefix_alone():
    traces, labels, features = _annotated(12, 12)
    extra = {name: rows[:, :2] for name, rows in features.items()}
    table = bounds.gather_boundaries(traces, labels, features, extra)
    first = np.random.default_rng(0).normal(size=len(table.row))
    columns = ceiling.causal_columns(table, table.features, first)
    for trace in range(12):
        here = np.arange(*table.starts[trace : trace + 2])
        for most in range(1, len(here) + 1):
            kept = np.isin(np.arange(len(first)), here[:most])
            alone = ceiling.causal_columns(bounds.select(table, kept), table.features[kept], first[kept])
            np.testing.assert_allclose(alone, columns[here[:most]], atol=1e-5)
    last = here[-1]
    value, previous, highest, recent, mean = columns[last, -15:-10]  # of the first-stage score, then the two extras
    expected = first[last], first[last - 1], first[here].max(), first[here[-3:]].mean(), first[here].mean()
    np.testing.assert_allclose([value, previous, highest, recent, mean], expected, rtol=1e-5)


def test_extra_columns_reach_the_ceiling():
    traces, labels, features = _annotated(300, 10)
    noise = {
        name: np.random.default_rng(0).normal(size=rows.shape).astype(np.float32) for name, rows in features.items()
    }
    hint = {label["id"]: np.asarray(label["agree"], np.float32)[:, None] for label in labels}
    table = bounds.gather_boundaries(traces, labels, noise, hint)
    assert Fitted(table, table).ceiling.held_out["trees"] > 0.99


def test_a_subsample_takes_whole_problems():
    table = bounds.gather_boundaries(*_annotated(60, 11))
    _, order = ceiling._folds_and_order(table, 0)
    allowed = table.row % 5 != 0
    chosen = ceiling._up_to(allowed, order, 100)
    rows, counts = np.unique(table.row[chosen], return_counts=True)
    assert 60 < chosen.sum() <= 100 and np.all(rows % 5 != 0)
    np.testing.assert_array_equal(counts, np.diff(table.starts)[rows])
    assert ceiling._up_to(allowed, order, 1).sum() == np.diff(table.starts)[table.row[allowed][order[allowed].argmin()]]


def test_traces_that_never_closed_teach_nothing(fitted, monkeypatch):
    """Their boundaries are scored, and no model is fitted on them."""
    table = bounds.gather_boundaries(*_annotated(120, 13))
    table = dataclasses.replace(table, closed=np.arange(120) % 3 != 0)
    columns = fitted.reading.columns(table)
    monkeypatch.setattr(ceiling, "_network", lambda widths, seed: MLPClassifier((4,), max_iter=2, random_state=seed))
    flipped = np.where(table.closed[table.row], table.agree, ~table.agree)
    one, other = (
        ceiling.fit_ceiling(columns, dataclasses.replace(table, agree=agree), trees=5)
        for agree in (table.agree, flipped)
    )
    np.testing.assert_array_equal(one.left_out, other.left_out)
    assert len(one.left_out) == len(table.agree) and np.ptp(one.left_out[~table.closed[table.row]]) > 0
