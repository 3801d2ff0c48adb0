"""Labels at some of the boundaries: what is inferred, what is masked, and which stages refuse them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from annotated_case import KINDS, SESSION, traces_and_labels, write_split
from test_search import row_of

from configs.embedded import get_config
from launch import checks, stages
from specexit_jax.annotation.documents import LabelOptions, Traces, document
from specexit_jax.annotation.joined import join_labels
from specexit_jax.annotation.kinds import annotated_split, labels_at, require_searched_for
from specexit_jax.annotation.replay import outcomes, replay
from specexit_jax.annotation.schedule import ALL, Schedule
from specexit_jax.annotation.sparse import filled
from specexit_jax.evaluation.pipeline import scoring
from specexit_jax.exits.labels import confidence_targets
from specexit_jax.exits.policy import NeverExit
from specexit_jax.storage.shards import read_shards


def test_what_is_not_known_is_masked():
    """Between a boundary that disagrees and one that agrees nothing is inferred; progress and remain are exact all the same."""
    trace = {"id": "t", "prompt_ids": [7], "ids": [*range(1, 61), 9], "think_end": 60}
    agree = [False, False, False, True, True, True]
    label = row_of(agree, (0, 4))
    label |= {"logprob": [-0.5, -0.1], "forced_ids": [[1], [2]], "agree_share": [0.25, 1.0]}
    told = filled(label)
    assert told["known"] == [True, False, False, False, True, True] and told["agree"] == [False] * 4 + [True] * 2
    assert told["stable"] == told["first"] == 4, "T* is at most there"
    nan = float("nan")
    np.testing.assert_array_equal(confidence_targets(told), [0, nan, nan, nan, 1, 1])
    np.testing.assert_array_equal(confidence_targets(told, "keys"), [0.25, nan, nan, nan, 1, nan])
    np.testing.assert_allclose(confidence_targets(told, "deer"), [np.exp(-0.5), nan, nan, nan, np.exp(-0.1), nan])
    made = document(trace, told, LabelOptions(boundary_weight=4.0))
    assert np.flatnonzero(made["boundary"][1:]).tolist() == [9, 19, 29, 39, 49, 59]
    assert made["label_mask"][1:, 0].tolist() == [*[1] * 9, 4, *[0] * 30, *[1] * 9, 4, *[1] * 9, 4, 0]
    exact = document(trace, row_of(agree, range(6)) | {"stable": 4, "first": 4}, LabelOptions(boundary_weight=4.0))
    for name in ("labels", "label_mask"):
        np.testing.assert_array_equal(made[name][:, 1:], exact[name][:, 1:])
    np.testing.assert_array_equal(made["phase"], exact["phase"])
    assert np.isfinite(made["labels"]).all()


def test_a_trace_without_an_answer_agrees_nowhere():
    label = {"id": "t", "boundaries": [], "agree": [], "unforced": [3, 8], "first": None, "stable": None}
    assert filled(label)["agree"] == [False, False] and filled(label)["known"] == [True, True]
    assert filled(label)["stable"] is None


SPARSE = {"boundaries": [5, 7], "unforced": [1, 3], "agree": [False, True], "first": 1, "stable": 1} | {
    name: [value] * 2
    for name, value in {"forced_ids": [6], "forced": "4", "finished": True, "correct": True, "logprob": 0}.items()
}


@pytest.fixture
def sparse(tmp_path):
    """A split of which two of four boundaries were forced."""
    traces, labels = traces_and_labels(6)
    made = write_split(tmp_path / "draft", traces, [label | SPARSE for label in labels])
    settings = {"kinds": list(KINDS), "max_answer": 16, "max_new_tokens": 40, "schedule": "search, verify=1"}
    (made / "annotate.json").write_text(json.dumps({"settings": settings, "measured": {}}))
    return made


def test_stages_that_need_every_answer_refuse_some(sparse):
    traces, labels = read_shards(sparse, "traces"), read_shards(sparse, "labels")
    told = r"was annotated at some of its boundaries \(search, verify=1\).* annotate it in a new workdir, with a .*sparse_splits"
    for call in (lambda: annotated_split(SESSION, sparse, KINDS), lambda: checks.annotated(sparse)):
        with pytest.raises(ValueError, match=told):
            call()
    checks.annotated(sparse, whole=False)
    row = "has answers at 2 of 4 boundaries, but .* annotate this split at all of them"
    for call in (
        lambda: replay(NeverExit(), traces, labels, None, SESSION.end_think_ids),
        lambda: outcomes(None, traces, labels, {}),
        lambda: list(join_labels(traces, labels)),
        lambda: list(labels_at(traces, labels, SESSION.boundaries(KINDS))),
    ):
        with pytest.raises(ValueError, match=row):
            call()


def test_a_search_is_not_taken_for_the_first_boundary_that_agrees(sparse, capsys):
    config = get_config()
    config.annotate.update(search=True, every=2)
    assert stages.schedule_of(config, "draft").search and stages.schedule_of(config, "development") is ALL
    require_searched_for(sparse, "stable")
    with pytest.raises(
        ValueError, match="was annotated by a search for the T. of kind stable .* is first: annotate it in a new"
    ):
        require_searched_for(sparse, "first")
    capsys.readouterr()
    config.annotate.kind = "first"
    assert stages.schedule_of(config, "draft") == Schedule(every=2)
    assert "without a search" in capsys.readouterr().err


def test_training_reads_a_sparse_split_at_every_boundary(sparse, monkeypatch):
    rows = Traces(sparse, 64, boundaries=SESSION.boundaries(KINDS))[0]
    assert np.flatnonzero(rows["boundary"][1:]).tolist() == [1, 3, 5, 7]
    assert rows["agree"][1:][[1, 3, 5, 7]].tolist() == [0, 0, 0, 1] and (rows["phase"] == 1).sum() == 8
    fewer = Traces(sparse, 64, boundaries=SESSION.boundaries(("marker",)))[0]
    assert np.flatnonzero(fewer["boundary"][1:]).tolist() == [1, 5] and fewer["agree"].sum() == 0
    assert annotated_split(SESSION, sparse, ("paragraph",), whole=False)[1][0]["stable"] == 1
    seen = [np.arange(8.0).reshape(4, 2)] * 6
    monkeypatch.setattr(scoring, "statistics_at_boundaries", lambda *_: seen)
    monkeypatch.setattr(scoring, "extracted", lambda *_, **__: SimpleNamespace(signals={}))
    monkeypatch.setattr(scoring, "DraftBundle", lambda *_: None)
    monkeypatch.setattr(scoring, "statistics_without", lambda *_: ("a", "b"))
    monkeypatch.setattr(scoring, "statistic_names", lambda *_: ("a", "b"))
    own = SimpleNamespace(**vars(SESSION) | {"draft": SimpleNamespace(signal_names=())})
    with monkeypatch.context() as patch:  # whole traces of a large split, at random
        patch.setattr(scoring, "MOST", 9)
        patch.setattr(scoring, "statistics_at_boundaries", lambda _, traces, *__: seen[: len(traces)])
        assert [len(one) for one in scoring.boundary_table(own, sparse, KINDS, "one").seen] == [4] * 2
    table = scoring.boundary_table(own, sparse, KINDS, "one")
    assert [len(one) for one in table.seen] == [4] * 6 and table.wanted[0].tolist() == [0, 0, 0, 1]
    with pytest.raises(ValueError, match="at some of its boundaries"):
        scoring.boundary_table(own, sparse, KINDS, "one", whole=True)
