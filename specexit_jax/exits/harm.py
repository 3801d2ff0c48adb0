"""Tests of "the mean harm a problem is above epsilon", and upper limits of it by the same tests.

The harm of a problem is the share of its traces that an exit turned from right to wrong. Problems are independent; samples of
one are not, and are never counted as if they were. Both tests are valid too where problems are drawn task by task in fixed
numbers; the mean is then over that mixture.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from specexit_jax.exits.units import Units, means_of

_GROWTH, _BETS = 1.5, 4  # bets a factor apart


def p_value(harmed: int, problems: int, epsilon: float) -> float:
    """P(at most `harmed` of `problems`) if the risk were exactly epsilon: small values reject "risk > epsilon".

    Exact for problems of one risk. Of problems whose risks differ, with mean epsilon, fewer harmed than epsilon `problems` - 1
    are no likelier (Hoeffding 1956), so that a value below about 0.4 is valid there.
    """
    from scipy.stats import binom  # half a second of imports, which decoding by a policy does not need

    return float(binom.cdf(harmed, problems, epsilon))


def risk_upper(harmed: int, problems: int, delta: float) -> float:
    """The exact one-sided upper limit of a binomial share at level 1 - delta (Clopper and Pearson)."""
    from scipy.stats import beta

    return 1.0 if harmed >= problems else float(beta.ppf(1.0 - delta, harmed + 1, problems - harmed))


@dataclasses.dataclass(frozen=True)
class Binomial:
    """The exact test of one trace a problem: of the sample of the lowest number where a problem has several."""

    name = "binomial"

    def losses(self, harmed: Bool[np.ndarray, "G N"], units: Units) -> Float[np.ndarray, "G P"]:
        """The loss of each problem that the test uses."""
        return (harmed if units.one_each else harmed[:, units.first]).astype(np.float64)

    def p_value(self, losses: Float[np.ndarray, " P"], epsilon: float) -> float:
        return p_value(int(losses.sum()), len(losses), epsilon)

    def expected_p(self, losses: Float[np.ndarray, " P"], epsilon: float, problems: int) -> float:
        """The p-value if `problems` problems had these losses on average."""
        return p_value(round(float(losses.mean()) * problems), problems, epsilon)

    def harmed(self, losses: Float[np.ndarray, " P"], units: Units) -> int:
        """Number of harmed traces among those that the test uses."""
        return int(losses.sum())

    def upper(self, losses: Float[np.ndarray, " P"], delta: float) -> float:
        """The upper limit of the mean harm at level 1 - delta."""
        return risk_upper(int(losses.sum()), len(losses), delta)


@dataclasses.dataclass(frozen=True)
class Betting:
    """A betting test of the mean of losses in [0, 1] (Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables
    by betting", JRSS B 86).

    Were the mean epsilon or more, a capital of 1 that is multiplied by 1 + bet (epsilon - loss) at every problem would be expected
    to be 1 at most; so 1 / capital is a p-value (Markov). The bets do not change from problem to problem: the expectation is
    then a product that is largest where all problems have the same mean, hence valid too for fixed numbers of problems a task,
    and the order is of no account. The capital is divided among four bets, from the best one for losses of 0 or 1 upwards,
    which suits losses of less variance.
    """

    bets: tuple[float, ...]
    name = "betting"

    @classmethod
    def of(cls, problems: int, epsilon: float, delta: float) -> "Betting":
        """The bets for a test at these: known before a loss is seen."""
        least = np.sqrt(2.0 * np.log(1.0 / delta) / (problems * epsilon))
        return cls(tuple(float(min(least * _GROWTH**number, 1.0)) for number in range(_BETS)))

    def losses(self, harmed: Bool[np.ndarray, "G N"], units: Units) -> Float[np.ndarray, "G P"]:
        return means_of(harmed, units.problem)

    def p_value(self, losses: Float[np.ndarray, " P"], epsilon: float) -> float:
        return self.expected_p(losses, epsilon, len(losses))

    def expected_p(self, losses: Float[np.ndarray, " P"], epsilon: float, problems: int) -> float:
        values, counts = np.unique(losses, return_counts=True)
        bets = np.asarray(self.bets)[:, None]
        with np.errstate(divide="ignore"):  # a capital may be lost
            log_capital = np.log1p(bets * (epsilon - values)) @ counts * (problems / len(losses))
        most = float(log_capital.max())
        if most == -np.inf:
            return 1.0
        return float(np.exp(min(0.0, -most - np.log(np.exp(log_capital - most).mean()))))

    def harmed(self, losses: Float[np.ndarray, " P"], units: Units) -> int:
        return round(float(losses @ np.bincount(units.problem)))

    def upper(self, losses: Float[np.ndarray, " P"], delta: float) -> float:
        """The upper limit, by root finding: the p-value decreases in epsilon."""
        if self.p_value(losses, 1.0) > delta:
            return 1.0
        from scipy.optimize import brentq

        return float(brentq(lambda epsilon: self.p_value(losses, epsilon) - delta, 0.0, 1.0, xtol=1e-12))


def harm_test(
    units: Units,
    epsilon: float,
    delta: float,
    development: tuple[Bool[np.ndarray, "G M"], Units] | None = None,
) -> Binomial | Betting:
    """The test for the problems of `units`: exact where each has one trace; else the one of first samples or of all of them by
    bets, whichever would pass more steps of the path with the losses of the development split.

    development: which of its traces each step of the path harms, and their units; without it, bets. It must not be the data
    that is tested.
    """
    if units.one_each:
        return Binomial()
    betting = Betting.of(units.problems, epsilon, delta)
    if development is None:
        return betting
    harmed, own = development
    losses = means_of(harmed, own.problem)
    return max((Binomial(), betting), key=lambda test: _reach(test, losses, epsilon, delta, units.problems))


def _reach(test: Binomial | Betting, losses: Float[np.ndarray, "G P"], epsilon: float, delta: float, problems: int):
    """(how many steps would pass, minus the p-value of the last one that passes; of the first step where none does)."""
    last = 1.0
    for step, row in enumerate(losses):
        found = test.expected_p(row, epsilon, problems)
        if found > delta:
            return step, -(last if step else found)
        last = found
    return len(losses), -last
