"""Continuations from boundaries: with the trace's own noise they repeat the trace; with other noise they estimate how
often the forced answer agrees."""

import dataclasses

import numpy as np
import pytest
from tiny_folders import write_tiny

from specexit_jax.annotation.annotate import annotate
from specexit_jax.annotation.forcing import Forcing
from specexit_jax.annotation.replay import join_labels
from specexit_jax.annotation.rollout import Rollout, roll_out
from specexit_jax.data.splits import Problem
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.generate import generate
from specexit_jax.engine.methods import make_method
from specexit_jax.engine.session import load_session
from specexit_jax.evaluation.foresight import (
    Foresight,
    answer_of,
    best_auc,
    chosen_places,
    go_on,
    request_from,
    summary,
)
from specexit_jax.evaluation.score_quality import auc
from specexit_jax.storage.jsonl import append_jsonl, read_jsonl
from specexit_jax.storage.shards import read_shards

NEW = 60
SETTING = Foresight(boundaries=6, continuations=3, seed=5, batch_size=4, max_new_tokens=NEW)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A random model that closes its thinking as often as it writes any other token."""
    folder = write_tiny(tmp_path_factory.mktemp("foresight"))
    session = load_session(folder / "target")
    (end,), head = session.end_think_ids, session.params.target["lm_head"]
    target = session.params.target | {"lm_head": head.at[0, end].set(2.5)}
    params = session.params.replace(target=target)
    return dataclasses.replace(session, params=params, sampling=Sampling(temperature=1.5))


@pytest.fixture(scope="module")
def think(session):
    return make_method(session, "think")


@pytest.fixture(scope="module")
def annotated(session, think, tmp_path_factory):
    folder = tmp_path_factory.mktemp("workdir")
    entries = [{"question": f"{i}+{i}?", "answer": str(2 * i)} for i in range(9)]
    problems = [Problem(f"chain_sum/test/{i}", "chain_sum", "test", entry) for i, entry in enumerate(entries)]
    roll_out(session, problems, think, folder, Rollout(seed=0, batch_size=8, max_new_tokens=NEW, samples=4))
    annotate(session, folder, ("paragraph",), Forcing(rows=8, branches=4, max_answer=5, max_new_tokens=NEW))
    traces = read_shards(folder, "traces")
    return traces, join_labels(traces, read_shards(folder, "labels"))


def test_its_own_noise_gives_the_trace_back(session, think, annotated):
    assert len({trace["problem"] for trace in annotated[0]}) == 9 and len(annotated[0]) == 36
    places = chosen_places(*annotated, 10_000, seed=0)
    assert len(places) > 4 and all(place.trace["think_end"] > place.token for place in places)
    for place in places[:4]:
        own = dataclasses.replace(request_from(place, 0), id=place.trace["id"], seed=place.trace["seed"])
        (outcome,) = generate(session, [own], think)
        whole, ids = place.trace["ids"][: place.token + 1] + list(outcome.ids), place.trace["ids"]
        both = min(len(whole), len(ids))  # one may be cut by its buffer where the other continues
        assert whole[:both] == ids[:both] and both > place.token + 1
        assert answer_of(session, place, outcome, NEW) == place.trace["answer"]
        assert answer_of(session, place, outcome, len(whole) - 1) is None  # in a smaller buffer


def test_continuations_are_kept_and_gone_on_with(session, think, annotated, tmp_path, monkeypatch):
    places = chosen_places(*annotated, SETTING.boundaries, SETTING.seed)
    assert len({place.id for place in places}) == 6
    assert chosen_places(*annotated, 4, SETTING.seed) == [
        place for place in places if place in chosen_places(*annotated, 4, 5)
    ]
    rows = go_on(session, places, think, SETTING, tmp_path)
    assert [row["id"] for row in rows] == [place.id for place in places]
    assert all(len(row["stands"]) == len(row["answers"]) == 3 for row in rows)
    assert any(len(set(row["answers"])) > 1 for row in rows), "noise of its own in each"
    for row in rows:
        assert row["stands"] == [answer is not None and answer == row["forced"] for answer in row["answers"]]
    again = tmp_path / "again"
    append_jsonl(again / "foresight.jsonl", list(read_jsonl(tmp_path / "foresight.jsonl"))[:2])
    made = []
    monkeypatch.setattr("specexit_jax.storage.shards.append_jsonl", lambda path, new: made.extend(new))
    assert go_on(session, places, think, SETTING, again) == rows and len(made) == 4
    with pytest.raises(ValueError, match="was made with continuations 3, this run has 4"):
        go_on(session, places, think, dataclasses.replace(SETTING, continuations=4), tmp_path)


def test_the_auc_of_a_known_probability():
    """Shares of 16 draws are noisy; the estimate of the probability corrects for that."""
    rng = np.random.default_rng(0)
    chances = rng.choice([0.02, 0.3, 0.7, 0.95, 1.0], size=4000, p=[0.15, 0.15, 0.2, 0.3, 0.2])
    agree = rng.random(4000) < chances
    exact = auc(agree, chances)
    counts = rng.binomial(16, chances)
    blurred = auc(agree, rng.binomial(2, chances))
    assert blurred < exact - 0.02
    assert best_auc(counts, 16) == pytest.approx(exact, abs=0.012)
    assert best_auc(rng.binomial(4, chances), 4) == pytest.approx(exact, abs=0.03)
    assert best_auc(rng.binomial(16, np.full(4000, 0.6)), 16) == pytest.approx(0.5, abs=0.06)


def test_confidence_beside_what_could_be_known():
    rng = np.random.default_rng(1)
    chances = rng.beta(1.5, 0.5, size=600)
    rows = [
        {"trace": str(i), "agree": bool(rng.random() < q), "stands": (rng.random(16) < q).tolist()}
        for i, q in enumerate(chances)
    ]
    agree = np.array([row["agree"] for row in rows])
    vague = chances + rng.normal(0, 0.3, 600)
    told = summary(rows, vague, resamples=200)
    assert told["auc"]["confidence"]["value"] == auc(agree, vague) and "score" not in told["auc"]
    clear = summary(rows, vague, resamples=200, score=chances)["auc"]
    assert clear["score"]["value"] == auc(agree, chances) > clear["score"]["ci95"][0] > clear["confidence"]["ci95"][1]
    assert clear["share"] == told["auc"]["share"]
    assert told["auc"]["share"]["ci95"][0] < told["auc"]["share"]["value"] < told["auc_of_probability"]
    assert told["auc"]["share_minus_confidence"]["ci95"][0] > 0
    by = told["auc_by_continuations"]
    assert list(by) == ["1", "2", "4", "8", "16"] and by["1"] < by["4"] < by["16"] == told["auc"]["share"]["value"]


def test_boundaries_and_samples_of_a_problem_are_one_observation():
    """Four identical traces of a problem give the same interval as one of them."""
    rng = np.random.default_rng(2)
    chances = rng.beta(1.5, 0.5, size=80)
    once = [
        {"trace": str(i), "agree": bool(rng.random() < q), "stands": (rng.random(4) < q).tolist()}
        for i, q in enumerate(chances)
    ]
    alike = [row | {"trace": f"{row['trace']}/sample-{n}" if n else row["trace"]} for row in once for n in range(4)]
    one, four = summary(once, chances, 100), summary(alike, np.repeat(chances, 4), 100)
    assert four["auc"]["share"]["ci95"] == pytest.approx(one["auc"]["share"]["ci95"])
    assert (four["boundaries"], four["problems"]) == (320, 80)
