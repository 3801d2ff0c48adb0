"""Two constants compared: exactly where both are rational, relatively else; decimals as rounded ones.

A decimal stands for a value that it is when rounded to what it writes, six significant digits at least: `0.333333` is
1/3, `0.33` is not, 1.6e-19 is not 1.7e-19. From seven digits on it may be cut off instead; from fifteen on it may differ
by 1e-14 of itself, as floating-point results do. Two decimals of the same precision are equal only digit by digit.
"""

import re
from fractions import Fraction
from typing import Any

_BITS = 1 << 18  # of an exact value, and of what is evaluated at all
_DECIMAL = re.compile(r"-?\s*(\d*)\.(\d+)\s*(?:\\times\s*10\s*\^\s*(?:\{\s*(-?\d+)\s*\}|(\d)))?\s*")
_LEAST, _CUT, _FLOAT = 6, 7, 15  # significant digits
_REPEATED = re.compile(
    r"(?<![\d.])(\d*)\.(\d*)(?:\\(?:overline|bar|dot)\s*(?:\{\s*(\d+)\s*\}|(\d))|\((\d+)\))(?:\.\.\.)?"
)
_GOES_ON = re.compile(r"(?<![\d.])(\d*)\.(\d*?)(\d{1,6}?)(\3{2,}|(?<=\d{3})\3)\.\.\.")


class TooLarge(ValueError):
    """A constant whose evaluation would not end in time."""


def repeating(latex: str) -> str:
    r"""Repeating decimals as fractions: `0.1\overline{6}`, `0.1(6)`, `0.1666...`."""

    def fraction(match: re.Match) -> str:
        fixed, period = match[2], next(filter(None, match.groups()[2:]))
        scale = 10 ** len(fixed)
        value = Fraction(int(match[1] or 0)) + Fraction(int(fixed or 0), scale)
        value += Fraction(int(period), scale * (10 ** len(period) - 1))
        return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"

    return _GOES_ON.sub(fraction, _REPEATED.sub(fraction, latex)).replace("...", "")


def exact(expression: Any) -> Fraction | None:
    """The rational value of a constant; None where it is none. Raises TooLarge."""
    if expression.is_Rational:
        return _held(Fraction(int(expression.p), int(expression.q)))
    if expression.is_Float:
        return _held(Fraction(str(expression))) if expression.is_finite else None
    kind = expression.func.__name__
    if kind not in ("Add", "Mul", "Pow", "factorial", "UnevaluatedExpr", "binomial"):
        return None
    values = [exact(argument) for argument in expression.args]
    if any(value is None for value in values):
        return None
    return _combined(kind, values)


def _combined(kind: str, values: list[Fraction]) -> Fraction | None:
    if kind == "Add":
        return _held(sum(values, Fraction(0)))
    if kind == "Mul":
        product = Fraction(1)
        for value in values:
            product = _held(product * value)
        return product
    if kind == "UnevaluatedExpr":
        return values[0]
    if kind == "Pow":
        return _power(*values)
    if any(value.denominator != 1 or not 0 <= value <= 20000 for value in values):
        raise TooLarge
    import math

    return _held(Fraction(math.factorial(int(values[0])) if kind == "factorial" else math.comb(*map(int, values))))


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        return _root(base, exponent)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if base not in (0, 1, -1) and abs(exponent) * bits > _BITS:
        raise TooLarge
    if base in (0, 1, -1):
        exponent = Fraction(exponent % 2 if base == -1 else min(max(exponent, -1), 1))
    return None if base == 0 and exponent < 0 else _held(base ** int(exponent))


def _root(base: Fraction, exponent: Fraction) -> Fraction | None:
    """A root that is rational (`\\sqrt{4}`); None of every other."""
    if base < 0 or exponent.denominator > 12 or max(base.numerator, base.denominator).bit_length() > 4096:
        if abs(exponent) > _BITS:
            raise TooLarge
        return None
    parts = [_whole_root(part, exponent.denominator) for part in (base.numerator, base.denominator)]
    return None if None in parts else _power(Fraction(*parts), Fraction(exponent.numerator))


def _whole_root(value: int, degree: int) -> int | None:
    low, high = 0, 1 << (value.bit_length() // degree + 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if middle**degree < value else (low, middle)
    return low if low**degree == value else None


def _held(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _BITS:
        raise TooLarge
    return value


def written(latex: str) -> tuple[int, Fraction] | None:
    """(significant digits, unit in the last place) of a formula that is a plain decimal; None of every other."""
    match = _DECIMAL.fullmatch(latex)
    if not match or len(latex) > 60:
        return None
    power = int(match[3] or match[4] or 0)
    if abs(power) > 1000:
        return None
    return len((match[1] + match[2]).lstrip("0")), Fraction(10) ** (power - len(match[2]))


def stands_for(decimal: tuple[int, Fraction], value: Any, other: Any) -> bool:
    """Whether a decimal of that precision stands for another value (Fraction, or sympy number, both)."""
    digits, unit = decimal
    apart = abs(value - other)
    if digits < _LEAST:
        return False
    if apart <= unit / 2 or (digits >= _CUT and apart < unit):
        return True
    return digits >= _FLOAT and apart <= abs(other) / 10**14


def near(one: Any, other: Any) -> bool:
    """Whether two complex numbers, known to 40 digits, are the same."""
    apart = abs(one - other)
    return bool(apart <= max(abs(one), abs(other)) * 1e-20)
