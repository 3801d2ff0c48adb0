"""docs/quickstart.ipynb runs from top to bottom, and what it shows is so. Its cells are run as they stand: no kernel is needed."""

import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
NOTEBOOK = DOCS / "quickstart.ipynb"


def cells() -> list[dict]:
    return json.loads(NOTEBOOK.read_text())["cells"]


def test_it_is_stored_without_outputs():
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in cells()}) == len(cells())
    assert all(
        cell["outputs"] == [] and cell["execution_count"] is None for cell in cells() if cell["cell_type"] == "code"
    )
    assert NOTEBOOK.stat().st_size < 20_000


@pytest.fixture(scope="module")
def shown():
    """The names that the notebook leaves behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(DOCS)
        matplotlib.use("Agg")
        names = {}
        for number, cell in enumerate(cell for cell in cells() if cell["cell_type"] == "code"):
            exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, code cell {number}", "exec"), names)
        yield names
        names["plt"].close("all")


def test_the_exit_stands_on_the_whole_trace(shown):
    answer, whole = shown["answer"], shown["whole"]
    kept = answer.exit.token
    assert kept - 1 in shown["places"] and answer.exit.boundary == 1 + list(shown["places"]).index(kept - 1)
    scores, limit = whole.signals["score"][shown["places"]], answer.policy.thresholds["score"]
    assert shown["places"][(scores >= limit).argmax()] == kept - 1  # the first boundary where it passes
    for name, value in answer.exit.signals.items():
        assert whole.signals[name][kept - 1] == pytest.approx(value, rel=1e-3)


def test_a_looser_bound_saves_more(shown):
    swept = shown["swept"]
    assert len(swept) >= 4 and list(swept.values()) == sorted(swept.values())
    assert 0 < swept[min(swept)] < swept[0.1] < 1
    assert shown["outcomes"].smoothed.dtype == np.float32 and len(shown["outcomes"].closed) == 600


def test_the_labelled_problems_are_the_bundled_model_s(shown):
    """What the notebook decodes is a trace like those that were labelled: lengths and accuracy of the published table."""
    outcomes = shown["outcomes"]
    assert 0.91 < outcomes.full_correct.mean() < 0.97 and 280 < outcomes.full_tokens.mean() < 330


def test_an_own_model_decodes(shown):
    assert shown["mine"].plan("x").method == "eagle3"
    assert 0 < shown["babble"].usage.generated_tokens <= 24 and shown["babble"].usage.drafts == 3
