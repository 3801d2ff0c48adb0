"""Arms that are certified in the same way and compared with full thinking; seeds of a problem are averaged first."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from annotated_case import traces_and_labels, write_split
from calibration_case import random_outcomes

from specexit_jax.annotation.kinds import labels_at
from specexit_jax.evaluation.certified.ablation import Paired, against_single, arms, compared, row_of, strata, table_of
from specexit_jax.evaluation.certified.certify import Goal
from specexit_jax.evaluation.pipeline.ablating import Split, annotated_arms
from specexit_jax.evaluation.pipeline.deer_trials import trial_rows
from specexit_jax.exits.boundaries import make_boundaries

TEXTS = ["", "a", "b.\n\n", "c\n", "Wait", "d:\n\n", "But"]


def test_arms_are_all_subsets_smoothers_kinds_and_places():
    found = arms(("none", "ewma"), {"own": "draft", "other": "fc"})
    names = {table: [arm.name for arm in found if arm.table == table] for table in {arm.table for arm in found}}
    assert len(names["signals"]) == 7 and "confidence + remain" in names["signals"]
    assert names["smoother"] == ["none", "ewma"] and names["signals' place"] == ["draft (own)", "fc (other)"]
    assert names["boundaries"] == ["paragraph", "marker", "paragraph + marker", "sentence"]


def test_arms_at_boundaries_that_were_not_annotated_are_left_out(tmp_path):
    said = []
    folders = [write_split(tmp_path / name, [], traces_and_labels(2, kinds)[1], kinds=kinds)
               for name, kinds in (("development", ("paragraph", "marker")), ("test", ("sentence", "paragraph")))]  # fmt: skip
    left = annotated_arms(arms(("none",), {"own": "draft"}), folders, said.append)
    assert [arm.name for arm in left if arm.table == "boundaries"] == ["paragraph"] and len(left) == 10
    assert said == [
        "boundaries: marker, sentence left out: not every split was annotated at them (--config.annotate.kinds)"
    ]


def test_seeds_of_a_problem_are_one_observation():
    tasks, problems = ["a", "a", "a", "b"], ["1", "1", "2", "3"]
    pairs = Paired(tasks, problems, np.array([10, 20, 30, 8]), np.array([True, False, True, True]),
                   np.array([40, 40, 40, 16]), np.array([True, True, False, True]), np.ones(4, bool))  # fmt: skip
    one, other = strata(pairs, np.stack([pairs.tokens, pairs.full_tokens], axis=1))
    np.testing.assert_array_equal(one, [[15, 40], [30, 40]])
    np.testing.assert_array_equal(other, [[8, 16]])
    row = compared(pairs)
    assert (row["traces"], row["problems"], row["harmed"], row["mended"]) == (4, 3, 1, 1)
    assert row["tokens"] == pytest.approx((22.5 + 8) / 2)
    assert row["tokens_ratio"]["value"] == pytest.approx((22.5 + 8) / (40 + 16))
    assert row["accuracy_difference"]["value"] == pytest.approx((0.75 - 0.5 + 0) / 2)


def test_an_arm_is_certified_on_calibration_and_used_on_test():
    splits = [{"none": random_outcomes(seed, size)} for seed, size in ((1, 1200), (2, 3000), (3, 800))]
    tasks, problems = ["a"] * 200 + ["b"] * 600, [str(number // 2) for number in range(800)]
    own = [arm for arm in arms(("none",), {"own": "fc"}) if arm.name in ("confidence", "remain", "confidence + remain")]
    rows, results = zip(*(row_of(arm, splits, Goal(0.08, 0.05), tasks, problems) for arm in own), strict=True)
    confident, remaining, both = rows
    assert confident["tokens_ratio"]["value"] < 0.8 < 0.88 < remaining["tokens_ratio"]["value"], "remain is noise here"
    assert confident["problems"] == 400 and confident["traces"] == 800
    assert confident["harmed"] / 800 < 0.1
    refused, nothing = row_of(own[0], splits, Goal(0.0001, 0.05), tasks, problems)
    assert "can never certify" in refused["refused"] and nothing is None
    against = against_single(own, rows, results)
    assert against["arm"] == "confidence + remain, against confidence" and against["traces"] == 800
    assert against["tokens_ratio"]["value"] == pytest.approx(both["tokens"] / confident["tokens"])
    assert against["harmed"] == (results[0].correct & ~results[2].correct).sum()
    assert (
        against_single(own, [refused] * 3, [None] * 3) is None
        and against_single(own[:1], rows[:1], results[:1]) is None
    )
    table = table_of([confident, remaining, refused], "signals")
    assert table.count("\n") == 5 and "| confidence | " in table and "never certify" in table


def test_labels_of_one_kind_among_those_of_several():
    trace = {"ids": [1, 2, 3, 4, 1, 5, 6, 1], "think_end": 7}
    label = {"id": "x", "boundaries": [1, 2, 5], "agree": [False, True, True], "forced": ["p", "q", "r"], "first": 1,
             "forced_ids": [[1], [2], [3]], "correct": [False, True, True], "logprob": [0.0, -1.0, -2.0], "stable": 1}  # fmt: skip
    (paragraphs,) = labels_at([trace], [label], make_boundaries(TEXTS, ("paragraph",)))
    assert paragraphs["boundaries"] == [1, 5] and paragraphs["forced"] == ["p", "r"] and paragraphs["first"] == 1
    (markers,) = labels_at([trace], [label], make_boundaries(TEXTS, ("marker",)))
    assert markers["boundaries"] == [2, 5] and markers["first"] == 0 and markers["logprob"] == [-1.0, -2.0]
    with pytest.raises(ValueError, match="label x has no boundary at token 2"):
        labels_at([trace], [paragraphs], make_boundaries(TEXTS, ("marker",)))


def _tried(number: int, unsure: float) -> Split:
    """Traces of two paragraphs: the first answer is right in every second one, the others' is wrong at probability `unsure`."""
    traces, labels = [], []
    for i in range(number):
        right = i % 2 == 0
        name = {"id": str(i), "task": "ab"[i % 3 == 0], "split": "test"}
        outcome = {"think_end": 6, "correct": True, "answer": "4", "finish": "stop"}
        traces.append(name | outcome | {"ids": [1, 1, 2, 1, 1, 2, 6, 4, 6]})
        labels.append(
            {"id": str(i), "boundaries": [2, 5], "forced_ids": [[4, 6], [4, 6]], "forced": ["4" if right else "3", "4"]}
            | {
                "agree": [right, True],
                "correct": [right, True],
                "first": 0 if right else 1,
                "stable": 0 if right else 1,
            }
            | {"logprob": [math.log(0.99 if right else unsure), math.log(0.995)]}
        )
    return Split(Path("."), traces, labels)


def test_deers_score_by_its_own_threshold_and_by_a_certified_one():
    session = SimpleNamespace(boundaries=lambda kinds: make_boundaries(TEXTS, kinds), end_think_ids=(6,))
    splits = [_tried(number, 0.97) for number in (400, 600, 300)]
    own, certified = trial_rows(session, splits, Goal(0.02, 0.05), "rule")
    assert own["tokens"] == 6 and own["harmed"] == 150 and own["exit_rate"] == 1
    # a certified threshold lies above 0.97 and not above 0.99: right first answers leave at once, the others a paragraph later
    assert 0.97 < certified["thresholds"][0] <= 0.99
    assert certified["harmed"] == 0 and certified["tokens"] == pytest.approx((6 + 9) / 2, abs=0.01)
    sure = [_tried(number, 0.999) for number in (400, 600, 300)]
    own, certified = trial_rows(session, sure, Goal(0.02, 0.05), "rule")
    assert own["harmed"] == 150 and "harms 300 of 600" in certified["refused"]
