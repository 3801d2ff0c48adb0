"""Figures over all problems: accuracy against tokens, acceptance, reliability. Numbers in, a matplotlib Figure out."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from specexit_jax.evaluation.report.scales import NearOne
from specexit_jax.evaluation.report.style import COLOURS, INK, styled
from specexit_jax.evaluation.results import in_order, tau
from specexit_jax.evaluation.score_quality import Reliability

# offsets of a label from its point, in points, nearest first; a negative one puts it to the left
_OFFSETS = ((8, 10), (8, -11), (-8, 10), (-8, -11), (8, 25), (8, -26), (-8, 25), (-8, -26), (8, 40), (8, -41), (8, 55))


def accuracy_tokens_figure(
    methods: Mapping[str, dict],
    title: str = "Accuracy against tokens, mean over tasks",
    frontier: Sequence[Mapping[str, float]] = (),
) -> Figure:
    """One point per method with 95 % intervals in both directions; methods: name -> the `overall` (or a task's)
    summary.

    frontier: {epsilon, tokens, accuracy, …} of policies for several risks, drawn as a curve.
    """
    with styled():
        figure = Figure(figsize=(7.2, 4.5), layout="constrained")
        axes = figure.subplots()
        names = in_order(methods)
        for name in names:
            point, colour = methods[name], COLOURS.get(name, "#db2777")
            x, y = point["tokens_mean"], 100 * point["accuracy"]
            spread = np.abs(np.asarray(point["tokens_ci95"])[:, None] - x)
            rise = np.abs(100 * np.asarray(point["accuracy_ci95"])[:, None] - y)
            bound = name in ("oracle", "ceiling")
            axes.errorbar(
                x, y, yerr=rise, xerr=spread, color=colour, fmt="D" if bound else "o",
                markersize=8 if name == "specexit" else 6,
                markerfacecolor="white" if bound else colour, markeredgewidth=1.6, elinewidth=1.1, capsize=2.5,
                zorder=4 if name == "specexit" else 3,
            )  # fmt: skip
        axes.set(xlabel="generated tokens a problem", ylabel="accuracy (%)", title=title)
        lows = [100 * methods[name]["accuracy_ci95"][0] for name in names]
        highs = [100 * methods[name]["accuracy_ci95"][1] for name in names]
        curve = sorted((row["tokens"], 100 * row["accuracy"]) for row in frontier if row["accuracy"] is not None)
        if curve:
            label = "calibrated, from the least ε to the greatest"
            axes.plot(*zip(*curve, strict=True), ".-", color=COLOURS["specexit"], alpha=0.55, zorder=2.5, label=label)
            axes.legend(loc="lower right")
            lows, highs = [*lows, *(y for _, y in curve)], [*highs, *(y for _, y in curve)]
        margin = 0.14 * (max(highs) - min(lows)) + 0.3
        axes.set(ylim=(min(lows) - margin, max(highs) + margin))
        axes.set_xlim(0, 1.22 * max(methods[name]["tokens_ci95"][1] for name in names))
        _label_points(figure, axes, names, methods)
        return figure


def _label_points(figure: Figure, axes: Axes, names: Sequence[str], methods: Mapping[str, dict]) -> None:
    """Names beside their points; methods at the same place (think = eagle3) share one label, others make room."""
    figure.draw_without_rendering()
    groups: list[tuple[np.ndarray, list[str]]] = []
    for name in names:
        data = (methods[name]["tokens_mean"], 100 * methods[name]["accuracy"])
        spot = axes.transData.transform(data)
        near = next((members for place, members in groups if np.linalg.norm(place - spot) < 3), None)
        if near is None:
            groups.append((spot, [name]))
        else:
            near.append(name)
    taken = [spot for spot, _ in groups]
    unit = figure.dpi / 72
    for spot, members in sorted(groups, key=lambda group: -group[0][1]):
        text = " = ".join(members)
        width = 5.2 * len(text) * unit
        others = [place for place in taken if place is not spot]
        offset = next(
            (o for o in _OFFSETS if not _crowded(_left_end(spot, o, width, unit), width, others, 13 * unit)), (8, 10)
        )
        start = _left_end(spot, offset, width, unit)
        taken += [[*start, along, 0] for along in np.arange(0, width, 8 * unit)]
        colour = COLOURS.get(members[-1], "#db2777")
        axes.annotate(
            text, axes.transData.inverted().transform(spot), xytext=offset, textcoords="offset points", va="center",
            ha="left" if offset[0] > 0 else "right", fontsize=9, color=colour,
            fontweight="bold" if "specexit" in members else "normal",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6} if abs(offset[1]) > 12 else None,
            zorder=6,
        )  # fmt: skip


def _left_end(spot: np.ndarray, offset: tuple[int, int], width: float, unit: float) -> np.ndarray:
    """Where a label that hangs at `offset` points from a spot begins, in pixels."""
    return spot + np.multiply(offset, unit) - [0.0 if offset[0] > 0 else width, 0.0]


def _crowded(anchor: np.ndarray, width: float, taken: Sequence[np.ndarray], height: float) -> bool:
    return any(
        anchor[0] - height < place[0] < anchor[0] + width + height / 2 and abs(place[1] - anchor[1]) < height
        for place in taken
    )


def acceptance_figure(histograms: Mapping[str, np.ndarray]) -> Figure:
    """Share of verify steps by accepted drafts; histograms: method -> int[K + 1], exit-truncated steps left out."""
    shown = {name: np.asarray(histograms[name]) for name in in_order(histograms) if np.sum(histograms[name]) > 0}
    if not shown:
        raise ValueError("an acceptance histogram needs a decoded method with drafts")
    with styled():
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        width = 0.8 / len(shown)
        for place, (name, counts) in enumerate(shown.items()):
            shares = 100 * counts / counts.sum()
            at = np.arange(len(counts)) + (place - (len(shown) - 1) / 2) * width
            mean = tau(counts)
            label = name if mean is None else f"{name}  ({mean:.2f} tokens a step, all steps pooled)"
            bars = axes.bar(at, shares, 0.92 * width, color=COLOURS.get(name, "#db2777"), label=label, linewidth=0)
            if len(shown) * len(counts) <= 24:
                axes.bar_label(bars, [f"{share:.0f}" for share in shares], fontsize=7.5, color=INK, padding=1.5)
        axes.set(
            xlabel="drafts accepted in a verify step (its tokens are one more)", ylabel="share of verify steps (%)",
            title="Acceptance", xticks=range(max(len(counts) for counts in shown.values())),
        )  # fmt: skip
        axes.grid(visible=False, axis="x")
        axes.legend(loc="upper left")
        axes.margins(y=0.1)
        return figure


def reliability_figure(bins: Reliability, auc: float | None, brier: float) -> Figure:
    """Confidence against how often the forced answer agrees, with the count of boundaries beneath."""
    with styled():
        figure = Figure(figsize=(6.2, 5.6), layout="constrained")
        axes, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3.4, 1]})
        scale = NearOne.of(np.concatenate([bins.predicted, bins.left]))
        line = scale.inverse(np.linspace(0, scale.forward(np.array(1.0)), 200))
        axes.plot(line, line, color="#94a3b8", linewidth=1, linestyle=(0, (4, 2)))
        spread = np.maximum([bins.observed - bins.low, bins.high - bins.observed], 0.0)
        axes.errorbar(
            bins.predicted, bins.observed, yerr=spread, color=COLOURS["specexit"], fmt="o-", markersize=5,
            linewidth=1.4,
            elinewidth=1, capsize=2.5,
        )  # fmt: skip
        axes.set(ylabel="forced answer agrees", title="Reliability of confidence")
        # Digits that the counts support.
        NearOne.of(np.concatenate([bins.observed, bins.low, bins.high])).on(axes.yaxis)
        ranked = "–" if auc is None else f"{auc:.3f}"
        summary = (
            f"AUC {ranked}\nBrier {brier:.3f}\ncalibration error {bins.error:.3f}\n{bins.count.sum():,} boundaries"
        )
        place = {"transform": axes.transAxes, "ha": "right", "va": "bottom"}
        axes.text(0.97, 0.04, summary, **place, fontsize=8.5, color=INK, linespacing=1.5)
        below.bar(bins.left, bins.count, bins.right - bins.left, align="edge", color="#94a3b8", edgecolor="white")
        scale.on(below.xaxis)
        below.set(xlabel="confidence (equal steps are equal factors of 1 − confidence)", ylabel="boundaries")
        below.grid(visible=False, axis="x")
        return figure
