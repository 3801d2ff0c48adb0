"""Labelled traces as documents: what is learned, where, and which files are refused."""

import numpy as np
import pytest
from training_case import ROW, rows_of, write_split

from specexit_jax.annotation.documents import AFTER, BEFORE, LabelOptions, Traces, document, frequent_tokens
from specexit_jax.storage.rows import Rows

TRACE = {"id": "a", "prompt_ids": [7, 8], "ids": [1, 2, 3, 4, 5, 9, 6, 0], "think_end": 5}
LABEL = {"id": "a", "boundaries": [1, 3], "agree": [False, True], "first": 1, "stable": 1}


def test_the_columns_of_a_trace():
    made = document(TRACE, LABEL, LabelOptions(boundary_weight=4.0))
    assert made["tokens"].tolist() == [7, 8, *TRACE["ids"]]
    assert made["loss_mask"].tolist() == [False] * 2 + [True] * 8
    assert np.flatnonzero(made["boundary"]).tolist() == [3, 5] and made["agree"][[3, 5]].tolist() == [0.0, 1.0]
    assert made["phase"].tolist() == [0, 0, *[BEFORE] * 4, AFTER, 0, 0, 0]
    assert made["label_mask"][:, 0].tolist() == [0, 0, 1, 4, 1, 4, 1, 0, 0, 0]
    # Of the paragraph's end; at `</think>` it agrees with itself.
    assert made["labels"][2:7, 0].tolist() == [0, 0, 1, 1, 1]
    assert set(document(TRACE, None)) == {"tokens", "loss_mask"}


def test_a_trace_that_never_closes_has_no_phase():
    open_ended = TRACE | {"think_end": None}
    made = document(open_ended, LABEL | {"first": None, "stable": None})
    assert not made["phase"].any() and not made["label_mask"][:, [0, 2]].any() and made["label_mask"][:, 1].any()


def test_options_reach_the_labels():
    first, token = LABEL | {"first": 0}, LabelOptions(place="token")
    assert document(TRACE, first, LabelOptions("first"))["labels"][3, 1] == 1.0
    assert document(TRACE, LABEL)["labels"][2, 2] == 2.0 != document(TRACE, LABEL, token)["labels"][2, 2] == 3.0
    following = document(TRACE, LABEL, LabelOptions(place="next_boundary"))
    assert following["labels"][3].tolist() == [1.0, 1.0, 0.0]  # the first boundary bears the second one's labels


def test_traces_stay_on_disk_and_are_joined_by_id(tmp_path):
    folder = write_split(tmp_path, 9)
    traces = Traces(folder, ROW)
    labels = {label["id"]: label for label in Rows([folder / "labels.jsonl"])}
    for number, trace in enumerate(Rows([folder / "traces.jsonl"])):
        for name, values in document(trace, labels[trace["id"]]).items():
            np.testing.assert_array_equal(traces[number][name], values)
        assert traces.lengths[number] == len(traces[number]["tokens"])
    assert len(traces) == 9 and not traces.cut
    short = Traces(folder, 12)
    assert short.cut == sum(traces.lengths > 12) > 0 and max(len(short[i]["tokens"]) for i in range(9)) == 12
    rows = rows_of(folder)
    assert sum(rows[i]["loss_mask"].sum() for i in range(len(rows))) == sum(traces.lengths - 3)


def test_several_files_are_one_split(tmp_path):
    folder = write_split(tmp_path, 6)
    lines = (folder / "traces.jsonl").read_text().splitlines(keepends=True)
    (folder / "traces.jsonl").unlink()
    (folder / "traces-00000-of-00002.jsonl").write_text("".join(lines[::2]))
    (folder / "traces-00001-of-00002.jsonl").write_text("\n" + "".join(lines[1::2]))
    order = [0, 2, 4, 1, 3, 5]
    assert [trace["id"] for trace in Traces(folder, ROW).traces] == [f"t/{i}" for i in order]


def test_what_does_not_fit_is_refused(tmp_path):
    folder = write_split(tmp_path, 4)
    labels = (folder / "labels.jsonl").read_text().splitlines()
    (folder / "labels.jsonl").write_text("\n".join(labels[:-1]) + "\n")
    with pytest.raises(ValueError, match="1 traces have no label"):
        Traces(folder, ROW)
    assert len(Traces(folder, ROW, labelled=False)) == 4
    with (folder / "traces.jsonl").open("a") as file:
        file.write("\nnonsense\n")
    with pytest.raises(ValueError, match="line 6 is not valid JSON"):
        Traces(folder, ROW, labelled=False)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Traces(tmp_path / "absent", ROW)


def test_frequent_tokens():
    traces = [{"ids": [5, 5, 7, 2]}, {"ids": [7, 5]}]
    assert frequent_tokens(traces, 10, 3, always=(9,)).tolist() == [5, 7, 9]
    with pytest.raises(ValueError, match="does not fit"):
        frequent_tokens(traces, 4, 5)
