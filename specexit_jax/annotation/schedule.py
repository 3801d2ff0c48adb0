"""Which boundaries of a trace are forced: every one, every n-th, a limited number, or those that a search for T* asks for."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Schedule:
    """every: one boundary in so many. most: boundaries of a trace at most, evenly spread; 0: no limit. The first and the last one
    are always among them. search: of these, only those are forced that the search for T* asks for (`search.asked`). verify: with
    a search, how many boundaries after T* are forced as well. width: with a search, how many boundaries of a trace are forced at a
    time.

    Raises ValueError on numbers out of range.
    """

    every: int = 1
    most: int = 0
    search: bool = False
    verify: int = 1
    width: int = 2

    def __post_init__(self):
        for name, least in (("every", 1), ("most", 0), ("verify", 0), ("width", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"annotate.{name} must be at least {least}, not {getattr(self, name)}.")
        if self.most == 1:
            raise ValueError("annotate.most keeps the first and the last boundary: give at least 2, or 0 for no limit.")

    @property
    def whole(self) -> bool:
        """Whether every boundary is forced."""
        return self.every == 1 and self.most == 0 and not self.search

    def text(self) -> str:
        """As annotate.json records it."""
        words = [f"every={self.every}"] * (self.every > 1) + [f"most={self.most}"] * (self.most > 0)
        words += [f"search, verify={self.verify}" + f", width={self.width}" * (self.width > 2)] * self.search
        return ", ".join(words) or "all"

    def of(self, boundaries: Sequence[int]) -> list[int]:
        """Those of a trace's boundaries that may be forced."""
        last = len(boundaries) - 1
        numbers = sorted({*range(0, last + 1, self.every), last}) if last >= 0 else []
        if self.most and len(numbers) > self.most:
            numbers = [numbers[at] for at in np.linspace(0, len(numbers) - 1, self.most).round().astype(int)]
        return [boundaries[number] for number in numbers]


ALL = Schedule()
