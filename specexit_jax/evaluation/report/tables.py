"""The tables of `report.md` and of the terminal: strings from `results.json`, in the order and units a person reads."""

from collections.abc import Mapping, Sequence

from specexit_jax.evaluation.results import in_order

MISSING = "–"


def overall_table(results: dict) -> str:
    """Methods with means over tasks; tokens and speed also relative to the baseline."""
    methods = results["methods"]
    base = methods[baseline_of(methods)]["overall"]
    header = ["method", "accuracy % (95 %)", "tokens", "thinking", f"tokens vs {baseline_of(methods)}", "latency s",
              "speed-up",
              "τ", "exits %", "n"]  # fmt: skip
    rows = []
    for name in in_order(methods):
        own = methods[name]["overall"]
        rows.append(
            [
                f"**{name}**" if name == "specexit" else name,
                _accuracy(own),
                number(own["tokens_mean"], 1),
                number(own["thinking_tokens_mean"], 1),
                _change(own["tokens_mean"], base["tokens_mean"]),
                number(own["latency_s_mean"], 3),
                _times(base["latency_s_mean"], own["latency_s_mean"]),
                number(own["tau_mean"], 2),
                _percent(own["exit_rate"]),
                str(own["n"]),
            ]
        )
    return markdown_table(header, rows)


def comparison_table(comparisons: Sequence[dict]) -> str:
    """Rows of `results.compare`: the differences' intervals come from resampling problems, tasks weighing alike; p takes a problem
    as one observation, whatever its seeds."""
    header = ["method − baseline", "pairs", "accuracy, points (95 %)", "tokens (95 %)", "speed-up (95 %)",
              "right → wrong", "wrong → right", "McNemar p"]  # fmt: skip
    rows = []
    for row in comparisons:
        rows.append(
            [
                f"{row['method']} − {row['baseline']}",
                _pairs(row),
                _interval(row["accuracy_difference"], 100, 2, signed=True),
                _ratio_change(row["tokens_ratio"]),
                _interval(row["speedup"], 1, 2, unit="×"),
                str(row["harmed"]),
                str(row["mended"]),
                "< 0.001" if row["mcnemar_p"] < 0.001 else number(row["mcnemar_p"], 3),
            ]
        )
    return markdown_table(header, rows)


def _pairs(row: Mapping) -> str:
    problems = row.get("problems", row["pairs"])
    return str(row["pairs"]) if problems == row["pairs"] else f"{row['pairs']} ({problems} problems)"


def shares_table(shares: Sequence[dict]) -> str:
    header = [
        "method",
        "saves, tokens",
        "ceiling saves",
        "share of ceiling (95 %)",
        "oracle saves",
        "share of oracle (95 %)",
    ]
    rows = [
        [
            f"{row['method']} (from {row['baseline']})",
            number(row.get("saving"), 1),
            number(row["saving_of_ceiling"], 1),
            _interval(row["share_of_ceiling"], 100, 1, unit=" %"),
            number(row["saving_of_oracle"], 1),
            _interval(row["share_of_oracle"], 100, 1, unit=" %"),
        ]
        for row in shares
    ]
    return markdown_table(header, rows)


def offsets_table(table: Mapping[str, Mapping[str, float]]) -> str:
    """method -> {bin: share of traces}, every method with the same bins."""
    bins = list(next(iter(table.values()), {}))
    rows = [[name, *(_percent(table[name][place]) for place in bins)] for name in in_order(table)]
    return "% of traces, by boundaries between T* and the exit.\n\n" + markdown_table(["method", *bins], rows)


def acceptance_table(histograms: Mapping[str, Sequence[int]]) -> str:
    most = max(len(counts) for counts in histograms.values())
    rows = []
    for name in in_order(histograms):
        counts = list(histograms[name]) + [0] * (most - len(histograms[name]))
        rows.append([name, *(_percent(count / max(sum(counts), 1)) for count in counts), str(sum(counts))])
    return "% of verify steps by accepted drafts.\n\n" + markdown_table(
        ["method", *map(str, range(most)), "steps"], rows
    )


