"""The paper's table beside ours: its rows where the task is one of its benchmarks, and nowhere else."""

import dataclasses

import numpy as np
import pytest
from evaluated_case import records_of, traces_and_labels

from specexit_jax.evaluation.report import paper
from specexit_jax.evaluation.report.paper_table import ordered, paper_form_table
from specexit_jax.evaluation.results import build_results

QWEN, LLAMA = paper.ROWS


def results(task: str, target: str | None = None) -> dict:
    records = [record for record in records_of(*traces_and_labels()) if record.task == "gsm8k"]
    renamed = [dataclasses.replace(record, task=task) for record in records]
    return build_results(renamed, "cpu", "a", {}, {"target": target})


def test_every_model_has_every_method_on_every_benchmark():
    for rows in paper.ROWS.values():
        assert tuple(rows) == paper.METHODS
        assert all(len(cells) == len(paper.BENCHMARKS) == 6 for cells in rows.values())


def test_savings_are_those_that_were_read_off_the_paper():
    """SpecExit against EAGLE3 over the six sets: 33 % (Qwen) and 55 % (Llama) fewer tokens (mean of the ratios), 1.44 and
    1.87 times as fast (geometric mean): a slip in a copied number would show."""
    for model, kept, speedup in ((QWEN, 0.67, 1.44), (LLAMA, 0.45, 1.87)):
        base, own = (np.array(paper.ROWS[model][method]) for method in ("eagle3", "specexit"))
        assert np.mean(own[:, 1] / base[:, 1]) == pytest.approx(kept, abs=0.005)
        assert np.exp(np.mean(np.log(base[:, 2] / own[:, 2]))) == pytest.approx(speedup, abs=0.005)


@pytest.mark.parametrize(("target", "models"), [
    ("Qwen3-4B-Thinking-2507 sha256:12", (QWEN,)), ("deepseek_r1_distill_llama_8b", (LLAMA,)),
    ("Qwen3-8B", (QWEN, LLAMA)), (None, (QWEN, LLAMA)),
])  # fmt: skip
def test_the_rows_of_the_model_that_fits(target, models):
    assert paper.models_for(target) == models


@pytest.mark.parametrize(("task", "benchmark"), [
    ("gsm8k", "gsm8k"), ("aime", "aime"), ("aime2024", "aime"), ("aime_25", "aime"), ("gsm_symbolic", None),
    ("math500", "math500"), ("arc_challenge", "arc_challenge"), ("humaneval", None),
])  # fmt: skip
def test_which_tasks_are_the_papers(task, benchmark):
    assert paper.benchmark_of(task) == benchmark


def test_the_papers_rows_stand_beneath_ours():
    table = paper_form_table(results("gsm8k", "Qwen3-4B-Thinking-2507"))
    lines = table.splitlines()
    assert lines[2].startswith("| **eagle3** | 100.0 (")
    assert lines[3] == f"| eagle3, paper: {QWEN} | 94.8 / 1,408 / 140.3 | – |"
    assert lines[5] == f"| specexit, paper: {QWEN} | 93.8 / 649 / 75.8 | – |"
    assert "single runs without intervals" in table and LLAMA not in table


def test_both_models_for_another_target_and_none_for_another_task():
    assert f"| specexit, paper: {LLAMA} | 75.3 / 333 / 112.6 | – |" in paper_form_table(results("gsm8k", "Qwen3-8B"))
    assert "paper" not in paper_form_table(results("chain_sum", QWEN))


def test_the_papers_methods_come_first_in_its_order():
    names = ["oracle", "specexit", "eagle3", "deer", "probe", "think", "first_answer", "nothink"]
    assert ordered(names) == ["think", "nothink", "deer", "eagle3", "specexit", "first_answer", "probe", "oracle"]
