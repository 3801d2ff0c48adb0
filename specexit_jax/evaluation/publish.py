"""What an evaluation leaves for people: results.json, records.jsonl, report.md and its figures."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from specexit_jax.annotation.replay import smoothed_at_boundaries
from specexit_jax.evaluation import statistics
from specexit_jax.evaluation.figures import acceptance_figure, accuracy_tokens_figure, reliability_figure
from specexit_jax.evaluation.records import Record, write_json, write_records
from specexit_jax.evaluation.report import write_report
from specexit_jax.evaluation.results import build_results, compare, histogram, shares
from specexit_jax.evaluation.style import save_figure
from specexit_jax.evaluation.trace_figure import TraceView, signals_figure, text_stages
from specexit_jax.evaluation.where import exit_offsets
from specexit_jax.exits.policy import Threshold

_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "reasoning-gym", "numpy")
_BASELINE = "eagle3"


def provenance() -> dict:
    """device, git_revision and versions, as results.json carries them."""
    root = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        revision = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        revision = "unknown"
    device = jax.devices()[0]
    kind = platform.processor() or platform.machine() if device.platform == "cpu" else device.device_kind
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "device": f"{device.platform} ({kind})",
        "git_revision": revision,
        "versions": {"python": platform.python_version(), **versions},
    }


def signal_metrics(policy: Threshold, traces, labels, signals) -> tuple[dict, statistics.Reliability]:
    """How well confidence foretells agreement at boundaries: as the head gives it there, and as the policy sees it."""
    closed = [i for i, trace in enumerate(traces) if trace["think_end"] is not None]
    traces, labels = [traces[i] for i in closed], [labels[i] for i in closed]
    agree = np.concatenate([np.asarray(label["agree"], bool) for label in labels])
    raw = np.concatenate(
        [signals[t["id"]][np.asarray(x["boundaries"], int)] for t, x in zip(traces, labels, strict=True)]
    )
    smoothed = np.concatenate(smoothed_at_boundaries(policy.smoother, traces, labels, signals))
    metrics = {
        "boundaries": len(agree),
        "agreeing": float(agree.mean()),
        "auc": statistics.auc(agree, raw[:, 0]),
        "auc_smoothed": statistics.auc(agree, smoothed[:, 0]),
        "brier": statistics.brier(agree, raw[:, 0]),
    }
    return metrics, statistics.reliability(agree, raw[:, 0])


def _ending(text: str, most: int) -> str:
    """The last words of a text, on one line of at most so many characters."""
    words = " ".join(text.split())
    return words if len(words) <= most else "… " + words[-most:].partition(" ")[2]


def trace_view(tokenizer, policy: Threshold, trace: dict, label: dict, signals, exit_index: int | None) -> TraceView:
    """One trace for the figure of signals."""
    end = len(trace["ids"]) if trace["think_end"] is None else trace["think_end"]
    (smoothed,) = smoothed_at_boundaries(policy.smoother, [trace], [label], signals)
    along = np.full((end, 3), np.nan, np.float32)
    along[label["boundaries"]] = smoothed
    starts = [0, *(place + 1 for place in label["boundaries"])]
    pieces = [
        (start, place + 1, tokenizer.decode(trace["ids"][start : place + 1]))
        for start, place in zip(starts, label["boundaries"], strict=False)
    ]
    return TraceView(
        title=f"{trace['task']}: {_ending(trace['prompt'], 70)}  → {trace['answer']}",
        signals=signals[trace["id"]][:end],
        boundaries=label["boundaries"],
        agree=label["agree"],
        smoothed=along,
        sufficient=None if label["stable"] is None else label["boundaries"][label["stable"]],
        exit=None if exit_index is None else exit_index - 1,
        thresholds=tuple(float(value) for value in np.asarray(policy.thresholds)),
        stages=text_stages(pieces),
    )


def chosen_views(tokenizer, policy: Threshold, records: Sequence[Record], traces, labels, signals) -> list[TraceView]:
    """Three traces: the first that exits right, one whose first answer was wrong and mended, one of another task."""
    exits = {record.id: record for record in records if record.method == "specexit" and record.source == "replay"}
    by_id = {label["id"]: label for label in labels}
    right = [t for t in traces if t["id"] in exits and exits[t["id"]].exited and exits[t["id"]].correct]
    mended = [t for t in right if by_id[t["id"]]["first"] is not None and not all(
        by_id[t["id"]]["agree"][by_id[t["id"]]["first"] :])]  # fmt: skip
    late = sorted(right, key=lambda t: -(by_id[t["id"]]["stable"] or 0))
    picked: list[dict] = []
    for candidates in (right, mended or late, right[::-1]):
        tasks = {trace["task"] for trace in picked}
        picked += [t for t in candidates if t["task"] not in tasks][:1]
    return [trace_view(tokenizer, policy, t, by_id[t["id"]], signals, exits[t["id"]].exit_index) for t in picked]


def publish(
    workdir: Path, records: list[Record], extra: dict, offsets: dict, views: Sequence[TraceView], reliability, notes
) -> dict:
    """Writes records.jsonl, results.json, report.md and report/*.png; returns the results."""
    names = {record.method for record in records}
    comparisons = (
        [compare(records, name, _BASELINE) for name in sorted(names - {_BASELINE})] if _BASELINE in names else []
    )
    saved = [shares(records, name) for name in ("specexit", "first_answer") if name in names and _BASELINE in names]
    decoded = {name: histogram([r for r in records if r.method == name]) for name in sorted(names)}
    acceptance = {name: counts for name, counts in decoded.items() if len(counts) > 1}
    sections = {
        "comparisons": comparisons,
        "shares": saved,
        "acceptance": {name: counts.tolist() for name, counts in acceptance.items()},
        **extra,
    }
    results = build_results(records, **provenance(), extra=sections)
    folder, figures = workdir / "report", {}

    def keep(name: str, caption: str, figure) -> None:
        save_figure(folder / f"{name}.png", figure)
        figures[caption] = f"report/{name}.png"

    if views:
        keep(
            "signals",
            "The three signals along real traces; the exit, T* and every boundary marked",
            signals_figure(views),
        )
    overall = {name: method["overall"] for name, method in results["methods"].items()}
    keep("accuracy_tokens", "Accuracy against generated tokens, 95 % intervals", accuracy_tokens_figure(overall))
    if acceptance:
        keep("acceptance", "Accepted drafts a verify step", acceptance_figure(acceptance))
    if reliability is not None:
        metrics = extra["signals"]
        keep(
            "reliability",
            "Reliability of confidence",
            reliability_figure(reliability, metrics["auc"], metrics["brier"]),
        )
    write_records(workdir / "records.jsonl", records)
    write_report(workdir / "report.md", results, figures=figures, offsets=offsets, notes=notes)
    write_json(workdir / "results.json", results)
    return results


def offsets_of(records: Sequence[Record], labels: Sequence[dict]) -> dict:
    """Where exits fall relative to T*, for both kinds."""
    own = [r for r in records if r.source == "replay"]
    return {kind: exit_offsets(own, labels, kind) for kind in ("stable", "first")}
