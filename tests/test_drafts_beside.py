"""Two drafts side by side: what is told of each, and of their difference."""

import dataclasses

import jax
import numpy as np
import pytest
from annotated_case import SESSION, traces_and_labels, write_split

from specexit_jax.data.splits import sample
from specexit_jax.evaluation.pipeline import drafts_beside
from specexit_jax.evaluation.pipeline.drafts_beside import Side, chain
from specexit_jax.exits.policy_file import PolicyFile
from specexit_jax.models.draft import init_draft

SIGNALS = ("confidence", "progress", "remain")


@pytest.fixture(scope="module")
def sides(session):
    other = init_draft(session.draft, jax.random.key(5))
    second = dataclasses.replace(session, params=dataclasses.replace(session.params, draft=other))
    return tuple(Side(one, None, None) for one in (session, second))


def test_steps_are_counted_of_the_same_tokens(sides, monkeypatch):
    made, problems, decoded = [], sample("development", 2, ("gcd", "chain_sum")), drafts_beside.generate
    monkeypatch.setattr(drafts_beside, "generate", lambda *own: made.append(decoded(*own)) or made[-1])
    rows = drafts_beside.drafting(sides, problems, "chain of 2", chain(2), 0, 12, 4)
    assert [row.quantity for row in rows] == ["τ, chain of 2", *(f"accepted at step {k}, chain of 2" for k in (1, 2))]
    for side, outcomes in zip(("first", "second"), made, strict=True):
        steps = np.asarray([one.accepted for one in outcomes])
        written, at_all, first = steps @ [1, 2, 3], steps.sum(axis=1), steps[:, 1:].sum(axis=1)
        assert getattr(rows[0], side).value == pytest.approx(written.sum() / at_all.sum())
        assert getattr(rows[1], side).value == pytest.approx(first.sum() / at_all.sum())
    for row in rows:
        assert row.difference.value == pytest.approx(row.second.value - row.first.value, nan_ok=True)
    other = iter([made[0], [dataclasses.replace(one, ids=one.ids[:-1]) for one in made[0]]])
    monkeypatch.setattr(drafts_beside, "generate", lambda *own: next(other))
    with pytest.raises(ValueError, match="wrote different tokens"):
        drafts_beside.drafting(sides, problems, "chain of 2", chain(2), 0, 12, 4)


def test_confidence_and_saving_are_of_the_same_traces(tmp_path, monkeypatch):
    traces, labels = traces_and_labels(4)
    write_split(tmp_path / "development", traces, labels)
    known = [{trace["id"]: _signals(trace, right) for trace in traces} for right in (True, False)]
    limits = [(0.5, 0.0, 1e5), (1.5, 0.0, 1e5)]
    policies = [
        PolicyFile("default", "none", ("paragraph", "marker"), one, None, None, None, "development", 4, "digest")
        for one in limits
    ]
    sides = tuple(Side(_session(), policy, tmp_path) for policy in policies)
    seen = iter(known * 2)
    monkeypatch.setattr(drafts_beside, "_along", lambda side, split, kinds: (traces, labels, next(seen)))
    row = drafts_beside.knowing(sides, "development", ("paragraph", "marker"))
    assert (row.first.value, row.second.value, row.difference.value) == (1.0, 0.0, -1.0)
    assert row.difference.low == row.difference.high == -1.0
    row = drafts_beside.saving(sides, "development", ("paragraph", "marker"))
    # The first leaves at the paragraph that ends at token 3: 4 tokens, </think> and 2 of the answer, of 11; the second never.
    assert row.first.value == pytest.approx(7 / 11) and row.second.value == 1.0
    others = iter([(traces, labels, known[0]), (traces[:-1], labels[:-1], known[1])])
    monkeypatch.setattr(drafts_beside, "_along", lambda side, split, kinds: next(others))
    with pytest.raises(ValueError, match="hold different traces of development"):
        drafts_beside.saving(sides, "development", ("paragraph", "marker"))
    table = drafts_beside.text([row], ("one", "two")).splitlines()
    assert table[2].startswith(
        "| tokens with exits, of those without | 0.636 (0.636 to 0.636) | 1.000 (1.000 to 1.000) | +0.364"
    )


def _signals(trace: dict, right: bool) -> np.ndarray:
    """Confidence is high exactly at paragraph ends, or (not right) exactly elsewhere."""
    found = np.tile(np.float32([0.1 if right else 0.9, 0.5, 3.0]), (len(trace["ids"]), 1))
    found[[3, 7], 0] = 0.9 if right else 0.1
    return found


def _session():
    own = dict(vars(SESSION)) | {"draft": type("Draft", (), {"signal_names": SIGNALS})}
    return type("Session", (), own)
