"""The training material is checked before training: an empty one is refused, missing parts are counted, and held-out rows may have
no boundaries."""

import json

import numpy as np
import pytest
from test_held_out import look_at
from training_case import ROW, rows_of, write_split

from specexit_jax.annotation.documents import Traces
from specexit_jax.annotation.material import summary
from specexit_jax.storage.rows import Rows
from specexit_jax.training.ttt import chain_masks

PROMPT = 3
LATE = {"boundaries": [5], "agree": [True], "first": None, "stable": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("split"), 12)


def rewritten(tmp_path, change):
    """The split with its labels and traces changed."""
    folder = write_split(tmp_path / "split", 12)
    for name in ("traces", "labels"):
        rows = [change(name, row) for row in Rows([folder / f"{name}.jsonl"])]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("longest", [1, PROMPT, PROMPT + 1])
def test_rows_that_hold_prompts_alone_are_refused(folder, longest):
    need = PROMPT + max(len(trace["ids"]) for trace in Rows([folder / "traces.jsonl"]))
    for labelled in (True, False):
        with pytest.raises(
            ValueError, match=f"train.row_length is {longest}: .* all 12 traces .* train.row_length={need}"
        ):
            summary(Traces(folder, longest, labelled=labelled))


def test_what_the_step_counts_is_enough(folder):
    """A chain needs two tokens that the model wrote, its root and what follows."""
    assert summary(Traces(folder, PROMPT + 2, labelled=False)).startswith("12 traces, 60 tokens, 12 cut to a row of 5 ")
    rows = rows_of(folder, PROMPT + 2)
    batch = {
        name: np.stack([rows[number][name] for number in range(len(rows))]) for name in ("segment_ids", "loss_mask")
    }
    assert np.asarray(chain_masks(batch, 1)).any()
    short = {name: values[:, :-1] for name, values in batch.items()}
    assert not np.asarray(chain_masks(short, 1)).any()


def test_traces_that_are_cut_are_counted(folder):
    whole = [PROMPT + len(trace["ids"]) for trace in Rows([folder / "traces.jsonl"])]
    cut = sum(length > 16 for length in whole)
    assert summary(Traces(folder, 16)) == (
        f"12 traces, {sum(min(length, 16) for length in whole)} tokens, {cut} cut to a row of 16 (the longest has {max(whole)})"
    )
    assert summary(Traces(folder, ROW)) == f"12 traces, {sum(whole)} tokens, 0 cut to a row of {ROW}"


def test_traces_that_are_cut_to_nothing_are_counted(tmp_path):
    def longer(name, row):
        return row | ({"prompt_ids": [1] * 20} if name == "traces" and row["id"] == "t/3" else {})

    assert summary(Traces(rewritten(tmp_path, longer), 16, labelled=False)).endswith(
        ", 1 of them to nothing to train on"
    )


def test_signals_without_a_labelled_boundary_are_refused(tmp_path):
    late = rewritten(tmp_path / "late", lambda name, row: row | (LATE if name == "labels" else {"think_end": None}))
    with pytest.raises(
        ValueError, match="no boundary within train.row_length=8 has a label.*give train.row_length=[0-9]+, or"
    ):
        summary(Traces(late, PROMPT + 5))
    assert summary(Traces(late, PROMPT + 5, labelled=False))
    assert summary(Traces(late, PROMPT + 6)).endswith(
        "; no boundary has a label of confidence or remain, which stays untrained: no trace closes its thinking there"
    )
    nothing = {"boundaries": [], "agree": [], "first": None, "stable": None}
    none = rewritten(tmp_path / "none", lambda name, row: row | (nothing if name == "labels" else {}))
    with pytest.raises(
        ValueError, match="none of the 12 traces has a boundary with a label.*annotate.kinds.*train.signals=none"
    ):
        summary(Traces(none, ROW))


def test_held_out_rows_that_show_less_are_told_of(folder):
    source = rows_of(folder)
    rows = [source[number] for number in range(len(source))]
    bare = [row | {"boundary": np.zeros_like(row["boundary"])} for row in rows]
    assert look_at(rows, 4).summary == ""
    assert "hold no labelled boundary: the signals are not looked at" in look_at(bare, 4).summary
    cut = rows_of(folder, PROMPT + 1)
    assert "hold nothing that a draft could write" in look_at([cut[number] for number in range(3)], 4).summary
