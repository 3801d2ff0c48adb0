"""The cost of annotation: counts follow from the shapes, and both forms write the same tokens."""

import json

import numpy as np
import pytest

from specexit_jax.decoding.forced.queue import Forcer
from specexit_jax.evaluation.loop.annotation_cost import Case, annotation_cost, text
from specexit_jax.sizing.presets import TARGETS
from specexit_jax.sizing.random_weights import random_params

CASE = Case(thinking=300, every=50, max_answer=4, branches=(2, 6), repeats=1)


def test_counts_and_table():
    found = annotation_cost(TARGETS["tiny"], random_params(TARGETS["tiny"]).target, CASE)
    assert found["boundaries"] == 6
    single, two, six = json.loads(json.dumps(found))["rows"]
    assert [row["forced_tokens"] for row in (single, two, six)] == [24] * 3
    assert [row["computed_rows"] for row in (single, two, six)] == [24] * 3
    assert [row["prefix_reads"] for row in (single, two, six)] == [24, 12, 4]
    assert (two["prefix_tokens_read"], six["prefix_tokens_read"]) == (4 * (384 + 256 + 256), 4 * 384)
    assert single["prefix_tokens_read"] == 4 * (5 * 256 + 320)  # only the last answer reaches past 256
    assert all(row["seconds_a_boundary"] == row["seconds"] / 6 > 0 for row in (single, two, six))
    assert single["times"] == 1
    assert "one at a time" in text(found) and "6 branches" in text(found)


def test_forms_that_differ_are_not_compared(monkeypatch):
    plain = Forcer.answer
    monkeypatch.setattr(Forcer, "answer", lambda *args: (f := plain(*args)).replace(ids=np.zeros_like(f.ids)))
    with pytest.raises(ValueError, match="wrote different tokens"):
        annotation_cost(TARGETS["tiny"], random_params(TARGETS["tiny"]).target, CASE)


def test_a_trace_without_a_boundary_is_refused():
    with pytest.raises(ValueError, match="40 tokens of thinking hold no boundary where one comes every 50"):
        _ = Case(40, 50, 4, (2,)).boundaries
