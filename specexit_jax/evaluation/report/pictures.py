"""The figures of a report, made from results.json and the traces to draw."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from specexit_jax.evaluation.report.figures import acceptance_figure, accuracy_tokens_figure, reliability_figure
from specexit_jax.evaluation.report.loop_figures import latency_figure, position_figure
from specexit_jax.evaluation.report.trace_figure import TraceView, signals_figure
from specexit_jax.evaluation.score_quality import Reliability

CAPTIONS = {
    "signals": "The signals along real traces; the exit, T* and every boundary marked",
    "accuracy_tokens": "Accuracy against generated tokens, 95 % intervals",
    "acceptance": "Accepted drafts a verify step",
    "acceptance_position": "Tokens a verify step against the thinking written before it; beside each point its number of steps",
    "reliability": "Reliability of confidence",
    "latency_split": "Seconds of a request at batch 1, by part",
}


def draw(results: dict, views: Sequence[TraceView] = ()) -> Iterator[tuple[str, Figure]]:
    """(a name of CAPTIONS, its figure) for all that the results hold."""
    overall = {name: method["overall"] for name, method in results["methods"].items()}
    yield "accuracy_tokens", accuracy_tokens_figure(overall, frontier=results.get("frontier") or ())
    if views:
        yield "signals", signals_figure(views)
    if curve := results.get("reliability"):
        known = {name: np.asarray(curve[name]) for name in Reliability._fields if name in curve}
        # Of earlier results, with ten bins of equal width.
        known.setdefault("right", np.minimum(known["left"] + 0.1, 1.0))
        bins = Reliability(**known)
        yield "reliability", reliability_figure(bins, results["signals"]["auc"], results["signals"]["brier"])
    if histograms := results.get("acceptance"):
        yield "acceptance", acceptance_figure({name: np.asarray(counts) for name, counts in histograms.items()})
    if rows := results.get("acceptance_position"):
        yield "acceptance_position", position_figure(rows)
    if split := results.get("latency_split"):
        yield "latency_split", latency_figure(split["methods"])
