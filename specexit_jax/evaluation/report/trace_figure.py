"""The figure of the signals along real traces, with every boundary, T* and the exit."""

import dataclasses
from collections.abc import Sequence

import matplotlib.lines
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from specexit_jax.evaluation.report.scales import NearOne
from specexit_jax.evaluation.report.style import FAINT, INK, styled
from specexit_jax.exits.signals import PAPER, SIGNALS, agreement_column

_DOUBTS = ("Wait", "But", "Hmm", "Alternatively", "Actually", "Let me", "I could", "Another", "Hold on")


@dataclasses.dataclass(frozen=True)
class TraceView:
    """One trace's thinking, T tokens, to be drawn.

    signals: [T, S] activated, in the order of `names`; smoothed: what the policy compared, or None.
    boundaries: token indices of every boundary; agree: whether the answer forced there agrees with the full one.
    sufficient: token index of T*, None without one; exit: token index of the boundary where the policy exits, or None.
    thresholds: the policy's, None to leave them out. stages: (first token, end, label) of stretches of the text.
    """

    title: str
    signals: np.ndarray
    boundaries: Sequence[int]
    agree: Sequence[bool]
    smoothed: np.ndarray | None = None
    sufficient: int | None = None
    exit: int | None = None
    thresholds: tuple[float, ...] | None = None
    stages: Sequence[tuple[int, int, str]] = ()
    names: tuple[str, ...] = PAPER

    @property
    def agreement(self) -> int:
        """The column that is the probability of agreement, whose panel shows whether forced answers agree."""
        return agreement_column(self.names)


