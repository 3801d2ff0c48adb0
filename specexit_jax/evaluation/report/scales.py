"""An axis for probabilities that are mostly near 1: equal steps are equal factors of 1 − p."""

from __future__ import annotations

import dataclasses
import math

import matplotlib.ticker
import numpy as np
from matplotlib.axis import Axis


@dataclasses.dataclass(frozen=True)
class NearOne:
    """p is drawn at −log10(1 − p + 10^−decades): 0 at 0, 0.9 near 1, 0.99 near 2, and 1 itself at `decades`."""

    decades: int

    @classmethod
    def of(cls, values: np.ndarray, least: int = 2, most: int = 6) -> NearOne:
        """A scale with as many decades as these values need."""
        below = np.asarray(values, np.float64)
        below = below[np.isfinite(below) & (below < 1)]
        nearest = 1 - below.max(initial=0.0)
        return cls(min(max(math.ceil(-math.log10(nearest)) + 1, least), most))

    def forward(self, share: np.ndarray) -> np.ndarray:
        rest = 10.0**-self.decades
        return -np.log10(np.maximum(1 - np.asarray(share, np.float64) + rest, rest / 2))

    def inverse(self, drawn: np.ndarray) -> np.ndarray:
        return 1 + 10.0**-self.decades - 10 ** -np.asarray(drawn, np.float64)

    def ticks(self) -> tuple[list[float], list[str]]:
        nines, half = range(1, self.decades), [0.5] if self.decades <= 4 else []  # there is room for it
        places = [0.0, *half, *(1 - 10.0**-n for n in nines), 1.0]
        return places, ["0", *map(str, half), *(f"{1 - 10.0**-n:.{n}f}" for n in nines), "1"]

    def on(self, axis: Axis) -> None:
        """Puts the scale and its ticks on an axis, from a little below 0 to a little above 1."""
        name = axis.axis_name
        getattr(axis.axes, f"set_{name}scale")("function", functions=(self.forward, self.inverse))
        places, labels = self.ticks()
        axis.set_major_locator(matplotlib.ticker.FixedLocator(places))
        axis.set_major_formatter(matplotlib.ticker.FixedFormatter(labels))
        axis.set_minor_locator(matplotlib.ticker.NullLocator())
        getattr(axis.axes, f"set_{name}lim")(-0.12, 1 + 0.3 * 10.0**-self.decades)
