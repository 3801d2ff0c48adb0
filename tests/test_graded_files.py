"""Traces and labels graded in processes are those graded where they are decoded, byte for byte; decoding does not wait."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from specexit_jax.annotation import annotate as annotate_module
from specexit_jax.annotation import rollout as rollout_module
from specexit_jax.annotation.annotate import annotate
from specexit_jax.annotation.forcing import Forcing
from specexit_jax.annotation.rollout import Rollout, roll_out
from specexit_jax.data.grading.grader import Grader
from specexit_jax.data.splits import Problem
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.methods import make_method
from specexit_jax.storage.jsonl import append_jsonl

NEW = 60
FORCING = Forcing(rows=2, branches=2, max_answer=12, max_new_tokens=NEW, keys=2)
LATE = {"judge": "grading_case:late", "dear": {"text": 30.0}, "paths": (str(Path(__file__).resolve().parent),)}


@pytest.fixture(scope="module")
def session(session):
    """Closes its thinking and ends its answers, so that there is something to grade."""
    ends, head = [*session.end_think_ids, *session.stop_ids], session.params.target["lm_head"]
    params = session.params.replace(target=session.params.target | {"lm_head": head.at[0, np.array(ends)].set(2.6)})
    return dataclasses.replace(session, params=params, sampling=Sampling(temperature=1.5))


@pytest.fixture(scope="module", autouse=True)
def _every_end_is_an_answer():
    """One of three, so that some agree and many are repeated."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (annotate_module, rollout_module):
            patch.setattr(module, "final_answer", lambda text: f"answer {len(text) % 3}")
        yield


@pytest.fixture(scope="module")
def problems():
    entries = [{"question": f"{i}+{i}?", "answer": "answer"} for i in range(6)]
    return [Problem(f"own/test/{i}", "own", "test", entry, "text") for i, entry in enumerate(entries)]


def made(session, problems, folder, grader, batch_size=4):
    """The lines of both files."""
    rollout = Rollout(seed=0, batch_size=batch_size, max_new_tokens=NEW, samples=2)
    roll_out(session, problems, make_method(session, "think"), folder, rollout, grader=grader)
    annotate(session, folder, ("paragraph", "sentence"), FORCING, grader=grader)
    return [(folder / f"{stem}.jsonl").read_bytes().splitlines() for stem in ("traces", "labels")]


@pytest.fixture(scope="module")
def serial(session, problems, tmp_path_factory):
    return made(session, problems, tmp_path_factory.mktemp("serial"), Grader(**LATE))


def test_files_are_the_same_bytes_whoever_grades(session, problems, serial, tmp_path):
    agreed = [agree for line in serial[1] for agree in json.loads(line)["agree"]]
    assert len(serial[0]) == 12 and any(agreed) and not all(agreed)
    with Grader(3, **LATE) as pool:
        pooled = made(session, problems, tmp_path / "pool", pool)
    assert [sorted(lines) for lines in pooled] == [sorted(lines) for lines in serial]
    report = json.loads((tmp_path / "pool" / "annotate.json").read_text())["measured"]["grading"]
    assert report["workers"] == 3 and report["asked"] > report["known"] > 0 and report["lost"] == 0
    with Grader(3, **LATE | {"dear": {}}) as cheap:  # nothing is asked of a process: the order is the same too
        assert made(session, problems, tmp_path / "cheap", cheap) == serial
    assert "grading" not in json.loads((tmp_path / "cheap" / "annotate.json").read_text())["measured"]


def test_a_killed_rollout_goes_on_with_the_traces_that_were_graded(session, problems, serial, tmp_path):
    """What was decoded and not graded is decoded again: no trace is written without its grade."""
    with Grader(1, **LATE) as pool:
        rows = rollout_module.Rollout(seed=0, batch_size=4, max_new_tokens=NEW, samples=2)
        think, found = make_method(session, "think"), []
        asked = [(problem, sample) for problem in problems for sample in range(2)]
        for trace in rollout_module.traces(session, asked, think, rows, grader=pool):
            found.append(trace)
            if len(found) == 3:
                break
    folder = tmp_path / "killed"
    folder.mkdir()
    (folder / "traces.jsonl").write_text("".join(json.dumps(trace, ensure_ascii=False) + "\n" for trace in found))
    assert sorted(made(session, problems, folder, Grader(**LATE))[0]) == sorted(serial[0])


@pytest.mark.parametrize(("stem", "step"), [("traces", "trace_later"), ("labels", "force_batch")])
def test_decoding_goes_on_while_pairs_are_graded_and_few_wait(session, problems, tmp_path, monkeypatch, stem, step):
    module = {"traces": rollout_module, "labels": annotate_module}[stem]
    made(session, problems, tmp_path, None)
    (tmp_path / f"{stem}.jsonl").unlink()
    events, real = [], getattr(module, step)
    monkeypatch.setattr(module, step, lambda *given: (events.append("decoded"), real(*given))[1])
    monkeypatch.setattr(module, "final_answer", lambda text: text)  # none repeats another
    monkeypatch.setattr(module, "_WAITING", {"traces": 4, "labels": 4 * FORCING.rows}[stem])
    monkeypatch.setattr(rollout_module, "_FLUSH", 0.0)

    def append(path, rows):
        if path.stem == stem:
            events.extend(["written"] * (len(rows) if stem == "traces" else 1))
        append_jsonl(path, rows)

    monkeypatch.setattr("specexit_jax.storage.shards.append_jsonl", append)
    with Grader(2, **LATE | {"judge": "grading_case:slow"}) as pool:
        made(session, problems, tmp_path, pool)
        assert pool.tally()["waited_seconds"] > 0.05
    ahead = [events[:place].count("decoded") - events[:place].count("written") for place in range(len(events) + 1)]
    assert 1 < max(ahead) <= 4 and ahead[-1] == 0
