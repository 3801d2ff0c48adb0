"""Risk, frontier and transfer on the evaluated split equal those of records that the same policies give by replay."""

import dataclasses
import json

import pytest
from evaluated_case import POLICY, signals_of, traces_and_labels

from specexit_jax.annotation.replay import replay
from specexit_jax.evaluation.report.exit_sections import exit_sections
from specexit_jax.evaluation.report.risk_tables import risk_text, transfer_table
from specexit_jax.exits.policy_file import save_policy
from specexit_jax.exits.risk import Certificate

STRICT = dataclasses.replace(POLICY, thresholds=(0.75, 0.0, 1e4))


def replayed(policy, traces, labels, signals):
    """(tokens, traces harmed) of replay, one by one."""
    shown = replay(policy.policy(), traces, labels, signals, (2,))
    harmed = [
        (trace["correct"] if trace["think_end"] is not None else True) and not one.correct
        for trace, one in zip(traces, shown, strict=True)
    ]
    return [one.tokens for one in shown], sum(harmed)


def test_sections_are_what_replay_gives(tmp_path):
    traces, labels = traces_and_labels()
    signals = signals_of(traces)
    row = {"epsilon": 0.3, "delta": 0.05, "smoothing": STRICT.smoothing, "thresholds": list(STRICT.thresholds),
           "budget": None, "harmed": 1, "problems": 99, "risk_upper": 0.29, "tokens": 5.0, "tokens_ratio": 0.1}  # fmt: skip
    rows = [{"epsilon": 0.001, "delta": 0.05, "refused": "too few"}, row]
    (tmp_path / "frontier.json").write_text(json.dumps({"split": "calibration", "rows": rows}))
    certificate = Certificate(0.3, 0.05, "calibration", 99, 1, 0.01, 0.29, "development", 0, (STRICT.thresholds,))
    task = traces[0]["task"]
    save_policy(tmp_path / "policies" / f"{task}.json", dataclasses.replace(STRICT, certificate=certificate))
    found = exit_sections(POLICY, tmp_path, traces, labels, signals, 1)
    tokens, harmed = replayed(POLICY, traces, labels, signals)
    assert (found["risk"]["harmed"], found["risk"]["problems"]) == (harmed, len(traces))
    assert found["risk"]["risk_ci95"][0] <= found["risk"]["risk"] <= found["risk"]["risk_ci95"][1]
    strict, fewer = replayed(STRICT, traces, labels, signals)
    assert sum(strict) > sum(tokens)
    (kept,) = found["frontier"]
    assert (kept["epsilon"], kept["risk_bound"], kept["harmed"]) == (0.3, 0.29, fewer) and "tokens" in kept
    assert set(found["transfer"]) == {"pooled", task}
    chosen = [number for number, trace in enumerate(traces) if trace["task"] == task]
    own = found["transfer"][task][task]
    assert own["tokens"] == pytest.approx(sum(strict[number] for number in chosen) / len(chosen))
    assert "no certificate" in risk_text(found["risk"])
    table = transfer_table(found["transfer"])
    assert table.index("| pooled |") < table.rindex(f"| {task} |") and table.count("**") == 2


def test_a_certificate_is_told_beside_what_came_of_it(tmp_path):
    traces, labels = traces_and_labels()
    certificate = Certificate(0.3, 0.05, "calibration", 99, 1, 0.01, 0.29, "development", 0, (POLICY.thresholds,))
    file = dataclasses.replace(POLICY, certificate=certificate)
    found = exit_sections(file, tmp_path, traces, labels, signals_of(traces), 1)
    assert set(found) == {"risk"} and found["risk"]["certificate"]["epsilon"] == 0.3
    assert "P(risk ≤ 30 %) ≥ 95 %, on 99 problems of `calibration` with 1 harmed" in risk_text(found["risk"])


def test_a_broken_frontier_is_named_and_the_released_rule_has_no_sections(tmp_path):
    traces, labels = traces_and_labels()
    (tmp_path / "frontier.json").write_text("[]")
    with pytest.raises(ValueError, match=r"frontier.json is not a frontier"):
        exit_sections(POLICY, tmp_path, traces, labels, signals_of(traces), 1)
    released = dataclasses.replace(POLICY, rule="released", smoothing="ewma")
    assert exit_sections(released, tmp_path, traces, labels, {}, 1) == {}


def test_samples_that_agree_give_the_risk_of_one_and_the_report_says_what_is_not_known(tmp_path):
    traces, labels = traces_and_labels()
    signals = signals_of(traces)
    one = exit_sections(POLICY, tmp_path, traces, labels, signals, 1)["risk"]
    names = {trace["id"]: [trace["id"], *(f"{trace['id']}/sample-{n}" for n in (1, 2))] for trace in traces}
    # Without "problem": taken from the ids.
    many = [[row | {"id": name} for row in rows for name in names[row["id"]]] for rows in (traces, labels)]
    many[0] = [{key: value for key, value in trace.items() if key != "problem"} for trace in many[0]]
    along = {name: signals[own] for own, alike in names.items() for name in alike}
    three = exit_sections(POLICY, tmp_path, *many, along, 1)["risk"]
    assert (three["problems"], three["traces"], three["harmed"]) == (
        one["problems"],
        3 * one["traces"],
        3 * one["harmed"],
    )
    assert three["risk"] == pytest.approx(one["risk"]) and three["risk_ci95"] == pytest.approx(one["risk_ci95"])
    assert f"Of {3 * len(traces)} traces of {len(traces)} problems" in risk_text(three)
    assert "fewer than 300 say little" in risk_text(three)
    earlier = Certificate(0.3, 0.05, "calibration", 99, 1, 0.01, 0.29, "development", 0, (POLICY.thresholds,))
    bets = dataclasses.replace(earlier, traces=396, test="betting", risk=0.01, harmed=4, scope="holds for sums alone")
    told = [risk_text(three | {"certificate": dataclasses.asdict(found)}) for found in (earlier, bets)]
    assert "did not record the mixture of tasks" in told[0] and "The certificate holds for sums alone." in told[1]
    assert "1.00 % of a problem's traces harmed (4 of 396 traces of 99 problems)" in told[1]
    table = transfer_table({"pooled": {"sums": {"tokens_ratio": 0.5, "harmed": 1, "problems": 9, "risk": 0.25}}}, 6)
    assert "those of the 6 tasks hold at once" in table and "−50 % / 25.0 %" in table
