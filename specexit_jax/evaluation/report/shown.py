"""What a report shows besides records: signals along traces, their quality, the worst exits."""

import dataclasses
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from specexit_jax.annotation.joined import join_labels
from specexit_jax.annotation.replay import smoothed_at_boundaries
from specexit_jax.evaluation import score_quality
from specexit_jax.evaluation.records import Record
from specexit_jax.evaluation.report.trace_figure import TraceView, text_stages
from specexit_jax.evaluation.report.where import exit_offsets
from specexit_jax.evaluation.report.worst import WorstExit, reported_method, worst_exits
from specexit_jax.exits.policy import Policy, Threshold
from specexit_jax.exits.signals import PAPER, agreement_column, of_draft
from specexit_jax.exits.units import problem_of
from specexit_jax.storage.rows import by_id, ids_in, taken, whole_rows


@dataclasses.dataclass(frozen=True)
class Shown:
    """sections: of results.json, beside those that records give. views: traces to draw. worst: exits to tell of."""

    sections: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    views: Sequence[TraceView] = ()
    worst: Sequence[WorstExit] = ()


def signal_sections(policy: Threshold, traces: Sequence[dict], labels: Sequence[dict], signals) -> dict:
    """`signals` and `reliability`: how well confidence predicts agreement at boundaries, as the head's output and as
    smoothed by the policy, or by its exit score where it has one. The AUC is None where all agree or none does; without any
    boundary there are no sections."""
    closed = [i for i, trace in enumerate(traces) if trace["think_end"] is not None]
    traces, labels = taken(traces, closed), taken(labels, closed)
    agreeing, right, values, problems = [], [], [], []
    for trace, label in zip(traces, labels, strict=True):
        if not label["boundaries"]:
            continue
        agreeing += label["agree"]
        right += label["correct"]
        values.append(signals[trace["id"]][np.asarray(label["boundaries"], int)])
        problems += [problem_of(trace)] * len(label["boundaries"])
    if not problems:
        return {}
    agree, correct, raw = np.asarray(agreeing, bool), np.asarray(right, bool), np.concatenate(values)
    smoothed = np.concatenate(smoothed_at_boundaries(policy.smoother, traces, labels, signals))
    own = agreement_column(of_draft(policy.signals))
    raw, smoothed = raw[:, own], smoothed[:, agreement_column(policy.signals)]
    metrics = {
        "boundaries": len(agree),
        "agreeing": float(agree.mean()),
        "auc": _defined(score_quality.auc(agree, raw)),
        "auc_smoothed": _defined(score_quality.auc(agree, smoothed)),
        "brier": score_quality.brier(agree, raw),
        # Confidence predicts agreement, not that the answer is right. This is how closely agreement itself corresponds
        # to a right answer.
        "correlation_with_correct": score_quality.correlation(raw, correct),
        "correlation_of_agreement_with_correct": score_quality.correlation(agree, correct),
    }
    bins = score_quality.reliability(agree, raw, problems=problems, edges=score_quality.NEAR_ONE)
    curve = {name: np.asarray(value).tolist() for name, value in bins._asdict().items()}
    return {"signals": metrics, "reliability": curve}


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else value


def offsets_of(records: Sequence[Record], labels: Sequence[dict]) -> dict:
    """Where exits fall relative to T*, for both kinds."""
    own = [r for r in records if r.source == "replay"]
    names = ("id", "boundaries", "stable", "first")
    short = [
        {name: label[name] for name in names} | {"boundaries": array("i", label["boundaries"])} for label in labels
    ]
    return {kind: exit_offsets(own, short, kind) for kind in ("stable", "first")}


def told_exits(
    tokenizer: Any,
    policy: Policy | None,
    records: Sequence[Record],
    traces: Sequence[dict],
    labels: Sequence[dict],
    signals,
) -> list[WorstExit]:
    """The worst exits, with the signals that the policy compared where it reads any."""
    left = {r.id for r in records if r.method == reported_method(records) and r.exited}
    chosen = taken(traces, [number for number, name in enumerate(ids_in(traces)) if name in left])
    seen, names = None, PAPER
    if signals and isinstance(policy, Threshold):
        own = join_labels(chosen, labels)
        smoothed = smoothed_at_boundaries(policy.smoother, chosen, own, signals)
        seen, names = {}, policy.signals
        for label, rows in zip(own, smoothed, strict=True):
            seen[label["id"]] = dict(zip(label["boundaries"], rows, strict=True))
    return worst_exits(records, chosen, tokenizer, seen, names=names)


def chosen_views(
    tokenizer, policy: Threshold, records: Sequence[Record], traces: Sequence[dict], labels: Sequence[dict], signals
) -> list[TraceView]:
    """Three traces: the first that exits right, one whose first answer was wrong and mended, one of another task."""
    exits = {record.id: record for record in records if record.method == "specexit" and record.source == "replay"}
    right = [name for name in ids_in(traces) if name in exits and exits[name].exited and exits[name].correct]
    there, mended, stable = by_id(labels), [], {}
    for name in right:
        label = there[name]
        stable[name] = label["stable"] or 0
        if label["first"] is not None and not all(label["agree"][label["first"] :]):
            mended.append(name)
    late = sorted(right, key=lambda name: -stable[name])
    picked: list[str] = []
    for candidates in (right, mended or late, right[::-1]):
        tasks = {exits[name].task for name in picked}
        picked += [name for name in candidates if exits[name].task not in tasks][:1]
    full = by_id(whole_rows(traces))
    return [trace_view(tokenizer, policy, full[n], there[n], signals, exits[n].exit_index) for n in picked]


def trace_view(tokenizer, policy: Threshold, trace: dict, label: dict, signals, exit_index: int | None) -> TraceView:
    """One trace for the figure of signals. Without a tokenizer its text is not told in stages."""
    end = len(trace["ids"]) if trace["think_end"] is None else trace["think_end"]
    (smoothed,) = smoothed_at_boundaries(policy.smoother, [trace], [label], signals)
    starts = [0, *(place + 1 for place in label["boundaries"])]
    pieces = [
        (start, place + 1, tokenizer.decode(trace["ids"][start : place + 1]))
        for start, place in zip(starts, label["boundaries"], strict=False)
        if tokenizer is not None
    ]
    return TraceView(
        title=f"{trace['task']}: {_ending(trace['prompt'], 70)}  → {trace['answer']}",
        signals=_raw(signals[trace["id"]][:end], policy.signals),
        boundaries=label["boundaries"],
        agree=label["agree"],
        smoothed=_along(end, label["boundaries"], smoothed),
        sufficient=None if label["stable"] is None else label["boundaries"][label["stable"]],
        exit=None if exit_index is None else exit_index - 1,
        thresholds=tuple(float(value) for value in np.asarray(policy.thresholds)),
        stages=text_stages(pieces),
        names=policy.signals,
    )


def _raw(rows: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """float32 [n, S]: the draft's signals of a trace, which are the leading columns; nan for what is no signal of the draft."""
    values = np.full((len(rows), len(names)), np.nan, np.float32)
    own = len(of_draft(names))
    values[:, :own] = rows[:, :own]
    return values


def _along(length: int, boundaries: Sequence[int], rows: np.ndarray) -> np.ndarray:
    """float32 [length, S] with the rows at their boundaries, nan elsewhere."""
    values = np.full((length, rows.shape[1]), np.nan, np.float32)
    values[np.asarray(boundaries, int)] = rows
    return values


def _ending(text: str, most: int) -> str:
    """The last words of a text, on one line of at most so many characters."""
    words = " ".join(text.split())
    return words if len(words) <= most else "… " + words[-most:].partition(" ")[2]