def text_stages(paragraphs: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Stages of a text from its paragraphs (first token, end, text): a new one starts where a paragraph voices doubt.

    The first is labelled 'first attempt', the others by their opening words.
    """
    stages: list[tuple[int, int, str]] = []
    for start, end, text in paragraphs:
        opening = " ".join(text.strip().split())
        if not stages:
            stages.append((start, end, "first attempt"))
        elif opening.startswith(_DOUBTS):
            stages.append((start, end, f"“{opening}”"))
        else:
            stages[-1] = (stages[-1][0], end, stages[-1][2])
    return stages


def signals_figure(traces: Sequence[TraceView]) -> Figure:
    """The signals along real traces: every boundary, T*, the exit, and what is not written after it."""
    if not traces:
        raise ValueError("a figure of signals needs at least one trace")
    with styled():
        figure = Figure(figsize=(10, 0.6 + sum(3.9 + (len(trace.names) - 3) for trace in traces)), layout="constrained")
        outer = figure.subfigures(len(traces), 1, squeeze=False, hspace=0.04)[:, 0]
        limits = [np.asarray([t.thresholds[t.agreement]]) for t in traces if t.thresholds is not None]
        scale = NearOne.of(np.concatenate([*limits, *(_seen(trace)[:, trace.agreement] for trace in traces)]))
        for place, (part, trace) in enumerate(zip(outer, traces, strict=True)):
            heights = [0.26, *(_height(name) for name in trace.names)]
            grid = {"height_ratios": heights, "hspace": 0.04}
            panels = part.subplots(len(heights), 1, sharex=True, gridspec_kw=grid)
            _draw_stages(panels[0], trace)
            _draw_signals(panels[1:], trace, scale)
            for axes in panels:
                _draw_marks(axes, trace, labelled=axes is panels[1 + trace.agreement])
            panels[-1].set_xlabel("tokens of thinking" if place == len(traces) - 1 else "")
            if place == 0:
                _legend(part, trace.names)
        return figure


def _height(name: str) -> float:
    signal = SIGNALS[name]
    return 1.4 if signal.event else 1.0 if signal.scale.unit else 0.8


def _seen(trace: TraceView) -> np.ndarray:
    """What the policy compared, where it compared anything, float [n, S]."""
    bold = trace.signals if trace.smoothed is None else trace.smoothed
    return bold[np.isfinite(bold).all(axis=1)]


def _draw_stages(axes: Axes, trace: TraceView) -> None:
    tokens = len(trace.signals)
    axes.set(ylim=(0, 1), yticks=[], xlim=(-0.5, tokens - 0.5))
    axes.set_title(trace.title, pad=5)
    axes.grid(visible=False)
    axes.tick_params(bottom=False)
    for side in axes.spines.values():
        side.set_visible(False)
    characters = 150 / tokens  # that fit into a token's width of a 10 inch figure
    for number, (start, end, label) in enumerate(trace.stages):
        axes.axvspan(start - 0.5, end - 0.5, color=("#e2e8f0", "#f1f5f9")[number % 2], linewidth=0)
        room = int((end - start) * characters) - 1
        shown = label if len(label) <= room else label[: max(room - 1, 0)].rstrip(" ,.“") + "…"
        if room >= 6:
            axes.text(start + 0.4 / characters, 0.46, shown, fontsize=7.2, va="center", color=INK, clip_on=True)


def _draw_signals(panels: Sequence[Axes], trace: TraceView, scale: NearOne) -> None:
    """What the policy compared, boundary by boundary; the signals themselves, unsmoothed, as faint points beside it."""
    steps, read = np.arange(len(trace.signals)), list(trace.boundaries)
    bold = trace.signals if trace.smoothed is None else trace.smoothed
    shown = np.isfinite(bold).all(axis=1)  # smoothed values are known at boundaries only
    for column, (axes, name) in enumerate(zip(panels, trace.names, strict=True)):
        signal = SIGNALS[name]
        colour = signal.colour
        if trace.smoothed is not None:
            axes.plot(read, trace.signals[read, column], ".", color=colour, markersize=4, alpha=0.4, linestyle="none")
        axes.plot(steps[shown], bold[shown, column], color=colour, linewidth=1.7, solid_capstyle="round")
        axes.grid(visible=False, axis="x")
        axes.set_ylabel(f"{name}\n({signal.scale.unit})" if signal.scale.unit else name)
        if signal.event:
            scale.on(axes.yaxis)
        elif signal.scale.unit:
            axes.set_yscale("log")
            axes.set_ylim(0.8, max(20.0, 1.6 * float(np.max(bold[shown, column], initial=0.0))))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        else:
            axes.set(ylim=(-0.05, 1.06), yticks=[0, 0.5, 1])
    for axes in panels[:-1]:
        axes.tick_params(bottom=False)
        axes.spines["bottom"].set_visible(False)
    if trace.thresholds is not None:
        _draw_thresholds(panels, trace.thresholds, trace.names)
    _draw_agreement(panels[trace.agreement], trace)


def _draw_thresholds(panels: Sequence[Axes], thresholds: Sequence[float], names: Sequence[str]) -> None:
    """A line and its value in each panel, digits enough to tell it from 1; none where the rule does not ask."""
    for axes, threshold, name in zip(panels, thresholds, names, strict=True):
        (low, high), signal = axes.get_ylim(), SIGNALS[name]
        colour = signal.colour
        if signal.can_refuse(threshold) and low <= threshold <= high:
            axes.axhline(threshold, color=colour, linewidth=0.8, linestyle=(0, (1, 2)))
            axes.annotate(
                signal.limit_text(threshold), (1, threshold), (4, 0), xycoords=("axes fraction", "data"),
                textcoords="offset points", va="center", fontsize=7.5, color=colour, annotation_clip=False,
            )  # fmt: skip


def _draw_agreement(axes: Axes, trace: TraceView) -> None:
    """A point a boundary beneath the panel: whether the answer forced there agrees with the full one."""
    agree, places = np.asarray(trace.agree, bool), np.asarray(trace.boundaries, np.int64)
    beneath = {"clip_on": False, "zorder": 5, "transform": axes.get_xaxis_transform()}
    height = np.full(len(places), -0.05)
    axes.scatter(places[agree], height[agree], s=17, color="#15803d", linewidth=0, **beneath)
    axes.scatter(
        places[~agree], height[~agree], s=15, facecolor="white", edgecolor="#b91c1c", linewidth=1, **beneath
    )  # fmt: skip


def _draw_marks(axes: Axes, trace: TraceView, labelled: bool) -> None:
    tokens = len(trace.signals)
    strip = not axes.get_yticks().size  # the strip of text keeps only the exit: lines would strike its words out
    for place in () if strip else trace.boundaries:
        axes.axvline(place, color=FAINT, linewidth=0.6, zorder=0)
    if trace.sufficient is not None and not strip:
        axes.axvline(trace.sufficient, color="#15803d", linewidth=1.4, linestyle=(0, (4, 2)), zorder=3)
    if trace.exit is None:
        return
    axes.axvline(trace.exit, color=INK, linewidth=1.8, zorder=4)
    if trace.exit < tokens - 1:  # what follows the exit is hatched beneath the curves and veiled above them
        axes.axvspan(
            trace.exit, tokens - 0.5, facecolor="none", edgecolor="#e2e8f0", hatch="////", linewidth=0, zorder=0.5
        )
        axes.axvspan(trace.exit, tokens - 0.5, color="white", alpha=0.55, linewidth=0, zorder=3.5)
    if labelled:
        saved = tokens - 1 - trace.exit
        right = trace.exit > 0.75 * tokens
        axes.annotate(
            f"exit: {saved} of {tokens} tokens not written" if saved else "exit at the last token",
            (trace.exit, 0.3), xycoords=axes.get_xaxis_transform(), xytext=(-6 if right else 6, 0),
            textcoords="offset points", va="center",
            ha="right" if right else "left", fontsize=8, color=INK, fontweight="bold", zorder=6,
            bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "none", "alpha": 0.9},
        )  # fmt: skip


def _legend(part: SubFigure, names: Sequence[str]) -> None:
    line, dot = matplotlib.lines.Line2D, {"marker": "o", "linestyle": "none", "markersize": 4.5}
    entries = [line([], [], color=SIGNALS[name].colour, linewidth=2, label=name) for name in names]
    entries += [
        line([], [], color="#94a3b8", linewidth=1, linestyle=(0, (1, 2)), label="thresholds"),
        line([], [], color="#15803d", label="boundary, forced answer agrees", **dot),
        line([], [], markerfacecolor="white", color="#b91c1c", label="… disagrees", **dot),
        line([], [], color="#15803d", linestyle=(0, (4, 2)), label="T* (sufficient)"),
        line([], [], color=INK, linewidth=2, label="exit"),
    ]
    part.legend(handles=entries, loc="outside upper center", ncols=len(entries), columnspacing=1.2, handlelength=1.6)
