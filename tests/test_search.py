"""T* from few forced answers, against the labels of all boundaries, and labels that hold some of them."""

import dataclasses
import json
import shutil
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_annotation import FORCING, folder, problems, session  # noqa: F401

from specexit_jax.annotation import annotate as annotate_module
from specexit_jax.annotation import search, searches
from specexit_jax.annotation.annotate import annotate
from specexit_jax.annotation.schedule import ALL, Schedule
from specexit_jax.annotation.sparse import filled
from specexit_jax.annotation.unfinished import count_unfinished
from specexit_jax.data.grading.grader import Grader
from specexit_jax.exits.labels import sufficient_boundary
from specexit_jax.storage.jsonl import append_jsonl
from specexit_jax.storage.shards import WHOLE, Shard, read_shards

SEARCH = Schedule(search=True)


def searched(agree, guess: int, verify: int = 1, width: int = 2) -> dict[int, bool]:
    """What a search has forced in the end, of a trace that agrees where `agree` says."""
    known: dict[int, bool] = {}
    while wanted := search.asked(known, len(agree), guess, verify, width):
        assert not set(wanted) & known.keys() and len(set(wanted)) == len(wanted), "nothing is forced twice"
        known |= {number: bool(agree[number]) for number in wanted}
    return known


def row_of(agree, known, step: int = 10) -> dict:
    """The row of labels.jsonl with the answers of these boundaries."""
    own, places = sorted(known), [step * (number + 1) - 1 for number in range(len(agree))]
    told = [bool(agree[number]) for number in own]
    ends = {"first": sufficient_boundary(told, "first"), "stable": search.found(told)}
    left = [place for number, place in enumerate(places) if number not in known]
    return {"id": "t", "boundaries": [places[number] for number in own], "agree": told, "unforced": left} | ends


@pytest.mark.parametrize("count", [0, 1, 2, 3, 17])
def test_a_single_change_is_found_from_every_guess(count):
    """Where answers disagree before T* and agree from there on, the search is exact, wherever it begins."""
    for enough in range(count + 1):
        agree = [number >= enough for number in range(count)]
        for guess, width in product(range(count), (2, 3, 8)):
            row = row_of(agree, searched(agree, guess, width=width))
            found = filled(row)
            for kind in ("stable", "first"):
                assert found[kind] == sufficient_boundary(agree, kind)
            assert found["agree"] == agree and all(found.get("known", [True] * count))


def test_the_search_finds_the_oracles_boundary_with_a_fifth_of_the_answers():
    """200 boundaries, T* anywhere, a guess that is off, answers that agree early by chance or not for a while after T*."""
    rng, same, forced, traces = np.random.default_rng(0), 0, 0, 400
    for _ in range(traces):
        enough = int(rng.integers(0, 190))
        agree = np.where(np.arange(200) < enough, rng.random(200) < 0.05, rng.random(200) < 0.995)
        known = searched(agree, int(np.clip(enough + rng.normal(0, 12), 0, 199)), verify=3)
        same += filled(row_of(agree, known))["stable"] == sufficient_boundary(agree.tolist(), "stable")
        forced += len(known)
    assert same / traces >= 0.95
    assert traces * 200 / forced > 5


def test_a_boundary_that_disagrees_after_t_star_sends_the_search_on():
    agree = [False, False, True, False, False, False, True, True, True]
    assert filled(row_of(agree, searched(agree, 2, 0)))["stable"] == 2
    assert filled(row_of(agree, searched(agree, 2, 1)))["stable"] == 6 == sufficient_boundary(agree)


def test_the_guess_is_where_the_answer_is_first_stated():
    texts = ["So ", "12", ".\n\n", "x = ", "2", "\\boxed{2}"]
    told = SimpleNamespace(decode=lambda ids, **_: "".join(texts[i] for i in ids))
    own = SimpleNamespace(tokenizer=told, stop_ids=())
    trace = {"ids": [0, 1, 2, 0, 3, 2, 3, 4, 2], "answer": "It is \\boxed{2}."}
    assert search.guessed(own, trace, [2, 5, 8]) == 2, "the 2 of 12 is another number"
    assert search.guessed(own, trace | {"answer": "12"}, [2, 5, 8]) == 0
    assert search.guessed(own, trace | {"answer": "nowhere"}, [2, 5, 8]) == 1
    assert search.guessed(own, trace | {"answer": "x" * 99}, [2, 5, 8]) == 1


