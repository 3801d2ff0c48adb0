"""The tables of README.md and docs/*.md, written from the digests in docs/results.

A page marks where a table belongs:

    <!-- results: NAME VIEW -->
    (what is written)
    <!-- end -->

NAME is docs/results/NAME.json, or `paper`, the rows of `paper.py`. VIEW is `table`, or of an evaluation also `summary`.
"""

import json
import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from specexit_jax.evaluation.records import write_atomically
from specexit_jax.evaluation.report import paper
from specexit_jax.evaluation.report.tables import MISSING, markdown_table, number
from specexit_jax.evaluation.results import in_order

_REGION = re.compile(r"(<!-- results: (\w+) (\w+) -->\n).*?(<!-- end -->)", re.S)
_WIDTH = 150  # characters of a line of prose
_BOUNDS = ("ceiling", "oracle")
_BENCHMARKS = ("GSM8K", "MATH500", "AIME", "HumanEval+", "GPQA-D", "ARC-C")  # of paper.BENCHMARKS
Digest = Mapping[str, Any]


def pages_of(root: Path) -> list[Path]:
    """README.md, CONTRIBUTING.md where there is one, and every page of docs."""
    found = (root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md")))
    return [path for path in found if path.is_file()]


def write_pages(root: Path) -> list[Path]:
    """Writes the tables of all pages anew; returns the pages that changed."""
    changed = []
    for path in pages_of(root):
        text = path.read_text(encoding="utf-8")
        if (new := filled(text, root / "docs" / "results")) != text:
            write_atomically(path, new)
            changed.append(path)
    return changed


def filled(text: str, folder: Path) -> str:
    """A page with what the digests of `folder` say between its marks. Raises ValueError on a mark that names none of them."""
    return _REGION.sub(lambda mark: f"{mark[1]}{_block(mark[2], mark[3], folder)}\n{mark[4]}", text)


def _block(name: str, view: str, folder: Path) -> str:
    if name == "paper":
        return _paper()
    path = folder / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"a page shows the results {name!r}, but {path} does not exist")
    digest = json.loads(path.read_text(encoding="utf-8"))
    views = {view: show for (kind, view), show in _VIEWS.items() if kind == digest["kind"]}
    if view not in views:
        raise ValueError(f"{path} is of the kind {digest['kind']!r}: its view is one of {sorted(views)}, not {view!r}")
    return views[view](digest)


def _source(digest: Digest) -> str:
    """Where the numbers come from, as the line beneath a table."""
    revision = digest["revision"]
    told = f"`{digest['command']}`. {digest['device']}. Revision {revision[:7] if revision.isalnum() else revision}."
    return _lines(told)


def _evaluation(digest: Digest) -> str:
    header = ["method", "accuracy % (95 %)", "tokens", "latency s", "τ", "exits %"]
    rows = []
    for name in in_order(digest["methods"]):
        own = digest["methods"][name]
        low, high = (100 * limit for limit in own["accuracy_ci95"])
        rows.append(
            [
                f"**{name}**" if name == "specexit" else f"{name} (bound)" if name in _BOUNDS else name,
                f"{100 * own['accuracy']:.1f} ({low:.1f}–{high:.1f})",
                number(float(own["tokens_mean"]), 0),
                number(own["latency_s_mean"], 3),
                number(own["tau_mean"], 2),
                f"{100 * own['exit_rate']:.0f}",
            ]
        )
    return f"{markdown_table(header, rows)}\n\n{_source(digest)}"


