"""Whole evaluations by lm-evaluation-harness: the bundled model on a task of the world, and the entry point."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

pytest.importorskip("lm_eval")

import lm_eval
from lm_eval.tasks import TaskManager

from specexit_jax.data.splits import sample
from specexit_jax.data.world.tasks import final_answer
from specexit_jax.engine.generate import generate
from specexit_jax.engine.methods import make_method, read_policy
from specexit_jax.engine.requests import DecodeSettings, Request
from specexit_jax.engine.session import EMBEDDED, chat_ids, load_session, text_of
from specexit_jax.evaluation.lm_eval.model import SpecExitLM
from specexit_jax.evaluation.lm_eval.report import decoding_table
from specexit_jax.evaluation.lm_eval.run import named

ROOT = Path(__file__).resolve().parent.parent


class Asked(NamedTuple):
    question: str
    answer: str


def world(folder: Path, problems) -> Path:
    """A task of lm-eval's: the problems in a JSONL file, examples from the same file."""
    rows = [json.dumps({"question": one.question, "answer": one.answer}) + "\n" for one in problems]
    (folder / "problems.jsonl").write_text("".join(rows))
    files = {"test": str(folder / "problems.jsonl"), "train": str(folder / "problems.jsonl")}
    task = {
        "task": "world",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "cache")},
        "output_type": "generate_until",
        "test_split": "test",
        "fewshot_split": "train",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n\n\n"], "do_sample": True, "temperature": 0.8},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
    (folder / "world.yaml").write_text(json.dumps(task))  # which is YAML
    return folder / "world.yaml"


@pytest.fixture(scope="module")
def bundled():
    session = load_session(EMBEDDED / "target", EMBEDDED / "draft")
    return session, make_method(session, "specexit", *read_policy(session, EMBEDDED / "policy.json"))


def evaluate(model: SpecExitLM, task: Path, monkeypatch, **options) -> dict:
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)  # which asks pip and the machine
    manager = TaskManager(include_defaults=False)
    return lm_eval.simple_evaluate(
        model, tasks=[str(task)], task_manager=manager, bootstrap_iters=0, apply_chat_template=True, **options
    )


def test_an_evaluation_judges_what_our_own_run_writes(bundled, tmp_path, monkeypatch):
    session, method = bundled
    problems = sample("test", 1)
    model = SpecExitLM(session, method, max_gen_toks=880)
    results = evaluate(model, world(tmp_path, problems), monkeypatch)
    requests = [Request(f"world/{i}", tuple(chat_ids(session, problem.question))) for i, problem in enumerate(problems)]
    own = generate(session, requests, method, DecodeSettings(max_new_tokens=880))
    answers = [final_answer(text_of(session, outcome.ids)) for outcome in own]
    judged = results["samples"]["world"]
    assert [row["resps"] for row in judged] == [[[answer]] for answer in answers]
    right = [answer == problem.answer for answer, problem in zip(answers, problems, strict=True)]
    assert results["results"]["world"]["exact_match,none"] == np.mean(right) > 0.5
    numbers = results["config"]["specexit"]["tasks"]["world"]
    assert numbers["n"] == 6
    assert numbers["tokens_mean"] == np.mean([len(outcome.ids) for outcome in own])
    assert numbers["thinking_tokens_mean"] == np.mean([outcome.thinking_tokens for outcome in own])
    assert numbers["exit_rate"] == np.mean([outcome.exit is not None for outcome in own]) > 0.5
    assert numbers["unfinished_rate"] == 0 and numbers["latency_s_mean"] > 0
    steps = sum(sum(outcome.accepted) for outcome in own)
    assert numbers["tau_mean"] == pytest.approx(sum(o.tau * sum(o.accepted) for o in own) / steps)
    row = decoding_table("specexit", {"world": numbers}).splitlines()[-1].split(" | ")
    assert row[:3] == ["| world", "specexit", "6"] and row[-2] == f"{100 * numbers['exit_rate']:.0f}"


def test_examples_are_turns_of_the_conversation(bundled, tmp_path, monkeypatch):
    session, method = bundled
    problems = sample("test", 1)
    model, asked = SpecExitLM(session, method), []
    monkeypatch.setattr(model, "generate_until", lambda requests: asked.extend(requests) or [""] * len(requests))
    options = {"num_fewshot": 2, "fewshot_as_multiturn": True, "system_instruction": "Be brief.", "limit": 2}
    evaluate(model, world(tmp_path, problems), monkeypatch, **options)
    assert len(asked) == 2
    for one, problem in zip(asked, problems, strict=False):
        text = one.args[0]
        assert text.startswith("<|user|> Be brief.\n\n")
        assert text.count("<|user|>") == text.count("<|assistant|>") == 3 and text.count("<|end|>") == 2
        assert text.endswith(f"{problem.question}<|assistant|><think>\n")


def test_tasks_are_names_patterns_or_files(tmp_path):
    task = world(tmp_path, sample("test", 1)[:1])
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    assert named(manager, "world") == named(manager, "wor*") == ["world"]
    assert named(manager, str(task)) == [str(task)]
    with pytest.raises(ValueError, match="has no task 'wold', nor is it a file"):
        named(manager, "wold")


def launched(tmp_path: Path, *arguments: str, code: str = "from launch import door, lm_eval") -> tuple[int, str, str]:
    """launch.lm_eval in a process of its own: its flags are also those of other entry points."""
    line = f"{code}; door.define_config(); door.run(lm_eval.main)"
    command = [sys.executable, "-c", line, f"--config={ROOT / 'configs' / 'embedded.py'}", f"--workdir={tmp_path}"]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_the_entry_point_prints_both_tables_and_writes_the_results(tiny, tmp_path):
    task = world(tmp_path, [Asked("3*4?", "12"), Asked("4+4?", "8"), Asked("4-3?", "1")])
    model = (f"--config.target={tiny / 'target'}", f"--config.draft={tiny / 'draft'}")
    options = (f"--tasks={task}", "--method=nothink", "--limit=2", "--max_gen_toks=12", "--temperature=0")
    code, out, err = launched(tmp_path, *model, *options)
    assert code == 0, err
    assert "exact_match" in out and "| world | nothink | 2 |" in out
    path = tmp_path / "lm_eval" / "nothink-world.json"
    assert out.rstrip().endswith(f"results: {path}")
    results = json.loads(path.read_text())
    value = results["results"]["world"]["exact_match,none"]
    (row,) = (line.split("|") for line in out.splitlines() if "exact_match" in line)
    assert row[1] == "world" and float(row[7]) == pytest.approx(value, abs=1e-4)
    told = results["config"]["specexit"]
    assert (told["method"], told["temperature"], told["max_gen_toks"]) == ("nothink", 0.0, 12)
    rows = [
        json.loads(line) for line in (tmp_path / "lm_eval" / "nothink-world.samples.jsonl").read_text().splitlines()
    ]
    assert [row["task"] for row in rows] == ["world"] * 2
    assert np.mean([row["exact_match"] for row in rows]) == value
    assert told["tasks"]["world"]["thinking_tokens_mean"] == 0


def test_without_the_harness_one_sentence_says_what_to_install(tmp_path):
    missing = "import sys; sys.modules['lm_eval'] = None; from launch import door, lm_eval"
    code, out, err = launched(tmp_path, "--tasks=world", code=missing)
    assert (code, out) == (1, "")
    assert err == "error: lm-evaluation-harness is not installed: pip install 'lm-eval>=0.4.13,<0.5'.\n"
