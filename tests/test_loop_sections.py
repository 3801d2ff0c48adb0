"""Acceptance against position and a request's seconds by part: counted on known steps, and on a real loop."""

import dataclasses
import types

import numpy as np
import pytest
from tiny_folders import write_tiny

from specexit_jax.annotation.rollout import request_of
from specexit_jax.data.splits import Problem
from specexit_jax.engine.generate import generate
from specexit_jax.engine.methods import make_method, read_policy
from specexit_jax.engine.requests import DecodeSettings
from specexit_jax.engine.session import load_session
from specexit_jax.engine.specs import spec_for
from specexit_jax.evaluation.loop import latency_split
from specexit_jax.evaluation.loop.acceptance_position import acceptance_by_position, step_lengths
from specexit_jax.evaluation.loop.latency_split import PARTS, StepCost, parts_of
from specexit_jax.evaluation.pipeline import loop_sections as loop_sections
from specexit_jax.evaluation.report.loop_tables import position_table, split_table

NEW = 40


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = write_tiny(tmp_path_factory.mktemp("tiny"))
    session = load_session(folder / "target", folder / "draft")
    policy, kinds = read_policy(session, folder / "policy.json")
    asked = ("Count the legs of 3 dogs.", "What is 3*4?", "Legs of 2 dogs?")
    problems = [Problem(f"p/{i}", f"task{i % 2}", "test", {"question": q, "answer": "12"}) for i, q in enumerate(asked)]
    return session, policy, kinds, problems


def test_steps_are_placed_by_the_thinking_before_them():
    lengths = {"a": np.array([0, 4, 6, 20, 22, 25, 28]), "b": np.array([0, 1, 17, 18]), "c": np.array([0])}
    table = acceptance_by_position(lengths, {"a": 21, "b": None, "c": None})
    # a's steps from 22 on begin after `</think>` at 21; each row's last step is left out
    assert [(row["from"], row["to"], row["steps"], row["problems"]) for row in table] == [(0, 16, 5, 2), (16, 32, 1, 1)]
    assert table[0]["tokens_per_step"] == pytest.approx((4 + 2 + 14 + 1 + 16) / 5)
    assert table[0]["ci95"][0] < table[0]["tokens_per_step"] < table[0]["ci95"][1]
    assert table[1]["tokens_per_step"] == 2
    assert "| 0 to 15 | 7.40 (" in position_table(table)
    assert acceptance_by_position({"c": np.array([0])}, {"c": None}) == []


def test_bins_widen_until_they_are_few():
    lengths = {"a": np.arange(0, 1000, 4)}
    table = acceptance_by_position(lengths, {"a": None})
    assert len(table) <= 12 and {row["to"] - row["from"] for row in table} == {128}
    assert sum(row["steps"] for row in table) == 248 and {row["tokens_per_step"] for row in table} == {4.0}


def test_parts_add_up_to_the_whole():
    costs = {256: StepCost(0.01, 0.004, 0.016), 512: StepCost(0.02, 0.005, 0.027)}
    found = parts_of(1.0, 0.1, [256, 256, 512], costs, 0.05)
    assert found["verify"] == pytest.approx(0.04) and found["draft"] == pytest.approx(0.013)
    assert found["exit"] == pytest.approx(0.05 * 0.059)
    assert sum(found[part] for part in PARTS) == pytest.approx(1.0) and found["whole"] == 1.0


def test_a_loop_taken_a_step_at_a_time_writes_what_it_writes_at_once(tiny):
    session, _, _, problems = tiny
    method = make_method(session, "eagle3", draft_tokens=2)
    lengths = step_lengths(session, problems, method, 0, NEW)
    requests = [request_of(session, problem, 0) for problem in problems]
    for outcome in generate(session, requests, method, DecodeSettings(max_new_tokens=NEW)):
        own = lengths[outcome.id]
        assert own[0] == 0 and own[-1] == len(outcome.ids) and len(own) == outcome.steps + 1
        whole = np.bincount(np.diff(own)[:-1] - 1, minlength=3)  # the last may be cut
        assert np.all(np.abs(whole - outcome.accepted) <= 1) and whole.sum() >= sum(outcome.accepted) - 1


def test_sections_of_a_real_loop(tiny, monkeypatch):
    session, policy, kinds, problems = tiny
    cases = []

    def cost(_, spec, prefix):
        cases.append(latency_split._case(spec, prefix))
        return StepCost(0.001, 0.0005, 0.002)

    monkeypatch.setattr(latency_split, "_step_cost", cost)
    monkeypatch.setattr(latency_split, "_exit_share", lambda *_: {"value": 0.5, "ci95": [0.4, 0.6], "rounds": 50})
    setting = types.SimpleNamespace(
        methods=("think", "eagle3", "specexit"), latency_per_task=2, loop_parts=True, latency_rounds=2, draft_tokens=2, seed=0,
        max_new_tokens=NEW,
    )  # fmt: skip
    traces = [{"id": problem.id, "think_end": None} for problem in problems]
    found = loop_sections.loop_sections(session, problems, policy, kinds, setting, traces)
    assert sum(row["steps"] for row in found["acceptance_position"]) > 10
    split = found["latency_split"]
    assert (split["problems"], split["rounds"], list(split["methods"])) == (2, 2, ["eagle3", "specexit"])
    full, left = split["methods"]["eagle3"], split["methods"]["specexit"]
    for own in (full, left):
        assert own["verify"] == pytest.approx(0.001 * own["steps"])
        assert sum(own[part] for part in PARTS) == pytest.approx(own["whole"])
    assert full["exit"] == 0.0 and left["exit"] == pytest.approx(0.5 * 0.002 * left["steps"])
    assert "verify 1.00, draft 0.50, whole 2.00" in split_table(split)
    for case in cases:
        assert case.context >= 1 and case.live in case.spec.prefixes
    for name in ("latency_per_task", "loop_parts"):
        off = types.SimpleNamespace(**{**vars(setting), name: 0})
        assert loop_sections.loop_sections(session, problems, policy, kinds, off, traces) == {}


@pytest.mark.slow
def test_the_parts_of_a_real_loop_are_measured(tiny):
    session, policy, kinds, problems = tiny
    method = make_method(session, "specexit", policy, kinds, 2)
    full = make_method(session, "eagle3", draft_tokens=2)
    lengths = step_lengths(session, problems[:1], full, 0, NEW)
    split = latency_split.latency_split(
        session, problems[:1], [full, method], lengths, seed=0, max_new_tokens=NEW, rounds=1
    )
    assert all(cost > 0 for row in split["step_ms"].values() for cost in row.values())
    assert split["exit_share"]["ci95"][0] <= split["exit_share"]["value"] <= split["exit_share"]["ci95"][1]


def test_cases_end_where_the_live_prefix_does(tiny):
    session, policy, kinds, _ = tiny
    spec = spec_for(session, make_method(session, "specexit", policy, kinds, 2), 64)
    for length in (64, 300, 2000):
        own = dataclasses.replace(spec, buffer_length=length)
        for prefix in own.prefixes:
            case = latency_split._case(own, prefix)
            assert case.live == prefix and case.context >= 1 and case.iterations >= 1
