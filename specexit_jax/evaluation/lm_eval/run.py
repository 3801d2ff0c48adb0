"""lm-eval's tasks run by our model class: its results as files, the tables of both sides as text."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.tasks import TaskManager
from lm_eval.utils import handle_non_serializable, make_table

from specexit_jax.evaluation.lm_eval.model import SpecExitLM
from specexit_jax.evaluation.lm_eval.report import decoding_table
from specexit_jax.evaluation.records import write_atomically


def evaluated(
    model: SpecExitLM, tasks: Sequence[str], workdir: Path, include_path: str | None = None, **options: Any
) -> str:
    """Runs lm-eval's tasks (names, patterns or YAML files) and writes their results; both sides' tables, to be printed.

    options: those of lm_eval.simple_evaluate.
    """
    # lm-eval's own tasks are thousands of files, which it would read even if all tasks are given as files.
    manager = TaskManager(include_path=include_path, include_defaults=not all(Path(task).is_file() for task in tasks))
    names = [name for task in tasks for name in named(manager, task)]
    results = lm_eval.simple_evaluate(model, tasks=names, task_manager=manager, **options)
    stem = "-".join([model.method.name, *(Path(task).stem for task in tasks)])
    path = write_results(workdir / "lm_eval", stem, results)
    tables = [make_table(results), *([make_table(results, "groups")] if "groups" in results else [])]
    tables += [decoding_table(model.method.name, results["config"]["specexit"]["tasks"]), f"results: {path}"]
    return "\n\n".join(tables)


def write_results(folder: Path, stem: str, results: dict[str, Any]) -> Path:
    """folder/STEM.json, lm-eval's results, and folder/STEM.samples.jsonl, its samples by task; the path of the first."""

    def dumped(tree: Any, **settings) -> str:
        return json.dumps(tree, default=handle_non_serializable, ensure_ascii=False, **settings) + "\n"

    samples = results.get("samples") or {}
    lines = [dumped({"task": task, **sample}) for task, rows in samples.items() for sample in rows]
    write_atomically(folder / f"{stem}.samples.jsonl", "".join(lines))
    write_atomically(folder / f"{stem}.json", dumped({k: v for k, v in results.items() if k != "samples"}, indent=2))
    return folder / f"{stem}.json"


def named(manager: TaskManager, task: str) -> list[str]:
    """The tasks that a name, a pattern or a YAML file stands for. Raises ValueError if there is none."""
    found = [task] if Path(task).is_file() else manager.match_tasks([task])
    if not found:
        raise ValueError(f"lm-eval has no task {task!r}, nor is it a file: `lm-eval ls tasks` names its tasks.")
    return found
