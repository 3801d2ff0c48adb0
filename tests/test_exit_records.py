"""An evaluation goes on without a ceiling that cannot be certified."""

from types import SimpleNamespace

import pytest

from specexit_jax.engine.session import EMBEDDED
from specexit_jax.evaluation.pipeline import exit_records
from specexit_jax.exits.policy_file import load_policy
from specexit_jax.exits.risk import CannotCertify


def test_a_ceiling_that_cannot_be_certified_is_left_out(tmp_path, monkeypatch, capsys):
    def refused(*_):
        raise CannotCertify("too much harm")

    harness = {
        "annotated": [],
        "extracted": SimpleNamespace(signals={}),
        "replayed_records": ["kept"],
    }
    own = {"signal_sections": {}, "exit_sections": {}, "offsets_of": {}, "chosen_views": {}, "told_exits": []}
    own["count_unfinished"] = SimpleNamespace(any=False)
    for place, answers in (
        (exit_records.harness, harness),
        (exit_records.bounding, {"table_of": None}),
        (exit_records, own),
    ):
        for name, answer in answers.items():
            monkeypatch.setattr(place, name, lambda *_, answer=answer, **__: answer)
    monkeypatch.setattr(exit_records, "_ceiling", refused)
    params = SimpleNamespace(draft=None, d2t=None)
    session = SimpleNamespace(draft=None, params=params, draft_digest="", end_think_ids=(2,), tokenizer=None)
    setting = SimpleNamespace(methods=("specexit", "ceiling"), split="test", max_answer=16)
    file = load_policy(EMBEDDED / "policy.json")
    records, shown = exit_records.exit_records(session, file, setting, None, [], [], tmp_path)
    assert records == ["kept"] and "ceiling" not in shown.sections
    assert "The method ceiling is left out: too much harm" in capsys.readouterr().err
    monkeypatch.setattr(exit_records, "_ceiling", lambda *_: pytest.fail("asked for"))
    exit_records.exit_records(session, file, SimpleNamespace(**vars(setting) | {"methods": ()}), None, [], [], tmp_path)
