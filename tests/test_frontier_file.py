"""frontier.json beside a policy: which of its rows are this policy at another risk."""

import dataclasses
import json
from pathlib import Path

import pytest
from launch_case import PROMPT, call, folders
from scipy.stats import beta
from serving_case import LATE, NEVER, OPEN, certified_folder, policy_of, row

from specexit_jax import SpecExit
from specexit_jax.engine.session import EMBEDDED
from specexit_jax.exits.frontier_file import FRONTIER, at_most, certified_risks
from specexit_jax.exits.policy_file import load_policy

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def folder(tiny, session, tmp_path):
    return certified_folder(tiny, tmp_path / "model", session)


def test_rows_are_policies_at_other_risks(folder):
    file = policy_of(folder)
    risks = certified_risks(file, folder / FRONTIER)
    assert [(risk.epsilon, risk.policy.thresholds, risk.tokens_ratio) for risk in risks] == [
        (0.01, NEVER, 1.0), (0.02, LATE, 0.5), (0.05, OPEN, 0.25)
    ]  # fmt: skip
    assert all(risk.policy.certificate.thresholds == risk.policy.thresholds for risk in risks)
    assert [at_most(risks, epsilon).epsilon for epsilon in (0.01, 0.019, 0.02, 1.0)] == [0.01, 0.01, 0.02, 0.05]
    with pytest.raises(ValueError, match=r"the least risk that this exit policy is certified for is 0.01"):
        at_most(risks, 0.0099)


def test_rows_of_other_policies_are_left_out(folder):
    file = policy_of(folder)
    for change in ({"split": "other"}, {"rows": [row(0.01, NEVER, 1.0, "mean")]}, {"score": {"hidden": 3}}):
        content = json.loads((folder / FRONTIER).read_text()) | change
        (folder / "other.json").write_text(json.dumps(content))
        assert [(risk.epsilon, risk.tokens_ratio) for risk in certified_risks(file, folder / "other.json")] == [
            (0.02, None)
        ]
    assert certified_risks(dataclasses.replace(file, thresholds=OPEN), folder / FRONTIER) == ()
    assert certified_risks(dataclasses.replace(file, certificate=None), folder / FRONTIER) == ()


@pytest.mark.parametrize(
    "content", ["[", "[]", '{"split": "development"}', '{"split": "development", "rows": [{"epsilon": 1}]}']
)
def test_a_file_that_is_no_frontier_is_named(folder, content):
    (folder / FRONTIER).write_text(content)
    with pytest.raises(ValueError, match=r"frontier.json is not a frontier"):
        certified_risks(policy_of(folder), folder / FRONTIER)


def test_the_bundled_frontier_is_of_the_bundled_policy():
    """Each row's bound is that of its counts, and what the pages tell is what is bundled."""
    policy = load_policy(EMBEDDED / "policy.json")
    risks = certified_risks(policy, EMBEDDED / FRONTIER)
    told = json.loads((ROOT / "docs/results/frontier.json").read_text())["rows"]
    assert [risk.epsilon for risk in risks] == [one["epsilon"] for one in told]
    assert policy.thresholds in [risk.policy.thresholds for risk in risks if risk.epsilon == policy.certificate.epsilon]
    for risk, one in zip(risks, told, strict=True):
        held = risk.policy.certificate
        assert held.risk_upper == pytest.approx(beta.ppf(1 - held.delta, held.harmed + 1, held.problems - held.harmed))
        assert held.risk_upper <= risk.epsilon and held.harmed == one["harmed"] and held.problems == 6000
        assert risk.tokens_ratio == pytest.approx(one["tokens_ratio"], abs=1e-4)
    limits = [risk.policy.thresholds[-1] for risk in risks]
    assert limits == sorted(limits, reverse=True)


def test_a_request_chooses_its_risk(folder):
    model = SpecExit.load(folder / "target", folder / "draft", folder / "policy.json", draft_tokens=2)
    exits = {epsilon: model.generate("Count the legs.", epsilon=epsilon, seed=0).exit for epsilon in (0.01, 0.02, 0.05)}
    assert exits[0.01] is None and exits[0.02].token > exits[0.05].token
    assert model.plan("?", epsilon=0.03).policy.certificate.epsilon == 0.02
    assert model.plan("?", epsilon=0.05).policy.thresholds == dict(
        zip(("confidence", "progress", "remain"), OPEN, strict=True)
    )
    for wrong, told in (({"epsilon": 0.001}, "least risk"), ({"epsilon": 0.02, "method": "eagle3"}, "takes none")):
        with pytest.raises(ValueError, match=told):
            model.plan("?", **wrong)
    with pytest.raises(ValueError, match="thinking_budget must be at least 0"):
        model.plan("?", thinking_budget=-1)


def test_an_exit_at_another_risk_is_compared_with_no_exit(folder, capsys, monkeypatch):
    code, out, err = call(capsys, monkeypatch, *folders(folder), PROMPT, "--epsilon=0.05")
    assert code == 0, err
    assert "── exit after " in out and "Without it (same program, same seed): " in out
