"""A policy holds for the settings it was made for: a run that differs is reported, or refused on request; exports keep
the record."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from tiny_folders import write_policy

from launch import export_policy, strictness
from specexit_jax import notes
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.binding import bound, uncovered
from specexit_jax.engine.methods import read_policy
from specexit_jax.engine.session import EMBEDDED, load_session, with_draft
from specexit_jax.evaluation.certified import conditions
from specexit_jax.exits.policy_file import load_policy, save_policy
from specexit_jax.exits.risk import Certificate
from specexit_jax.models.checkpoints.content import draft_digest, former_digest
from specexit_jax.models.checkpoints.hf import load_draft, save_draft
from specexit_jax.models.checkpoints.hf_draft_config import Verifier


@pytest.fixture(scope="module")
def file(tiny, session):
    return bound(load_policy(tiny / "policy.json", session.draft_digest), session)


def _certified(file):
    names = {field.name: None for field in dataclasses.fields(Certificate)}
    values = {"epsilon": 0.01, "delta": 0.05, "split": "c", "problems": 9, "step": 0, "steps": (file.thresholds,)}
    return dataclasses.replace(file, certificate=Certificate(**names | values))


def _changed(session, **changes):
    return dataclasses.replace(session, **changes)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: {"sampling": Sampling(0.5)}, "temperature 0.5 instead of 1.0"),
        (lambda s: {"sampling": Sampling(1.0, top_p=0.9, top_k=5)}, "top_k 5 instead of 0, top_p 0.9 instead of 1.0"),
        (lambda s: {"max_new_tokens": 20}, "max_new_tokens 20 instead of 48"),
        (lambda s: {"target_digest": "values:0"}, "another target"),
        (lambda s: {"thinking": dataclasses.replace(s.thinking, end=(9, 8))}, r"thinking closed by ids 9\+8 instead of \d+"),
    ],
)  # fmt: skip
def test_a_run_that_differs_is_told_of_in_one_line(session, file, change, told):
    assert uncovered(file, session) is None
    sentence = uncovered(_certified(file), _changed(session, **change(session)), "P")
    assert sentence.startswith("P has a certificate that does not cover this run: ") and "\n" not in sentence
    assert re.search(told, sentence), sentence


def test_what_the_file_itself_no_longer_is(session, file):
    """A smoother, boundary kinds, a budget or thresholds that were edited after certification."""
    certified = _certified(file)
    changes = {"smoothing": "mean", "boundary_kinds": ("marker",), "budget": 99}
    sentence = uncovered(dataclasses.replace(certified, **changes, thresholds=(0.1, 0.0, 9.0)), session)
    for told in ("boundary_kinds marker instead of paragraph", "smoothing mean instead of ewma", "budget 99 instead of None",
                 "thresholds that are not the certified ones"):  # fmt: skip
        assert told in sentence
    greedy = _changed(session, sampling=Sampling())
    assert uncovered(bound(file, greedy), _changed(greedy, sampling=Sampling(top_p=0.5))) is None, "no filter matters"
    assert uncovered(file, _changed(session, sampling=dataclasses.replace(session.sampling, rule="rejection"))) is None


def test_reading_a_policy_tells_what_it_does_not_hold_for(tiny, session, file, tmp_path):
    told, path = [], tmp_path / "policy.json"
    save_policy(path, file)
    read_policy(session, path, tell=told.append)
    assert told == []
    read_policy(session, path, smoother="mean", tell=told.append)
    assert told.pop() == f"{path} was calibrated for another run than this: smoothing mean instead of ewma."
    read_policy(session, tiny / "policy.json", tell=told.append)  # written before policies said so
    assert "does not say what it was calibrated for" in told.pop()
    read_policy(session, path, exit_rule="released", tell=told.append)
    assert told == []


def test_a_policy_of_before_is_known_by_its_drafts_file(tiny, session, tmp_path):
    write_policy(tmp_path, former_digest(tiny / "draft"))
    assert load_policy(tmp_path / "policy.json", session.draft_digest).made_for is None
    write_policy(tmp_path, "sha256:" + "0" * 64)
    with pytest.raises(ValueError, match="calibrated for another draft"):
        load_policy(tmp_path / "policy.json", session.draft_digest)


def test_the_bundled_policy_covers_the_bundled_model():
    """Its record is what the present code would write."""
    session = load_session(EMBEDDED / "target", EMBEDDED / "draft")
    file = load_policy(EMBEDDED / "policy.json", session.draft_digest)
    assert uncovered(file, session) is None and file.certificate is not None
    assert bound(file, session) == file
    assert (file.made_for.sampling.temperature, file.made_for.max_new_tokens) == (0.8, 880)
    assert file.made_for.thinking.opens == "<think>\n"


def test_a_policy_is_made_for_what_its_traces_were_sampled_with(session, file, tmp_path):
    def settings(**changes):
        told = {
            "sampling": dataclasses.asdict(Sampling(0.3)),
            "max_new_tokens": 77,
            "target": f"t {session.target_digest}",
        }
        (tmp_path / "rollout.json").write_text(json.dumps({"settings": told | changes}))

    assert conditions.binder(session, tmp_path, 55)(file).made_for.max_new_tokens == 55  # where nothing is recorded
    settings()
    made = conditions.binder(session, tmp_path, 55)(file).made_for
    assert (made.sampling.temperature, made.max_new_tokens) == (0.3, 77)
    told = conditions.unlike(session, tmp_path, 55)
    assert "temperature 1.0 instead of 0.3" in told and "max_new_tokens 55 instead of 77" in told
    settings(sampling=dataclasses.asdict(session.sampling), target="")
    assert conditions.unlike(session, tmp_path, 77) is None
    settings(target="other values:1")
    with pytest.raises(ValueError, match="are another target's"):
        conditions.binder(session, tmp_path, 55)


@pytest.mark.parametrize("form", ["eagle", "angelslim", "speculators"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_export_carries_the_policy_along(tiny, session, file, tmp_path, form, dtype):
    shutil.copytree(tiny / "draft", tmp_path / "draft_model")
    save_policy(tmp_path / "policy.json", _certified(file))
    folder, out = tmp_path / "draft_model", tmp_path / "out"
    bundle = load_draft(folder)
    policy, _ = export_policy.chosen(None, folder, bundle.config)
    assert policy == tmp_path / "policy.json"
    table = np.asarray(session.params.target["embed"]["embedding"])
    save_draft(out, bundle, dtype, form, verifier=Verifier("a/b", ("X",), table))
    told = export_policy.written(policy, folder, bundle.config, out, dtype)
    exported = with_draft(session, out)
    read = load_policy(out / "policy.json", exported.draft_digest)
    assert uncovered(read, exported) is None
    if dtype == "float32":
        assert read == _certified(file) and told.endswith("for the same weights")
    else:
        assert "rewritten for the weights in bfloat16; its certificate was shown with those before" in told
        assert read == dataclasses.replace(_certified(file), draft=exported.draft_digest) != _certified(file)
        with pytest.raises(ValueError, match="another draft"):
            load_policy(out / "policy.json", session.draft_digest)


def test_a_policy_of_before_and_one_of_another_draft_in_an_export(tiny, tmp_path):
    shutil.copytree(tiny / "draft", tmp_path / "draft_model")
    folder, config = tmp_path / "draft_model", load_draft(tiny / "draft").config
    assert export_policy.chosen(None, folder, config) == (
        None,
        "no policy.json in the draft's folder or beside it: none goes along",
    )
    write_policy(tmp_path, former_digest(folder))
    assert export_policy.chosen(None, folder, config) == (tmp_path / "policy.json", "")
    export_policy.written(tmp_path / "policy.json", folder, config, folder, "float32")
    assert load_policy(folder / "policy.json").draft == draft_digest(folder, config)
    write_policy(tmp_path, "sha256:" + "0" * 64)
    (folder / "policy.json").unlink()
    path, told = export_policy.chosen(None, folder, config)
    assert path is None and told.startswith("no policy goes along: ") and "another draft" in told
    with pytest.raises(ValueError, match="another draft"):
        export_policy.chosen(str(tmp_path / "policy.json"), folder, config)


def test_one_line_or_a_refusal(monkeypatch, capsys):
    monkeypatch.setattr(notes, "_SAID", set())
    monkeypatch.setattr(strictness, "enabled", lambda: False)
    strictness.report("P does not hold.")
    strictness.report("P does not hold.")
    strictness.report(None)
    assert capsys.readouterr().err == "note: P does not hold.\n"
    monkeypatch.setattr(strictness, "enabled", lambda: True)
    strictness.report(None)
    with pytest.raises(ValueError, match="P does not hold"):
        strictness.report("P does not hold.")
