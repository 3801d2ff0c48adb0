"""How many problems an exact binomial test needs, by bracket and bisection: the very number that counting up gives.

With h harmed, n problems pass from some n on; the share allows h from some n on too. Of all n with h harmed the largest is
the likeliest to pass, and it lies within 1 of h / observed: P(at most h of h / observed) falls with h, so that bisection
finds between which h the first one lies, which are then tried one by one.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy.special import betainc

_PLACES = 9  # a share of n problems is rounded to so many decimals before it is rounded up
_BLOCK, _TRIED = 64, 4096  # counts of harmed problems that are tried at once, and at most


def problems_needed(epsilon: float, delta: float, observed: float = 0.0) -> int:
    """The fewest problems on which an observed risk of at least `observed` is certified below epsilon.

    A share of n problems is a whole number of them, rounded up; so a slightly larger n may fail again (one more
    problem is allowed to be harmed there). Where more than 4,096 counts of harmed problems would have to be tried (at 10^10
    problems for epsilon 0.1, at 10^6 for 0.9), the answer passes, but a smaller one may too. Raises ValueError unless
    0 <= observed < epsilon < 1 and 0 < delta < 1.
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
    """P(at most `harmed` of `problems`), of whole numbers."""
    from scipy.stats import binom  # half a second of imports, which decoding by a policy does not need

    return binom.cdf(harmed, problems, epsilon)


def _cdf(harmed: int, problems: float, epsilon: float) -> float:
    """P(at most `harmed` of `problems`), also of a number of problems that is not whole."""
    return float(betainc(problems - harmed, harmed + 1.0, 1.0 - epsilon))


def _most(harmed: int, observed: float) -> int:
    """The most problems of which `observed` is at most `harmed`."""
    problems = int((harmed + 0.5 * 10.0**-_PLACES) / observed) + 1
    while math.ceil(round(observed * problems, _PLACES)) > harmed:
        problems -= 1
    return problems


def _first(holds: Callable[[int], bool], start: int) -> int:
    """The first number from `start` on for which something holds that holds from there on."""
    step, low = 1, start - 1
    while not holds(low + step):
        low, step = low + step, 2 * step
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