def _summary(digest: Digest) -> str:
    """What the evaluation says of specexit against eagle3, in sentences; what it did not measure is left out."""
    pair = digest.get("specexit_eagle3")
    if pair is None:
        return "The run did not have both `specexit` and `eagle3`."
    ratio, points = _triple(pair["tokens_ratio"], 100), _triple(pair["accuracy_difference"], 100)
    fewer = [100 - each for each in (ratio[0], ratio[2], ratio[1])]
    told = f"Against `eagle3`, with 95 % intervals: `specexit` writes {_with_limits(fewer, 1, ' %')} fewer tokens"
    if pair["speedup"] is not None:
        told += f" and is {_with_limits(_triple(pair['speedup'], 1), 2, ' times')} as fast"
    told += (
        f". Accuracy changes by {_with_limits(points, 2, ' points')}: {pair['harmed']} right answers of {digest['problems']:,} "
        f"are lost and {pair['mended']} wrong ones mended."
    )
    if risk := digest.get("risk"):
        realised = [100 * share for share in (risk["risk"], *risk["risk_ci95"])]
        told += f" The realised risk, traces that never close counted, is {_with_limits(realised, 2, ' %')}."
    if (share := digest.get("share_of_ceiling")) is not None:
        told += f" It saves {100 * share:.1f} % of what `ceiling` saves."
    return _lines(told)


def _triple(estimate: Mapping[str, Any], scale: float) -> list[float]:
    """value, low, high."""
    return [scale * each for each in (estimate["value"], *estimate["ci95"])]


def _lines(text: str) -> str:
    """Prose in lines; a number and its % stay together."""
    whole = text.replace(" %", "\N{NO-BREAK SPACE}%")
    lines = textwrap.fill(whole, _WIDTH, break_on_hyphens=False, break_long_words=False)
    return lines.replace("\N{NO-BREAK SPACE}", " ")


def _with_limits(values: list[float], digits: int, unit: str = "") -> str:
    """value unit (low to high)."""
    value, low, high = (f"{each:.{digits}f}".replace("-", "−") for each in values)
    return f"{value}{unit} ({low} to {high})"


def _frontier(digest: Digest) -> str:
    rows = []
    for row in digest["rows"]:
        epsilon = f"{100 * row['epsilon']:g} %"
        if "refused" in row:
            rows.append([epsilon, "refused", MISSING, MISSING])
            continue
        harmed = f"{row['harmed']} of {row['problems']:,}"
        rows.append([epsilon, _change(row["tokens_ratio"]), harmed, f"{100 * row['risk_upper']:.2f} %"])
    return f"{markdown_table(['ε', 'tokens', 'harmed', 'risk below'], rows)}\n\n{_source(digest)}"


def _ablations(digest: Digest) -> str:
    header = ["choice", "arm", "tokens % (95 %)", "accuracy, points (95 %)", "right → wrong", "wrong → right"]
    rows = []
    for row in digest["rows"]:
        if "refused" in row:
            rows.append([row["table"], row["arm"], "refused", MISSING, MISSING, MISSING])
            continue
        change = [each - 100 for each in _triple(row["tokens_ratio"], 100)]
        points = _with_limits(_triple(row["accuracy_difference"], 100), 2)
        rows.append([row["table"], row["arm"], _with_limits(change, 1), points, str(row["harmed"]), str(row["mended"])])
    return f"{markdown_table(header, rows)}\n\n{_source(digest)}"


def _learning_curve(digest: Digest) -> str:
    rows = [
        [f"{row['traces']:,}", f"{row['boundaries']:,.0f}", f"{row['auc']:.4f}", f"{100 * row['saved']:.1f} %"]
        for row in digest["rows"]
    ]
    return f"{markdown_table(['traces', 'boundaries', 'AUC', 'tokens saved'], rows)}\n\n{_source(digest)}"


def _change(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %".replace("-", "−")


def _table(digest: Digest) -> str:
    return f"{markdown_table(digest['columns'], digest['rows'])}\n\n{_source(digest)}"


def _paper() -> str:
    rows = []
    for model, methods in paper.ROWS.items():
        for name, cells in methods.items():
            shown = [f"{accuracy} / {tokens:,} / {latency}" for accuracy, tokens, latency in cells]
            rows.append([f"{model}: {name}", *shown])
    return markdown_table(["accuracy % / tokens / latency", *_BENCHMARKS], rows)


_VIEWS: dict[tuple[str, str], Callable[[Digest], str]] = {
    ("evaluation", "table"): _evaluation,
    ("evaluation", "summary"): _summary,
    ("frontier", "table"): _frontier,
    ("ablations", "table"): _ablations,
    ("learning_curve", "table"): _learning_curve,
    ("table", "table"): _table,
}
