"""Rollouts, annotation and features on a tiny random model: resumable files, forced answers, signals as the loop saw them."""

import dataclasses
import json

import numpy as np
import pytest
from tiny_folders import write_tiny

from specexit_jax.annotation.annotate import annotate
from specexit_jax.annotation.features import extract, load_signals, save_signals
from specexit_jax.annotation.rollout import request_of, roll_out
from specexit_jax.data.splits import Problem
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.evaluation.harness import boundaries_of
from specexit_jax.exits.policy import unreachable
from specexit_jax.jsonl import append_jsonl, read_jsonl
from specexit_jax.methods import make_method
from specexit_jax.models.draft import DraftBundle
from specexit_jax.run import run
from specexit_jax.session import load_session

NEW = 24


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = write_tiny(tmp_path_factory.mktemp("annotation"))
    return dataclasses.replace(load_session(folder / "target", folder / "draft"), sampling=Sampling(temperature=1.0))


@pytest.fixture(scope="module")
def problems():
    """Questions short enough for the tiny model's context."""
    entries = [{"question": f"{i}+{i}?", "answer": str(2 * i)} for i in range(6)]
    return [Problem(f"chain_sum/test/{i}", "chain_sum", "test", entry) for i, entry in enumerate(entries)]


@pytest.fixture(scope="module")
def folder(session, problems, tmp_path_factory):
    folder = tmp_path_factory.mktemp("workdir")
    roll_out(session, problems, make_method(session, "think"), folder / "traces.jsonl", 0, 4, NEW)
    annotate(session, folder / "traces.jsonl", folder / "labels.jsonl", ("paragraph",), 4, 5, NEW)
    return folder


def test_rollouts_resume_after_a_torn_line(session, problems, folder, tmp_path):
    whole = list(read_jsonl(folder / "traces.jsonl"))
    assert [trace["id"] for trace in sorted(whole, key=lambda t: t["id"])] == sorted(p.id for p in problems)
    path = tmp_path / "traces.jsonl"
    append_jsonl(path, whole[:2])
    with path.open("a") as file:
        file.write('{"id": "torn')
    roll_out(session, problems, make_method(session, "think"), path, 0, 4, NEW)
    again = {trace["id"]: trace for trace in read_jsonl(path)}
    assert again == {trace["id"]: trace for trace in whole}
    with pytest.raises(ValueError, match="another seed"):
        roll_out(session, problems, make_method(session, "think"), path, 1, 4, NEW)


def test_corrupt_lines_are_named(tmp_path):
    path = tmp_path / "traces.jsonl"
    path.write_text('{"a": 1}\nnonsense\n')
    with pytest.raises(ValueError, match="line 2"):
        list(read_jsonl(path))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        list(read_jsonl(tmp_path / "absent.jsonl"))


def test_labels_cover_every_boundary(session, folder):
    table = np.asarray(session.boundaries().always)
    labels = {label["id"]: label for label in read_jsonl(folder / "labels.jsonl")}
    for trace in read_jsonl(folder / "traces.jsonl"):
        thinking = len(trace["ids"]) if trace["think_end"] is None else trace["think_end"]
        expected = [i for i, token in enumerate(trace["ids"][:thinking]) if table[token]]
        label = labels[trace["id"]]
        assert label["boundaries"] == expected
        assert {len(label[k]) for k in ("forced", "forced_ids", "agree", "correct", "logprob")} == {len(expected)}


def test_signals_are_those_that_the_loop_reads(session, problems, folder):
    full = list(read_jsonl(folder / "traces.jsonl"))
    bundle = DraftBundle(session.draft, session.params.draft, session.params.d2t)
    found = extract(session.target, session.params.target, full, bundle).signals
    requests = [request_of(session, problem, 0) for problem in problems]
    method = make_method(session, "think")
    for outcome in run(session, requests, method, batch_size=4, max_new_tokens=NEW, record_signals=True):
        # the loop never runs the last token, which nothing follows
        np.testing.assert_allclose(found[outcome.id][:-1], outcome.signals[:-1], rtol=2e-3, atol=1e-4)


def test_signals_file_knows_its_draft(tmp_path):
    signals = {"a": np.ones((3, 3), np.float32), "b": np.zeros((0, 3), np.float32), "c": np.full((1, 3), 2, np.float32)}
    save_signals(tmp_path / "signals.npz", signals, "one")
    read = load_signals(tmp_path / "signals.npz", "one")
    assert {k: v.tolist() for k, v in read.items()} == {k: v.tolist() for k, v in signals.items()}
    with pytest.raises(ValueError, match="another draft"):
        load_signals(tmp_path / "signals.npz", "two")


def test_boundary_features_have_a_row_a_boundary(session, folder):
    traces, labels = list(read_jsonl(folder / "traces.jsonl")), list(read_jsonl(folder / "labels.jsonl"))
    found = extract(session.target, session.params.target, traces, labels=labels)
    assert not found.signals
    for label in labels:
        assert found.features[label["id"]].shape == (len(label["boundaries"]), 3 * session.target.hidden_size)


def test_labels_may_come_in_any_order(session, folder):
    traces, labels = list(read_jsonl(folder / "traces.jsonl")), list(read_jsonl(folder / "labels.jsonl"))
    bundle = DraftBundle(session.draft, session.params.draft, session.params.d2t)
    along = extract(session.target, session.params.target, traces, bundle, labels)
    policy = unreachable()
    there, back = (boundaries_of(session, policy, traces, order, along) for order in (labels, labels[::-1]))
    assert there.index.tolist() == back.index.tolist()
    np.testing.assert_array_equal(there.extra, back.extra)


def test_jsonl_rows_are_json(folder):
    for line in (folder / "labels.jsonl").read_text().splitlines():
        assert set(json.loads(line)) >= {"id", "boundaries", "forced", "agree", "first", "stable"}
