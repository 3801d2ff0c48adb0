"""Tests of the hypothesis "the risk is above epsilon", and upper limits of the risk by the same tests.

The harm of a problem is the share of its traces that an exit harms; the risk is its expectation. Problems are independent.
Several samples of a problem are not, and are one observation. Both tests are also valid where a fixed number of problems is
drawn from each task; the risk is then the mean over that mixture.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from specexit_jax.exits.units import Units, means_of

_GROWTH, _BETS = 1.5, 4  # the ratio of each bet to the next smaller one, the number of bets


def p_value(harmed: int, problems: int, epsilon: float) -> float:
    """P(at most `harmed` of `problems`) if the risk were exactly epsilon. Small values reject "risk > epsilon".

    It is exact where all problems have the same risk. Where risks differ with mean epsilon, at most epsilon x problems - 1
    harmed problems are no more likely than under equal risks (Hoeffding 1956). So the p-value is valid there too, if it is
    below about 0.4.
    """
    from scipy.stats import binom  # imported here because it takes half a second, and decoding does not need it

    return float(binom.cdf(harmed, problems, epsilon))


def risk_upper(harmed: int, problems: int, delta: float) -> float:
    """The exact one-sided upper confidence limit of a binomial share at level 1 - delta (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    return 1.0 if harmed >= problems else float(beta.ppf(1.0 - delta, harmed + 1, problems - harmed))


@dataclasses.dataclass(frozen=True)
class Binomial:
    """The exact binomial test, with one trace a problem: the sample with the lowest number where there are several."""

    name = "binomial"

    def losses(self, harmed: Bool[np.ndarray, "G N"], units: Units) -> Float[np.ndarray, "G P"]:
        """The loss of each problem, 0 or 1, under each of G settings. harmed: of N traces."""
        return (harmed if units.one_each else harmed[:, units.first]).astype(np.float64)

    def p_value(self, losses: Float[np.ndarray, " P"], epsilon: float) -> float:
        """Small values reject "risk > epsilon"."""
        return p_value(int(losses.sum()), len(losses), epsilon)

    def expected_p(self, losses: Float[np.ndarray, " P"], epsilon: float, problems: int) -> float:
        """The p-value that `problems` problems would give if their mean loss were that of `losses`."""
        return p_value(round(float(losses.mean()) * problems), problems, epsilon)

    def harmed(self, losses: Float[np.ndarray, " P"], units: Units) -> int:
        """The number of harmed traces among those that the test uses."""
        return int(losses.sum())

    def upper(self, losses: Float[np.ndarray, " P"], delta: float) -> float:
        """The upper confidence limit of the risk at level 1 - delta."""
        return risk_upper(int(losses.sum()), len(losses), delta)


@dataclasses.dataclass(frozen=True)
class Betting:
    """A betting test of the mean of losses in [0, 1] (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables
    by betting", JRSS B 86). It uses all traces of a problem.

    A capital of 1 is multiplied by 1 + bet x (epsilon - loss) at every problem. If the mean loss is epsilon or more, the expected
    capital is at most 1, so 1 / capital is a p-value by Markov's inequality. The bet is the same for all problems. So their order
    does not matter, and the expected capital is a product that is largest where all problems have the same mean loss: the
    p-value is also valid for a fixed number of problems from each task. The capital is divided among four bets. The smallest is
    the best one for losses of 0 and 1; larger bets suit losses with less variance.
    """

    bets: tuple[float, ...]
    name = "betting"

    @classmethod
    def of(cls, problems: int, epsilon: float, delta: float) -> "Betting":
        """The test with bets for these values; the bets do not depend on the losses."""
        least = np.sqrt(2.0 * np.log(1.0 / delta) / (problems * epsilon))
        return cls(tuple(float(min(least * _GROWTH**number, 1.0)) for number in range(_BETS)))

    def losses(self, harmed: Bool[np.ndarray, "G N"], units: Units) -> Float[np.ndarray, "G P"]:
        """The share of each problem's traces that are harmed, under each of G settings."""
        return means_of(harmed, units.problem)

    def p_value(self, losses: Float[np.ndarray, " P"], epsilon: float) -> float:
        """Small values reject "risk > epsilon"."""
        return self.expected_p(losses, epsilon, len(losses))

    def expected_p(self, losses: Float[np.ndarray, " P"], epsilon: float, problems: int) -> float:
        """The p-value that `problems` problems would give if their losses were distributed like `losses`."""
        values, counts = np.unique(losses, return_counts=True)
        bets = np.asarray(self.bets)[:, None]
        with np.errstate(divide="ignore"):  # log 0: the capital of a bet can be lost
            log_capital = np.log1p(bets * (epsilon - values)) @ counts * (problems / len(losses))
        most = float(log_capital.max())
        if most == -np.inf:
            return 1.0
        return float(np.exp(min(0.0, -most - np.log(np.exp(log_capital - most).mean()))))

    def harmed(self, losses: Float[np.ndarray, " P"], units: Units) -> int:
        """The number of harmed traces."""
        return round(float(losses @ np.bincount(units.problem)))

    def upper(self, losses: Float[np.ndarray, " P"], delta: float) -> float:
        """The upper confidence limit of the risk at level 1 - delta, by root finding: the p-value falls with epsilon."""
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
    """The test for the problems of `units`.

    Where each problem has one trace it is the binomial test. Otherwise it is the binomial or the betting test, whichever would
    pass more steps of the path with the losses of the development split; without `development`, the betting test.

    development: (which of its traces each step of the path harms, their units). It must not be the data that is tested.
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
    """(the number of steps that would pass, minus the p-value of the last of them). Where none passes, that of the first step."""
    last = 1.0
    for step, row in enumerate(losses):
        found = test.expected_p(row, epsilon, problems)
        if found > delta:
            return step, -(last if step else found)
        last = found
    return len(losses), -last
