"""The look of every figure, and how one is saved."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from specexit_jax.evaluation.records import write_atomically

COLOURS = {
    "think": "#475569", "nothink": "#94a3b8", "first_answer": "#d97706", "deer": "#7c3aed",
    "deer_eagle3": "#a78bfa", "eagle3": "#2563eb", "probe": "#0d9488",
    "specexit": "#dc2626", "ceiling": "#15803d", "oracle": "#111827",
}  # fmt: skip
INK, FAINT = "#1e293b", "#cbd5e1"
STYLE = {
    "font.size": 9, "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.titlecolor": INK, "axes.labelcolor": INK, "axes.edgecolor": "#94a3b8", "axes.linewidth": 0.8,
    "axes.spines.top": False, "axes.spines.right": False, "xtick.color": "#64748b", "ytick.color": "#64748b",
    "axes.grid": True, "grid.color": "#e2e8f0", "grid.linewidth": 0.7, "axes.axisbelow": True,
    "legend.frameon": False, "legend.fontsize": 8, "figure.facecolor": "white", "savefig.dpi": 170,
}  # fmt: skip


def save_figure(path: str | Path, figure: Figure) -> None:
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomically(path, buffer.getvalue())


@contextmanager
def styled() -> Iterator[None]:
    """A context with our style, without changing pyplot's global state."""
    with matplotlib.rc_context(STYLE):
        yield
