"""The method chosen for a user's draft: specexit if a policy for it is found, else eagle3; one line says why."""

import dataclasses
import shutil

import pytest
from tiny_folders import write_policy

from specexit_jax.engine.binding import bound
from specexit_jax.engine.choice import choose
from specexit_jax.exits.policy import Threshold
from specexit_jax.exits.policy_file import load_policy, save_policy


@pytest.fixture
def workdir(tiny, tmp_path):
    """A workdir like that of launch.train and launch.calibrate."""
    shutil.copytree(tiny / "draft", tmp_path / "draft_model")
    return tmp_path


def test_a_policy_beside_the_draft_is_its_own(session, tiny, workdir):
    draft = workdir / "draft_model"
    found = choose(session, draft)
    assert found.name == "eagle3" and found.policy is None
    assert "no policy.json lies with the draft; launch.calibrate makes one" in found.line
    shutil.copy(tiny / "policy.json", workdir)
    found = choose(session, draft)
    assert (found.name, found.kinds) == ("specexit", ("paragraph",)) and isinstance(found.policy, Threshold)
    assert found.line == f"method specexit: exits by {workdir / 'policy.json'}"
    write_policy(draft, session.draft_digest)  # in the draft's folder, as in an export: it is tried first
    assert choose(session, draft, smoother="mean").line == f"method specexit: exits by {draft / 'policy.json'}"
    write_policy(draft, "sha256:" + "0" * 64)
    assert choose(session, draft).line == f"method specexit: exits by {workdir / 'policy.json'}"
    assert choose(session, draft, "probe").name == "probe"


def test_what_the_policy_was_not_made_for_is_known(session, tiny, workdir):
    draft = workdir / "draft_model"
    save_policy(workdir / "policy.json", bound(load_policy(tiny / "policy.json"), session))
    assert choose(session, draft).uncovered is choose(session, draft, "eagle3").uncovered is None
    for found in (choose(session, draft, smoother="mean"), choose(session, draft, "probe", smoother="mean")):
        assert found.uncovered.endswith(
            "policy.json was calibrated for another run than this: smoothing mean instead of ewma."
        )


def test_a_policy_of_another_draft_is_not_used_but_named(session, workdir):
    write_policy(workdir, "sha256:" + "0" * 64)
    found = choose(session, workdir / "draft_model")
    assert found.name == "eagle3" and "policy.json was calibrated for another draft" in found.line
    for asked in ({"policy": workdir / "policy.json"}, {"name": "specexit"}):
        with pytest.raises(ValueError, match="calibrated for another draft"):
            choose(session, workdir / "draft_model", **asked)
    (workdir / "policy.json").write_text("{")
    found = choose(session, workdir / "draft_model")
    assert found.name == "eagle3" and "policy.json is not valid JSON" in found.line


def test_what_cannot_exit_does_not(session, tiny):
    alone = dataclasses.replace(session, draft=None)
    assert choose(alone, None).line == "method think: there is no draft model"
    assert choose(alone, None, policy="p.json").line.endswith("; policy is ignored")
    mute = dataclasses.replace(session, draft=dataclasses.replace(session.draft, signals="none"))
    assert choose(mute, tiny / "draft").line == "method eagle3: the draft has no exit signals"
    plain = dataclasses.replace(session, thinking=None)
    assert choose(plain, tiny / "draft").line.startswith("method eagle3: the model does not think")


def test_what_is_asked_for_is_done_or_refused(session, tiny, workdir):
    draft = workdir / "draft_model"
    assert choose(session, tiny / "draft", "eagle3", smoother="mean").line == (
        "method eagle3: the caller asked for it; smoother is ignored"
    )
    assert choose(session, draft, exit_rule="released").line == "method specexit: exits by the released rule"
    assert choose(session, draft, "probe", exit_rule="released").kinds == ("released",)
    both = choose(session, draft, "probe", exit_rule="released", policy="p.json")
    assert both.why == "the caller asked for it; exits by the released rule; policy is ignored"
    with pytest.raises(
        ValueError, match=r"'specexit' needs an exit policy, and no policy.json lies in .*draft_model or"
    ):
        choose(session, draft, "specexit")
    with pytest.raises(ValueError, match="'probe' needs a draft model"):
        choose(dataclasses.replace(session, draft=None), None, "probe")
    with pytest.raises(FileNotFoundError, match=r"absent.json: no such policy"):
        choose(session, draft, policy="absent.json")


def test_reasons_name_no_flags_of_the_command_line(session, tiny, workdir):
    """A caller of the API has none."""
    alone, draft = dataclasses.replace(session, draft=None), workdir / "draft_model"
    extra = {"policy": "p.json", "smoother": "mean"}
    found = [choose(alone, None, **extra), choose(session, draft), choose(session, tiny / "draft", "eagle3", **extra)]
    assert not [choice.line for choice in found if "--" in choice.line]
