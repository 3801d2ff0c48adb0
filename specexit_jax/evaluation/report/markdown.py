"""`report.md`: the tables and figures, and the sentences that a reader needs to trust them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from specexit_jax.evaluation.report.loop_tables import frontier_table, position_table, split_table
from specexit_jax.evaluation.report.paper_table import paper_form_table
from specexit_jax.evaluation.report.risk_tables import risk_text, transfer_table
from specexit_jax.evaluation.report.tables import (
    acceptance_table,
    comparison_table,
    markdown_table,
    number,
    offsets_table,
    overall_table,
    shares_table,
)
from specexit_jax.evaluation.report.worst import WorstExit, worst_markdown
from specexit_jax.evaluation.results import in_order

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


class Picture(NamedTuple):
    """A figure of the report. path: relative to it."""

    caption: str
    path: str


def report_markdown(
    results: dict,
    title: str = "Evaluation",
    pictures: Mapping[str, Picture] | None = None,
    worst: Sequence[WorstExit] = (),
    notes: Sequence[str] = (),
) -> str:
    """The whole report. pictures: by name; those that no section asks for come last. notes: sentences beside
    `results["notes"]` on what was decoded, on which split, from which choices.

    Reads from `results`, where present, the sections `comparisons` (list of `results.compare`), `shares` (list of
    `results.shares`), `frontier`, `risk`, `transfer`, `offsets` (kind of T* -> `where.exit_offsets`), `signals` ({auc, brier,
    …}), `acceptance` (method -> histogram), `acceptance_position` and `latency_split`.
    """
    left = dict(pictures or {})
    parts = [f"# {title}", _provenance(results, [*results.get("notes", ()), *notes])]
    for heading, *blocks in _sections(results, worst):
        drawn = [_picture(left.pop(block.name, None)) if isinstance(block, _Drawn) else block for block in blocks]
        if any(drawn):
            parts += [f"## {heading}", *drawn]
    for picture in left.values():
        parts += [f"## {picture.caption}", _picture(picture)]
    return "\n\n".join(part for part in parts if part) + "\n"


class _Drawn(NamedTuple):
    name: str  # of the picture that belongs here


def _sections(results: dict, worst: Sequence[WorstExit]) -> Iterator[tuple]:
    """(heading, blocks): Markdown or a picture; a section without any is left out."""
    found = results.get
    yield "Overall", overall_table(results), _reading(results)
    yield "By task", "Accuracy in % (95 % interval) / generated tokens / seconds at batch 1.", paper_form_table(results)
    yield "Paired, over the same problems", found("comparisons") and comparison_table(results["comparisons"])
    yield "What could be saved", found("shares") and shares_table(results["shares"])
    frontier = found("frontier")
    yield "Accuracy against tokens", _Drawn("accuracy_tokens"), frontier and frontier_table(frontier)
    yield "Risk of the exit", found("risk") and risk_text(results["risk"])
    yield (
        "Policies of tasks",
        found("transfer") and transfer_table(results["transfer"], (found("risk") or {}).get("policies_together")),
    )
    yield "Signals along traces", _Drawn("signals")
    for kind, table in (found("offsets") or {}).items():
        yield f"Where exits fall (T* = `{kind}`)", table and offsets_table(table)
    signals = found("signals")
    yield (
        "Reliability of confidence",
        _Drawn("reliability"),
        signals and markdown_table(["quantity", "value"], [[k, number(v, 3)] for k, v in signals.items()]),
    )
    yield "Acceptance", _Drawn("acceptance"), found("acceptance") and acceptance_table(results["acceptance"])
    position = found("acceptance_position")
    yield "Acceptance against position", _Drawn("acceptance_position"), position and position_table(position)
    split = found("latency_split")
    yield "Latency by part", _Drawn("latency_split"), split and split_table(split)
    yield f"The {len(worst)} worst exits", worst and f"Of `{worst[0].method}`. " + worst_markdown(worst)


def _picture(picture: Picture | None) -> str:
    return f"![{picture.caption}]({picture.path})" if picture else ""


def _provenance(results: dict, notes: Sequence[str]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [f"Device: {results['device']}. Revision: {results['git_revision']}. {versions}."]
    if target := results.get("target"):
        lines.append(f"Target: {target}.")
    return "\n\n".join([*lines, *notes])


def _decoded(methods: Mapping[str, dict]) -> str:
    """Of how many problems each method's tau is: where exits are replayed, fewer were decoded than evaluated."""
    known = {name: methods[name]["overall"] for name in in_order(methods)}
    counts = [f"`{name}` {one['decoded_n']:,}" for name, one in known.items() if one["tau_mean"] is not None]
    return f" ({', '.join(counts)})" if counts else ""


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
        f"1 on {timed} problems, compilation excluded. τ is tokens per verify step, bonus token counted, exit-truncated "
        f"steps left out, a mean over tasks too, of the problems that were decoded{_decoded(methods)}.\n\n"
        + "; ".join(known)
        + "."
        + "".join(f"\n\n{line}" for line in tried)
    )
