"""Certified policies and their cost: pooled, one per task, and used on another task."""

import dataclasses

import numpy as np
import pytest
from calibration_case import random_outcomes

from specexit_jax.evaluation.certified.certify import Goal, certify, policy_file, scored, transfer, use
from specexit_jax.evaluation.pipeline.calibrating import (
    SeenSplit,
    by_certificate,
    by_grid,
    by_task,
    frontier_of,
    require_problems,
)
from specexit_jax.exits.calibration import exit_boundaries, score, select
from specexit_jax.exits.policy_file import load_policy, save_policy
from specexit_jax.exits.risk import CannotCertify, p_value
from specexit_jax.storage.jsonl import append_jsonl

GOAL = Goal(0.08, 0.05)


def split(name: str, seed: int, traces: int) -> SeenSplit:
    tasks = ("a",) * (traces // 4) + ("b",) * (traces - traces // 4)
    return SeenSplit(name, tasks, {"none": random_outcomes(seed, traces), "ewma": random_outcomes(seed, traces)})


@pytest.fixture(scope="module")
def splits():
    return split("development", 1, 1200), split("calibration", 2, 3000)


def test_a_certified_policy_comes_back_from_its_file(tmp_path, splits):
    development, calibration = splits
    path, found = certify(scored(development.by_smoother, GOAL), calibration.by_smoother, GOAL)
    file = policy_file(path, found, GOAL, ("paragraph",), "sha256:ab")
    save_policy(tmp_path / "policy.json", file)
    read = load_policy(tmp_path / "policy.json", "sha256:ab")
    assert read == file and read.certificate.thresholds == read.thresholds
    assert (read.split, read.problems, read.certificate.path_split) == ("calibration", 3000, "development")
    assert read.bound is None and p_value(read.certificate.harmed, 3000, 0.08) == read.certificate.p_value <= 0.05


def test_the_frontier_falls_and_says_why_it_ends(splits):
    development, calibration = splits
    said = []
    rows = frontier_of(scored(development.by_smoother, GOAL), calibration, GOAL, (0.0005, 0.05, 0.2), said.append)
    assert [row["epsilon"] for row in rows] == [0.0005, 0.05, 0.08, 0.2] and len(said) == 4
    assert "can never certify" in rows[0]["refused"] and "at least 5990" in said[0]
    kept = rows[1:]
    assert all(row["risk_upper"] <= row["epsilon"] for row in kept)
    assert kept[0]["tokens"] > kept[1]["tokens"] > kept[2]["tokens"]
    for row in kept:
        seen = calibration.by_smoother[row["smoothing"]]
        found = score(seen, exit_boundaries(seen, np.array([row["thresholds"]])))
        assert (row["harmed"], row["tokens"]) == (found.harmed[0], found.tokens[0])
        assert row["tokens_ratio"] == pytest.approx(found.tokens[0] / (seen.weights @ seen.full_tokens))


def test_policies_of_tasks_and_where_they_transfer(splits):
    development, calibration = splits
    said, strict = [], dataclasses.replace(GOAL, epsilon=0.06)
    policies = by_task(development, calibration, strict, ("paragraph",), "sha256:ab", said.append)
    assert set(policies) <= {"a", "b"} and len(said) == 2 and policies["b"].split == "calibration (b)"
    assert policies["b"].problems == 2250
    table = transfer(policies, calibration.by_smoother, calibration.tasks)
    assert set(table) == set(policies) and all(set(row) == {"a", "b"} for row in table.values())
    own = table["b"]["b"]
    assert own["problems"] == 2250 and own["harmed"] == policies["b"].certificate.harmed
    one = select(calibration.by_smoother[policies["b"].smoothing], np.array([t == "a" for t in calibration.tasks]))
    assert table["b"]["a"] == use(one, policies["b"].thresholds)


def test_the_scope_of_a_certificate_is_in_its_file_and_said(splits, tmp_path):
    """Pooled: this mixture; a task's: by itself at delta, or all at once at delta / k."""
    development, calibration = splits
    said, goal, rest = [], dataclasses.replace(GOAL, epsilon=0.1), (("paragraph",), "sha256:ab")
    pooled = by_certificate(scored(development.by_smoother, goal), calibration, goal, *rest, said.append).certificate
    assert pooled.tasks == {"a": 750, "b": 2250} and (pooled.traces, pooled.test, pooled.together) == (
        3000,
        "binomial",
        1,
    )
    assert "this mixture of tasks (a 750, b 2250), not for each of them" in pooled.scope and pooled.scope in said[-1]
    alone = by_task(development, calibration, goal, *rest, said.append)
    assert alone["a"].certificate.tasks == {"a": 750} and alone["a"].certificate.delta == 0.05
    assert "each may fail with 0.05" in alone["a"].certificate.scope
    both = by_task(development, calibration, goal, *rest, said.append, simultaneous=True)
    for file in both.values():
        assert (file.certificate.delta, file.certificate.together) == (0.025, 2) and file.certificate.p_value <= 0.025
        assert "all 2 certificates made with it hold at once with probability 0.95" in file.certificate.scope
    save_policy(tmp_path / "policy.json", both["a"])
    assert load_policy(tmp_path / "policy.json") == both["a"]


def test_a_task_with_too_few_problems_has_no_policy_of_its_own(splits):
    development, calibration = splits
    said = []
    policies = by_task(development, calibration, Goal(0.003, 0.05), ("paragraph",), "sha256:ab", said.append)
    assert "a" not in policies and any("a: no policy of its own: 750 problems" in line for line in said)


def test_a_budget_is_part_of_the_policy_and_counted_in_its_risk(splits):
    development, calibration = splits
    goal = dataclasses.replace(GOAL, epsilon=0.1, budget=110)
    path, found = certify(scored(development.by_smoother, goal), calibration.by_smoother, goal)
    file = policy_file(path, found, goal, ("paragraph",), "sha256:ab")
    assert file.budget == 110 and int(file.policy().budget) == 110
    seen = calibration.by_smoother[path.smoothing]
    assert use(seen, found.thresholds, 110)["harmed"] == found.harmed != use(seen, found.thresholds)["harmed"]


def test_by_grid_no_promise_is_made_and_what_few_problems_say_is_told(splits):
    said, rest = [], (0.02, 1.0, None, ("paragraph",), "sha256:ab")
    file = by_grid(splits[0], *rest, said.append)
    assert file.certificate is None and file.bound == 0.02 and file.split == "development" and file.problems == 1200
    assert said[-1].startswith("development: a harm of ") and "warning" not in said[-1]
    assert "on the 1200 problems that the thresholds were chosen on" in said[-1]
    nine = {"none": select(splits[0].by_smoother["none"], np.arange(1200) < 9)}
    by_grid(SeenSplit("development", ("a",) * 9, nine), *rest, said.append)
    assert "(95 %: 0.00 to 29.91 %) on the 9 problems" in said[-1]
    assert "warning: 9 problems say next to nothing" in said[-1]


def test_a_refusal_that_depends_on_counts_comes_first(tmp_path):
    """298 problems, of two samples each: refused without labels, signals or a model."""
    rows = [{"id": f"p{i}/sample-{n}" if n else f"p{i}", "problem": f"p{i}"} for i in range(298) for n in range(2)]
    append_jsonl(tmp_path / "calibration" / "traces.jsonl", rows)
    with pytest.raises(CannotCertify, match="298 problems of calibration can never certify"):
        require_problems(tmp_path / "calibration", 0.01, 0.05)
    append_jsonl(tmp_path / "calibration" / "traces.jsonl", [{"id": "last"}])
    require_problems(tmp_path / "calibration", 0.01, 0.05)


def test_a_goal_names_signals_that_exist():
    with pytest.raises(ValueError, match=r"\('confidence', 'speed'\).*choose among confidence, progress, remain"):
        Goal(0.01, 0.05, ("confidence", "speed"))
    with pytest.raises(CannotCertify, match="never certify"):
        certify(scored({"none": random_outcomes(1, 50)}, GOAL), {"none": random_outcomes(2, 30)}, GOAL)
