"""The number of problems that an exact binomial test needs, by bisection; the result equals that of counting up from 1.

For a fixed number h of harmed problems, the test passes from some number of problems n on. An observed risk of `observed` means
h = ceil(observed x n), so each h belongs to a range of n, and the largest n of the range passes most easily. It is within 1 of
h / observed. P(at most h of h / observed) falls with h, so bisection gives an interval that contains the first h that passes.
The values of h in this interval are then tried one by one.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy.special import betainc

_PLACES = 9  # decimals that observed x n is rounded to before it is rounded up
_BLOCK, _TRIED = 64, 4096  # values of h that are tried at a time, and in all


def problems_needed(epsilon: float, delta: float, observed: float = 0.0) -> int:
    """The smallest number of problems n with which the binomial test certifies the risk to be below epsilon, if the share
    `observed` of the problems is harmed.

    The number of harmed problems is observed x n, rounded up. So a slightly larger n can fail again, because one more problem is
    harmed. Where more than 4,096 numbers of harmed problems would have to be tried (from about 10^10 problems on for epsilon 0.1,
    10^6 for 0.9), the result passes, but a smaller number may pass too. Raises ValueError unless 0 <= observed < epsilon < 1 and
    0 < delta < 1.
    """
    if not (0.0 <= observed < epsilon < 1.0 and 0.0 < delta < 1.0):
        raise ValueError(
            f"no number of problems certifies: observed risk {observed:g} must lie below epsilon {epsilon:g}, "
            f"and epsilon and delta ({delta:g}) between 0 and 1"
        )
    if observed == 0.0:
        return _first(lambda n: _passes(0, n, epsilon, delta), 1)

    def sure(harmed: int) -> bool:
        least = harmed / observed - 1.0
        return least > harmed and _cdf(harmed, least, epsilon) <= delta

    def possible(harmed: int) -> bool:
        return _cdf(harmed, (harmed + 10.0**-_PLACES) / observed, epsilon) <= delta

    low = _first(possible, 1)
    high = _first(sure, low)
    for start in [*range(0 if low == 1 else low, min(high, low + _TRIED), _BLOCK), high]:
        counts = range(start, start + _BLOCK)
        most = [_most(harmed, observed) for harmed in counts]
        passed = np.flatnonzero(_binomial(counts, most, epsilon) <= delta)
        if len(passed):
            break
    harmed = counts[passed[0]]
    least = _most(harmed - 1, observed) + 1 if harmed else 1
    return _first(lambda n: _passes(harmed, n, epsilon, delta), least)


def _passes(harmed: int, problems: int, epsilon: float, delta: float) -> bool:
    return bool(_binomial(harmed, problems, epsilon) <= delta)


def _binomial(harmed, problems, epsilon: float):
    """P(at most `harmed` of `problems`) at risk epsilon, for whole numbers or arrays of them."""
    from scipy.stats import binom  # imported here because it takes half a second, and decoding does not need it

    return binom.cdf(harmed, problems, epsilon)


def _cdf(harmed: int, problems: float, epsilon: float) -> float:
    """P(at most `harmed` of `problems`) at risk epsilon, for any real number of problems."""
    return float(betainc(problems - harmed, harmed + 1.0, 1.0 - epsilon))


def _most(harmed: int, observed: float) -> int:
    """The largest number of problems n for which observed x n, rounded up, is at most `harmed`."""
    problems = int((harmed + 0.5 * 10.0**-_PLACES) / observed) + 1
    while math.ceil(round(observed * problems, _PLACES)) > harmed:
        problems -= 1
    return problems


def _first(holds: Callable[[int], bool], start: int) -> int:
    """The first number from `start` on for which `holds` is true; it must then be true for all larger numbers."""
    step, low = 1, start - 1
    while not holds(low + step):
        low, step = low + step, 2 * step
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
