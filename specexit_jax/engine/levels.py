"""Levels: how many rows fit as long as none is longer than so much, and which level runs when. Arithmetic alone.

An iteration reads the weights and the caches, and these fill the same memory at every level; so it takes about as long whether
it decodes 64 short rows or 8 long ones. Tokens are cheap where many rows are decoded. So rows of about one length are decoded
together: a row that outgrows its level waits until as many have as fit the next one.
"""

import dataclasses
from collections.abc import Callable, Sequence


@dataclasses.dataclass(frozen=True)
class Level:
    """rows: that are decoded at a time; longest: the greatest live prefix that they may have."""

    rows: int
    longest: int


def levels_of(prefixes: Sequence[int], most: int, parts: int, fits: Callable[[int, int], bool]) -> tuple[Level, ...]:
    """The levels for these live prefixes (ascending), from many short rows to few long ones; () where the longest row fits nowhere.

    Numbers of rows are `most`, which `parts` divides, and below it `parts` times 1, 2, 3, 4, 6, 8, 12, 16 ..., so that programs are
    those of the last run, if a little less memory is free. fits(rows, live): whether so many rows fit.
    """
    below = {parts * size for power in range(most.bit_length()) for size in (1 << power, 3 << power >> 1)}
    sizes = [most, *sorted((size for size in below if size < most), reverse=True)]
    found: dict[int, int] = {}
    for live in prefixes:
        rows = next((size for size in sizes if fits(size, live)), None)
        if rows is None:
            return ()
        found[rows] = live
    return tuple(Level(rows, longest) for rows, longest in found.items())


def level_for(levels: Sequence[Level], live: int) -> int:
    """The first level whose rows may have the live prefix `live`."""
    return next(number for number, level in enumerate(levels) if level.longest >= live)


def next_level(levels: Sequence[Level], counts: Sequence[int], present: int, more: bool, tight: bool) -> int | None:
    """The level to run, from the number of requests whose rows need each level; None where there is no request.

    present: the level that runs; more: whether other requests follow these; tight: whether rows that wait fill the host's memory.

    A level is worth its change as soon as its rows are full, the longest first, and for as long as half of them are. Where none
    is, new requests are decoded at the lowest; when no more follow, at the highest that holds all that are not longer. Where
    memory is tight the longest come first, because they end first.
    """
    needed = [number for number, count in enumerate(counts) if count]
    if not needed:
        return None
    full = [number for number in needed if counts[number] >= levels[number].rows]
    best = needed[-1] if tight else max(full, default=-1)
    if best > present or (best >= 0 and 2 * counts[present] < levels[present].rows):
        return best
    if 2 * counts[present] >= levels[present].rows:
        return present
    if more:
        return needed[0]
    return max(number for number in needed if sum(counts[: number + 1]) <= levels[number].rows)
