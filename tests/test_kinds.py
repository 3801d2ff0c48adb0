"""Boundaries of the kinds that are asked for, of all that were annotated, wherever labels are used."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from annotated_case import IDS, KINDS, PARAGRAPHS, SESSION, sure_everywhere, traces_and_labels, write_split

from specexit_jax.annotation.documents import Traces
from specexit_jax.annotation.features import Extracted
from specexit_jax.annotation.kinds import annotated_split, kinds_to_annotate, require_kinds
from specexit_jax.annotation.world_statistics import split_statistics
from specexit_jax.evaluation.certified.certify import use
from specexit_jax.evaluation.pipeline import bounding, calibrating, exit_records, harness
from specexit_jax.exits.policy_file import PolicyFile
from specexit_jax.models.config import DraftConfig
from specexit_jax.storage.jsonl import append_jsonl

OPEN = (-1e6, -1e6, 1e6)


@pytest.fixture
def both(tmp_path):
    return write_split(tmp_path / "development", *traces_and_labels(60))


@pytest.fixture
def markers(tmp_path):
    return write_split(tmp_path / "marked", *traces_and_labels(60, ("marker",)), kinds=("marker",))


def test_a_policy_is_calibrated_at_the_boundaries_that_it_exits_at(both, markers, monkeypatch):
    """Forced answers are right at paragraphs and wrong before markers."""
    traces = traces_and_labels(60)[0]
    monkeypatch.setattr(calibrating, "extracted", lambda *_: Extracted(sure_everywhere(traces), {}))
    draft = DraftConfig(16, 16, 24, 2, 1, 8, vocab_size=64, draft_vocab_size=8)
    session = SimpleNamespace(**vars(SESSION) | {"draft": draft})
    harmed = {}
    for kinds in (("paragraph",), KINDS, ("marker",)):
        seen = calibrating.seen_split(session, both, ("none",), kinds, print)
        harmed[kinds] = use(seen.by_smoother["none"], OPEN)["harmed"]
    assert harmed == {("paragraph",): 0, KINDS: 60, ("marker",): 60}
    with pytest.raises(ValueError, match="was annotated at marker boundaries, not at paragraph ones: annotate with"):
        calibrating.seen_split(SESSION, markers, ("none",), ("paragraph",), print)


def test_the_world_is_described_at_paragraphs_whichever_kinds_were_annotated(both, markers):
    traces, labels = traces_and_labels(3)
    world = {"text": "the answer is 4.\n\nb.\n\n</think>4", "reference": "4", "checker": "world"}
    for folder, kept in ((both, labels), (markers, traces_and_labels(3, ("marker",))[1])):
        for stem, rows in (("traces", [trace | world for trace in traces]), ("labels", kept)):
            (folder / f"{stem}.jsonl").unlink()
            append_jsonl(folder / f"{stem}.jsonl", rows)
    told = split_statistics(SESSION, both)
    assert told["first_answer"] == 1 and told["beyond_oracle"] == pytest.approx(4 / 8) and told["causeless_flips"] == 0
    assert split_statistics(SESSION, markers) is None


def test_kinds_that_hold_others(both, markers, tmp_path):
    require_kinds(both, ("released", "marker"))  # released boundaries end paragraphs
    with pytest.raises(ValueError, match="not at paragraph, released ones"):
        require_kinds(markers, ("paragraph", "marker", "released"))
    require_kinds(tmp_path / "unknown", ("marker",))
    assert kinds_to_annotate(both, ("paragraph",)) == KINDS
    assert kinds_to_annotate(markers, ("paragraph",)) == ("paragraph",)
    assert kinds_to_annotate(tmp_path, ("paragraph",)) == ("paragraph",)


def test_labels_are_refused_where_a_boundary_is_not_among_them(both):
    """Of a folder that does not say at which kinds it was annotated."""
    (both / "annotate.json").unlink()
    assert annotated_split(SESSION, both, ("paragraph",))[1][0]["boundaries"] == PARAGRAPHS
    (both / "labels.jsonl").unlink()
    write_split(both, [], traces_and_labels(60, ("marker",))[1])
    (both / "annotate.json").unlink()
    with pytest.raises(ValueError, match="has no boundary at token 3"):
        list(annotated_split(SESSION, both, ("paragraph",))[1])


def test_the_draft_learns_from_the_boundaries_that_are_asked_for(both):
    boundaries = SESSION.boundaries(("paragraph",))
    rows = Traces(both, 64, boundaries=boundaries)[0]
    assert np.flatnonzero(rows["boundary"][1:]).tolist() == PARAGRAPHS
    assert rows["agree"][1:][PARAGRAPHS].tolist() == [1.0, 1.0]
    assert np.flatnonzero(Traces(both, 64)[0]["boundary"][1:]).tolist() == [1, 3, 5, 7]
    assert (rows["phase"] == 1).sum() == PARAGRAPHS[0] + 1, "T* is anew among them"
    assert (Traces(both, 64)[0]["phase"] == 1).sum() == len(IDS[:8])


def test_an_evaluation_takes_its_kinds_from_a_folder_with_more(both, monkeypatch):
    asked, traces = [], traces_and_labels(60)[0]
    monkeypatch.setattr(harness, "annotate", lambda session, folder, kinds, *_, **__: asked.append(kinds))
    setting = harness.Setting("test", *[None] * 8)
    monkeypatch.setattr(harness, "require_settings", lambda *_: None)
    monkeypatch.setattr(harness, "_rollout", lambda _: SimpleNamespace(settings=lambda _: {}))
    monkeypatch.setattr(harness, "require_alike_labels", lambda session, folder, kinds, *_: asked.append(kinds))
    harness.require_alike(SESSION, dataclasses.replace(setting, methods=()), both, ("paragraph",))
    assert asked.pop() == KINDS  # refused before anything is decoded only where they are not there
    labels = harness.annotated(SESSION, traces, ("paragraph",), setting, both)
    assert asked == [KINDS] and labels[0]["boundaries"] == PARAGRAPHS and labels[0]["first"] == 0


def test_the_ceiling_sees_the_policys_boundaries(tmp_path, monkeypatch):
    for name in ("draft", "development"):
        write_split(tmp_path / name, *traces_and_labels(3))
    seen, sides = [], []
    monkeypatch.setattr(harness, "extracted", lambda *parts: SimpleNamespace(signals={}))
    monkeypatch.setattr(bounding, "_boundary_bytes", lambda _: 1)
    monkeypatch.setattr(bounding, "extract", lambda *parts: SimpleNamespace(features=seen.append(list(parts[-1]))))
    monkeypatch.setattr(bounding, "gather_boundaries", lambda *_: None)
    monkeypatch.setattr(bounding, "fit_reading", lambda *_: None)
    monkeypatch.setattr(bounding, "ceiling_records", lambda session, policy, reading, *rest: sides.append(rest))
    file = PolicyFile("default", "none", ("paragraph",), OPEN, None, 0.0, None, "development", 3, "digest")
    setting = bounding.CeilingSetting("development", 0.0, 0.0)
    session = SimpleNamespace(
        **vars(SESSION) | {"target": None, "params": SimpleNamespace(draft=None, d2t=None, target=None)}
    )
    exit_records._ceiling(session, file, None, None, setting, tmp_path)
    assert {tuple(label["boundaries"]) for label in (*seen[0], *sides[0][0].labels)} == {tuple(PARAGRAPHS)}
    assert len(seen[0]) == len(sides[0][0].labels) == 3 and sides[0][1] is None
