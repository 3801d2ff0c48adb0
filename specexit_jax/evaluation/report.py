"""`report.md`: the tables, and the sentences that a reader needs to trust them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from specexit_jax.evaluation.records import write_atomically
from specexit_jax.evaluation.results import in_order
from specexit_jax.evaluation.tables import (
    acceptance_table,
    comparison_table,
    markdown_table,
    number,
    offsets_table,
    overall_table,
    shares_table,
    task_table,
)

_PROSE = {
    "think": "plain decoding",
    "nothink": "thinking closed in the prompt",
    "first_answer": "exit at the first boundary after an answer is stated",
    "deer": "trial answers at transition points, exit when one is likely",
    "deer_eagle3": "deer with speculation",
    "eagle3": "speculation, no exit",
    "probe": "the exit without speculation",
    "specexit": "speculation and exit",
    "ceiling": "bound: the best causal exit that the features allow",
    "oracle": "bound: clairvoyant exit at the first boundary that agrees",
}


def write_report(path: str | Path, results: dict, **sections) -> None:
    write_atomically(path, report_markdown(results, **sections))


def report_markdown(
    results: dict,
    title: str = "Evaluation",
    figures: Mapping[str, str] | None = None,
    offsets: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The whole report. figures: caption -> path relative to the report; offsets: kind of T* -> `where.exit_offsets`;
    notes: sentences on what was decoded, on which split, from which choices.

    Reads from `results`, where present, the sections `comparisons` (list of `results.compare`), `shares` (list of
    `results.shares`), `acceptance` (method -> histogram) and `signals` ({auc, brier, ...}).
    """
    parts = [f"# {title}", _provenance(results, notes), "## Overall", overall_table(results), _reading(results)]
    parts += [
        "## By task",
        "Accuracy in % (95 % interval) / generated tokens / seconds at batch 1.",
        task_table(results),
    ]
    if results.get("comparisons"):
        parts += ["## Paired, over the same problems", comparison_table(results["comparisons"])]
    if results.get("shares"):
        parts += ["## What could be saved", shares_table(results["shares"])]
    for kind, table in (offsets or {}).items():
        parts += [f"## Where exits fall (T* = `{kind}`)", offsets_table(table)]
    if results.get("acceptance"):
        parts += ["## Acceptance", acceptance_table(results["acceptance"])]
    if results.get("signals"):
        parts += [
            "## Signals",
            markdown_table(["quantity", "value"], [[k, number(v, 3)] for k, v in results["signals"].items()]),
        ]
    for caption, place in (figures or {}).items():
        parts += [f"## {caption}", f"![{caption}]({place})"]
    return "\n\n".join(part for part in parts if part) + "\n"


def _provenance(results: dict, notes: Sequence[str]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [f"Device: {results['device']}. Revision: {results['git_revision']}. {versions}."]
    return "\n\n".join([*lines, *notes])


def _reading(results: dict) -> str:
    methods = results["methods"]
    timed = max(method["overall"]["latency_n"] for method in methods.values())
    known = [f"`{name}`: {_PROSE[name]}" for name in in_order(methods) if name in _PROSE]
    tried = [
        f"`{name}` also generated {number(methods[name]['overall']['trial_tokens_mean'], 1)} tokens a problem in trials that "
        "failed: its tokens leave them out, its latency does not."
        for name in in_order(methods)
        if methods[name]["overall"]["trial_tokens_mean"]
    ]
    return (
        "Every number is a mean over tasks. Tokens are all generated tokens. Latency is wall time of decoding at batch "
        f"1 on {timed} problems, compilation excluded. τ is tokens per verify step, bonus token counted, exit-"
        "truncated steps left out.\n\n" + "; ".join(known) + "." + "".join(f"\n\n{line}" for line in tried)
    )