def test_schedules():
    places = list(range(5, 105, 5))
    assert ALL.whole and ALL.of(places) == places and ALL.text() == "all"
    assert Schedule(every=6).of(places) == [5, 35, 65, 95, 100] and Schedule(every=6).of([]) == []
    few = Schedule(every=2, most=4, search=True)
    assert few.of(places) == [5, 35, 75, 100] and few.text() == "every=2, most=4, search, verify=1" and not few.whole
    for most in range(2, 30):
        kept = Schedule(most=most).of(places)
        assert len(kept) == len(set(kept)) == min(most, 20) and {kept[0], kept[-1]} == {5, 100}
    with pytest.raises(ValueError, match="annotate.every must be at least 1, not 0"):
        Schedule(every=0)
    with pytest.raises(ValueError, match=r"annotate.most keeps the first and the last"):
        Schedule(most=1)


@pytest.fixture
def lively(folder, monkeypatch):  # noqa: F811
    """The traces of the tiny model. Every second token is a boundary, and about half of the forced answers agree, in no order."""
    monkeypatch.setattr(annotate_module, "boundary_positions", lambda _, ids, thinking: list(range(1, thinking, 2)))
    monkeypatch.setattr(search, "guessed", lambda _, trace, places: len(places) // 3)
    first, *others = read_shards(folder, "traces")
    rows = [first | {"answer": None}, *(trace | {"answer": "own"} for trace in others)]
    made = folder.parent / "lively"
    made.mkdir(exist_ok=True)
    (made / "traces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copy(folder / "rollout.json", made)
    return made


@pytest.fixture(scope="module")
def own(session):  # noqa: F811
    """A session whose forced answers mostly end."""
    return dataclasses.replace(session, stop_ids=tuple(range(0, 300, 4)))


def graded(workers=0, judge="coin"):
    """By a coin of the tests."""
    paths = (str(Path(__file__).resolve().parent),)
    return Grader(workers, judge=f"grading_case:{judge}", dear={"world": 30.0}, paths=paths)


def annotated(session, source, made, schedule, forcing=FORCING, shards=(WHOLE,), grader=None):  # noqa: F811
    made.mkdir()
    for name in ("traces.jsonl", "rollout.json"):
        shutil.copy(source / name, made)
    how = {"grader": grader or graded(), "schedule": schedule}
    took = [annotate(session, made, ("paragraph",), forcing, shard, **how) for shard in shards]
    return {label["id"]: label for label in read_shards(made, "labels")}, took


def test_a_search_forces_what_the_oracle_of_all_boundaries_tells_it(own, lively, tmp_path):
    """Real forced answers: those of the search are the very ones of full annotation, and it asks for no others than simulated."""
    every, _ = annotated(own, lively, tmp_path / "all", ALL)
    few, (took,) = annotated(own, lively, tmp_path / "few", SEARCH)
    traces, forced = {trace["id"]: trace for trace in read_shards(lively, "traces")}, 0
    for name, label in every.items():
        known = searched(label["agree"], len(label["boundaries"]) // 3) if traces[name]["answer"] is not None else {}
        numbers, forced = sorted(known), forced + len(known)
        found = dict(few[name])
        assert found["boundaries"] == [label["boundaries"][number] for number in numbers]
        assert sorted([*found["boundaries"], *found.pop("unforced")]) == label["boundaries"]
        for key in ("forced_ids", "forced", "finished", "agree", "correct"):
            assert found[key] == [label[key][number] for number in numbers]
        assert found["logprob"] == pytest.approx([label["logprob"][number] for number in numbers], abs=2e-6)
        assert found["exits_before"] == label["exits_before"]
    assert (
        took["boundaries"] == forced and took["unforced"] == sum(len(x["boundaries"]) for x in every.values()) - forced
    )
    assert 0 < forced < took["unforced"] and any(any(label["agree"]) for label in few.values())
    count_unfinished(list(traces.values()), list(few.values()), FORCING.max_answer)


@pytest.mark.parametrize("plan", [SEARCH, Schedule(every=3)])
def test_labels_graded_in_processes_are_those_graded_here(own, lively, tmp_path, plan, monkeypatch):
    here, _ = annotated(own, lively, tmp_path / "here", plan)
    wanted, real = [], searches._Search.next
    monkeypatch.setattr(searches._Search, "next", lambda own: (wanted.append(real(own)), wanted[-1])[1])
    with graded(2, "slow") as pool:
        there, (took,) = annotated(own, lively, tmp_path / "there", plan, grader=pool)
    assert (None in wanted) == plan.search, "a search that awaits grades leaves the process to the others"
    assert took["grading"]["workers"] == 2 and took["grading"]["waited_seconds"] > 0
    for name, label in here.items():
        odds = [there[name].pop("logprob"), label.pop("logprob")]
        assert there[name] == label and odds[0] == pytest.approx(odds[1], abs=2e-6)


def test_the_target_reads_each_trace_once(own, lively, tmp_path):
    prefilled = [annotated(own, lively, tmp_path / name, plan)[1][0]["prefilled"] for name, plan in
                 (("all", ALL), ("few", SEARCH))]  # fmt: skip
    assert 0 < prefilled[1] <= prefilled[0]


def test_a_search_resumes_and_is_shared(own, lively, tmp_path, monkeypatch):
    whole, _ = annotated(own, lively, tmp_path / "one", SEARCH)
    shards, narrow = (Shard(0, 2), Shard(1, 2)), dataclasses.replace(FORCING, rows=1)
    assert annotated(own, lively, tmp_path / "two", SEARCH, shards=shards)[0].keys() == whole.keys()
    count = []

    def killed(path, rows):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        append_jsonl(path, rows)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("specexit_jax.storage.shards.append_jsonl", killed)
        annotated(own, lively, tmp_path / "killed", SEARCH, narrow)
    with pytest.raises(ValueError, match="was made with schedule 'search, verify=1', this run has 'all'"):
        annotate(own, tmp_path / "killed", ("paragraph",), narrow)
    assert (
        annotate(own, tmp_path / "killed", ("paragraph",), narrow, grader=graded(), schedule=SEARCH)["traces"]
        == len(whole) - 2
    )
    for name, label in {label["id"]: label for label in read_shards(tmp_path / "killed", "labels")}.items():
        assert label["forced_ids"] == whole[name]["forced_ids"] and label["unforced"] == whole[name]["unforced"]


def test_labels_without_a_schedule_are_of_all_boundaries(session, folder, tmp_path):  # noqa: F811
    """Of earlier versions, whose annotate.json does not name it."""
    shutil.copytree(folder, tmp_path / "old")
    report = json.loads((tmp_path / "old" / "annotate.json").read_text())
    del report["settings"]["schedule"]
    (tmp_path / "old" / "annotate.json").write_text(json.dumps(report))
    assert annotate(session, tmp_path / "old", ("paragraph",), FORCING)["traces"] == 0
    with pytest.raises(ValueError, match="was made with schedule 'all', this run has 'every=3'"):
        annotate(session, tmp_path / "old", ("paragraph",), FORCING, schedule=Schedule(every=3))


def test_every_nth_boundary(own, lively, tmp_path):
    every, _ = annotated(own, lively, tmp_path / "all", ALL)
    few, _ = annotated(own, lively, tmp_path / "few", Schedule(every=3))
    for name, label in every.items():
        assert few[name]["boundaries"] == Schedule(every=3).of(label["boundaries"])
        numbers = [label["boundaries"].index(place) for place in few[name]["boundaries"]]
        assert few[name]["forced_ids"] == [label["forced_ids"][number] for number in numbers]
