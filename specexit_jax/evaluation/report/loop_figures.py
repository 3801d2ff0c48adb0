"""Figures of the loop itself: tokens a verify step against position, seconds of a request by part."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from specexit_jax.evaluation.loop.latency_split import PARTS
from specexit_jax.evaluation.report.style import COLOURS, INK, styled
from specexit_jax.evaluation.results import in_order

_PART_COLOURS = {
    "prefill": "#94a3b8", "verify": "#2563eb", "draft": "#d97706", "exit": "#dc2626", "host": "#cbd5e1",
}  # fmt: skip


def position_figure(rows: Sequence[Mapping]) -> Figure:
    """rows: of `acceptance_position.acceptance_by_position`."""
    with styled():
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        middle = np.asarray([(row["from"] + row["to"]) / 2 for row in rows])
        value = np.asarray([row["tokens_per_step"] for row in rows])
        low, high = np.asarray([row["ci95"] for row in rows]).T
        axes.fill_between(middle, low, high, color=COLOURS["eagle3"], alpha=0.15, linewidth=0)
        axes.plot(middle, value, "o-", color=COLOURS["eagle3"], markersize=4.5, linewidth=1.4)
        for x, y, row in zip(middle, value, rows, strict=True):
            label = f"{row['steps']:,}"
            axes.annotate(label, (x, y), (0, 7), textcoords="offset points", ha="center", fontsize=7, color=INK)
        axes.set(
            xlabel="tokens of thinking written when the verify step begins",
            ylabel="tokens a verify step\n(bonus token counted)", title="Acceptance against position",
            xlim=(0, rows[-1]["to"]), ylim=(1 if low.min() > 1 else 0, None),
        )  # fmt: skip
        axes.margins(y=0.15)
        return figure


def latency_figure(methods: Mapping[str, Mapping[str, float]]) -> Figure:
    """A stacked bar a method; methods: of `latency_split.latency_split`. A part below 0 (noise) is drawn as nothing."""
    names = in_order(methods)[::-1]
    with styled():
        figure = Figure(figsize=(7.2, 1.5 + 0.55 * len(names)), layout="constrained")
        axes = figure.subplots()
        start = np.zeros(len(names))
        for part in PARTS:
            width = 1e3 * np.maximum([methods[name][part] for name in names], 0.0)
            axes.barh(names, width, 0.62, start, color=_PART_COLOURS[part], label=part, linewidth=0)
            start = start + width
        axes.set(xlabel="milliseconds a request, batch 1", title="Where a request's time goes")
        axes.grid(visible=False, axis="y")
        figure.legend(loc="outside lower center", ncols=len(PARTS))
        return figure
