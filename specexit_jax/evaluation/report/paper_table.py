"""The table in the paper's form, a row a method and a column a task, with the paper's own rows where it has the task."""

from specexit_jax.evaluation.report import paper
from specexit_jax.evaluation.report.tables import MISSING, markdown_table, task_cell, task_names
from specexit_jax.evaluation.results import in_order

_BESIDE = (
    "Rows of the paper are its own numbers, single runs without intervals, on other hardware: its latencies, whose unit "
    "it does not give, do not compare with the seconds of the other rows."
)


def paper_form_table(results: dict) -> str:
    """accuracy in % (95 % interval) / generated tokens / seconds: the paper's methods in its order, then all others.

    The paper's rows are those of the model that `results["target"]` names, of both its models where it is neither.
    """
    methods = results["methods"]
    tasks = task_names(methods)
    models = paper.models_for(results.get("target"))
    rows = []
    for name in ordered(methods):
        summaries = [methods[name]["tasks"].get(task) for task in tasks] + [methods[name]["overall"]]
        rows.append([f"**{name}**", *(task_cell(summary) for summary in summaries)])
        for model in models:
            printed = [paper.cell(model, name, task) for task in tasks]
            if any(printed):
                rows.append([f"{name}, paper: {model}", *(_cell(one) for one in printed), MISSING])
    known = any(paper.benchmark_of(task) for task in tasks)
    table = markdown_table(["method", *tasks, "mean over tasks"], rows)
    return f"{table}\n\n{_BESIDE}" if known else table


def ordered(methods) -> list[str]:
    """The paper's methods in its order, then all others."""
    return [
        *(name for name in paper.METHODS if name in methods),
        *(n for n in in_order(methods) if n not in paper.METHODS),
    ]


def _cell(printed: paper.Cell | None) -> str:
    if printed is None:
        return MISSING
    accuracy, tokens, latency = printed
    return f"{accuracy:.1f} / {tokens:,} / {latency:.1f}"