def terminal_table(results: dict, width: int = 100) -> str:
    """The compact table for a terminal: methods over all tasks, then accuracy / tokens by task in `width` columns."""
    methods = results["methods"]
    names, base = in_order(methods), methods[baseline_of(methods)]["overall"]
    rows = [
        ["method", "accuracy %", "(95 %)", "tokens", f"vs {baseline_of(methods)}", "latency", "speed-up", "τ", "exits"]
    ]
    for name in names:
        own = methods[name]["overall"]
        low, high = own["accuracy_ci95"]
        rows.append(
            [
                name,
                _percent(own["accuracy"]),
                f"({100 * low:.1f}–{100 * high:.1f})",
                number(own["tokens_mean"], 0),
                _change(own["tokens_mean"], base["tokens_mean"]),
                MISSING if own["latency_s_mean"] is None else f"{own['latency_s_mean']:.3f} s",
                _times(base["latency_s_mean"], own["latency_s_mean"]),
                number(own["tau_mean"], 2),
                f"{100 * own['exit_rate']:.0f} %",
            ]
        )
    blocks = [_aligned(rows)]
    tasks = task_names(methods)
    room = max(1, (width - 14) // 15)
    for start in range(0, len(tasks), room):
        shown = tasks[start : start + room]
        rows = [["acc % / tokens", *(task if len(task) <= 13 else task[:12] + "…" for task in shown)]]
        for name in names:
            found = [methods[name]["tasks"].get(task) for task in shown]
            cells = [f"{100 * s['accuracy']:.0f} / {s['tokens_mean']:.0f}" if s else MISSING for s in found]
            rows.append([name, *cells])
        blocks.append(_aligned(rows))
    problems = max(methods[name]["overall"]["n"] for name in names)
    blocks.append(
        f"{problems} problems on {len(tasks)} tasks, {results['device']}; latency is batch 1, compilation excluded."
    )
    return "\n\n".join(blocks)


def baseline_of(methods: Mapping[str, dict]) -> str:
    """The baseline of savings: eagle3, else think, else the first method."""
    return next((name for name in ("eagle3", "think") if name in methods), in_order(methods)[0])


def task_names(methods: Mapping[str, dict]) -> list[str]:
    return sorted({task for method in methods.values() for task in method["tasks"]})


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; cell contents are escaped so that each stays one cell."""
    lines = ["| " + " | ".join(_in_a_cell(text) for text in row) + " |" for row in [header, *rows]]
    return "\n".join([lines[0], "|---" + "|---:" * (len(header) - 1) + "|", *lines[1:]])


def _in_a_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Plain columns two spaces apart: the first flush left, the others right, a rule beneath the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "─" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]])


def task_cell(summary: dict | None) -> str:
    """Accuracy in % (95 %) / tokens / seconds."""
    if summary is None:
        return MISSING
    return f"{_accuracy(summary)} / {number(summary['tokens_mean'], 0)} / {number(summary['latency_s_mean'], 2)}"


def _accuracy(summary: dict) -> str:
    low, high = summary["accuracy_ci95"]
    return f"{100 * summary['accuracy']:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def number(value: float | None, digits: int) -> str:
    if value is None or isinstance(value, str):
        return value or MISSING
    return f"{value:,.0f}" if isinstance(value, int) else f"{value:,.{digits}f}"


def _percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.1f}"


def _change(value: float, base: float) -> str:
    if not base or value == base:
        return MISSING
    return f"{100 * (value / base - 1):+.0f} %".replace("-", "−")


def _times(base: float | None, value: float | None) -> str:
    return MISSING if not base or not value else f"{base / value:.2f}×"


def _interval(estimate: dict | None, scale: float, digits: int, unit: str = "", signed: bool = False) -> str:
    if estimate is None:
        return MISSING
    sign = "+" if signed else ""
    value, low, high = (f"{scale * x:{sign}.{digits}f}" for x in (estimate["value"], *estimate["ci95"]))
    return f"{value}{unit} ({low} to {high})".replace("-", "−")


def _ratio_change(estimate: dict | None) -> str:
    """A ratio shown as a change in %."""
    if estimate is None:
        return MISSING
    shifted = {"value": estimate["value"] - 1, "ci95": [bound - 1 for bound in estimate["ci95"]]}
    return _interval(shifted, 100, 1, unit=" %", signed=True)
