"""Units behind (or, of money, before) a number: which letters are one, and how two of them compare.

Known units only: letters that name none are factors (`2xyz`), words that name none are what is counted (`72 clips`).
"""

import dataclasses
import re
from fractions import Fraction

_PREFIXES = {
    "k": 3,
    "M": 6,
    "G": 9,
    "T": 12,
    "c": -2,
    "m": -3,
    "µ": -6,
    "μ": -6,
    "u": -6,
    "n": -9,
    "p": -12,
    "d": -1,
    "h": 2,
}
_LONG = {
    "kilo": 3,
    "mega": 6,
    "giga": 9,
    "tera": 12,
    "centi": -2,
    "milli": -3,
    "micro": -6,
    "nano": -9,
    "pico": -12,
    "deci": -1,
}
# symbol, names, (value, dimensions): what metric prefixes go before
_METRIC = [
    ("m", "meter metre", 1, {"L": 1}), ("g", "gram gramme", 1, {"M": 1}), ("s", "second", 1, {"T": 1}),
    ("A", "ampere amp", 1, {"I": 1}),
    ("mol", "mole", 1, {"N": 1}), ("L", "liter litre", Fraction(1, 1000), {"L": 3}), ("l", "", Fraction(1, 1000), {"L": 3}),
    ("N", "newton", 1000, {"M": 1, "L": 1, "T": -2}), ("J", "joule", 1000, {"M": 1, "L": 2, "T": -2}),
    ("W", "watt", 1000, {"M": 1, "L": 2, "T": -3}), ("Pa", "pascal", 1000, {"M": 1, "L": -1, "T": -2}),
    ("V", "volt", 1000, {"M": 1, "L": 2, "T": -3, "I": -1}), ("Ω", "ohm", 1000, {"M": 1, "L": 2, "T": -3, "I": -2}),
    ("C", "coulomb", 1, {"I": 1, "T": 1}), ("F", "farad", Fraction(1, 1000), {"M": -1, "L": -2, "T": 4, "I": 2}),
    ("H", "henry", 1000, {"M": 1, "L": 2, "T": -2, "I": -2}), ("T", "tesla", 1000, {"M": 1, "T": -2, "I": -1}),
    ("Hz", "hertz", 1, {"T": -1}), ("eV", "electronvolt", 1, {"eV": 1}), ("cal", "calorie", 1, {"cal": 1}),
    ("bit", "bit", 1, {"bit": 1}),
    ("B", "byte", 8, {"bit": 1}), ("K", "kelvin", 1, {"K": 1}),
]  # fmt: skip
_OTHERS = [
    ("min minute", 60, {"T": 1}), ("h hr hour", 3600, {"T": 1}), ("sec", 1, {"T": 1}), ("day", 86400, {"T": 1}),
    ("week wk", 604800, {"T": 1}), ("month", 1, {"month": 1}), ("year yr", 12, {"month": 1}), ("decade", 120, {"month": 1}),
    ("in inch inches", Fraction(127, 5000), {"L": 1}), ("ft foot feet", Fraction(381, 1250), {"L": 1}),
    ("yd yard", Fraction(1143, 1250), {"L": 1}), ("mi mile", Fraction(201168, 125), {"L": 1}),
    ("mph", Fraction(1397, 3125), {"L": 1, "T": -1}), ("kph kmh", Fraction(5, 18), {"L": 1, "T": -1}),
    ("lb lbs pound", Fraction(45359237, 100000), {"M": 1}), ("oz ounce", Fraction(45359237, 1600000), {"M": 1}),
    ("ton tonne", 10**6, {"M": 1}), ("ha hectare", 10**4, {"L": 2}), ("acre", 1, {"acre": 1}), ("gal gallon", 1, {"gallon": 1}),
    ("qt quart", Fraction(1, 4), {"gallon": 1}), ("pt pint", Fraction(1, 8), {"gallon": 1}),
    ("cup", Fraction(1, 16), {"gallon": 1}),
    ("cc", Fraction(1, 10**6), {"L": 3}), ("atm", 101325000, {"M": 1, "L": -1, "T": -2}), ("rpm", 1, {"turn": 1, "T": -1}),
    ("° deg degree", 1, {"degree": 1}), ("rad radian", 1, {"radian": 1}),
    ("°C celsius", 1, {"°C": 1}), ("°F fahrenheit", 1, {"°F": 1}),
    ("$ dollar usd buck", 1, {"$": 1}), ("€ euro eur", 1, {"€": 1}), ("£ gbp", 1, {"£": 1}),
    ("¥ yen jpy yuan rmb cny", 1, {"¥": 1}),
    ("₹ rupee rs inr", 1, {"₹": 1}), ("¢ cent penny pennies pence", Fraction(1, 100), {"$": 1}), ("chf franc", 1, {"CHF": 1}),
]  # fmt: skip
_WORD = re.compile(
    r"\s*(?:([/*·⋅.,]|\\cdot|\\times|\bper\b|\band\b)\s*)?([^\W\d_]+|[$€£¥₹¢]|°[CF]?)\.?\s*(?:\^?\s*(-?\d)(?!\d)|\^\s*\{\s*(-?\d)\s*\})?"
)
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}
_VOWEL = re.compile(r"[aeiouAEIOU]")


@dataclasses.dataclass(frozen=True)
class Unit:
    """factor: in base units (exact); dimensions: (base, exponent), sorted; none of what is merely counted."""

    factor: Fraction = Fraction(1)
    dimensions: tuple[tuple[str, int], ...] = ()


def _table() -> dict[str, tuple[Fraction, dict[str, int]]]:
    found: dict[str, tuple[Fraction, dict[str, int]]] = {}
    for symbol, names, value, dimensions in _METRIC:
        for prefix, power in {"": 0, **_PREFIXES}.items():
            found.setdefault(prefix + symbol, (Fraction(value) * Fraction(10) ** power, dimensions))
        for name in names.split():
            for prefix, power in {"": 0, **_LONG}.items():
                found[prefix + name] = Fraction(value) * Fraction(10) ** power, dimensions
    for names, value, dimensions in _OTHERS:
        for name in names.split():
            found[name] = Fraction(value), dimensions
    return found


_KNOWN = _table()


def unit(text: str, apart: bool = True, words: bool = False) -> Unit | None:
    """The unit that a text names; None where it names none, and none of what can be counted.

    apart: a space, or a LaTeX text command, stands between it and its number: only then is one letter a unit. words: it
    is the content of a text command: only then are short unknown words no factors.
    """
    text = re.split(r"\s+(?:of|for|in total|altogether|each|left|more|and nothing)\b|\(", text.strip(), maxsplit=1)[
        0
    ].strip(" .,;")
    if not text:
        return Unit()
    factor, dimensions, at, sign, power, counted = Fraction(1), {}, 0, 1, 1, False
    while at < len(text):
        match = _WORD.match(text, at)
        if not match:
            return None
        at, word = match.end(), match[2]
        sign = -1 if match[1] in ("/", "per") else sign
        if word.lower() in ("square", "sq", "cubic", "cu"):
            power = _POWERS[word.lower()]
            continue
        if word.lower() in ("squared", "cubed"):
            continue
        after = re.match(r"\s*(squared|cubed)\b", text[at:])
        power *= int(match[3] or match[4] or 1) * (_POWERS[after[1]] if after else 1)
        known = _known(word)
        if known is None or (len(word) == 1 and word.isalpha() and not apart and not words):
            if not _countable(word, apart, words):
                return None
            counted = True
        else:
            factor *= known[0] ** (sign * power)
            for base, exponent in known[1].items():
                dimensions[base] = dimensions.get(base, 0) + exponent * sign * power
        power = 1
    dimensions = tuple(sorted((base, exponent) for base, exponent in dimensions.items() if exponent))
    return Unit() if counted else Unit(factor, dimensions)


def _known(word: str) -> tuple[Fraction, dict[str, int]] | None:
    for name in (word, word.lower(), word.lower().removesuffix("s"), word.lower().removesuffix("es")):
        if name in _KNOWN and (name == word or len(name) > 2 or name in ("in", "ft", "mi", "yr", "hr")):
            return _KNOWN[name]
    return None


def _countable(word: str, apart: bool, words: bool) -> bool:
    """Whether what no unit is called can be what is counted (`clips`), not factors (`xyz`)."""
    if words or len(word) < 3:
        return words and word.isalpha()
    return (
        word.isalpha()
        and bool(_VOWEL.search(word if apart and len(word) > 3 else word[1:]))
        and (apart or len(word) > 3)
    )


def ratio(one: Unit | None, other: Unit | None) -> Fraction | None:
    """What the number with the first unit is to be multiplied by to compare it with that of the second; None where the
    two measure different things. Where one is left out, or says only more of the other (dollars, dollars a day), 1."""
    if one is None or other is None or not one.dimensions or not other.dimensions:
        return Fraction(1)
    if one.dimensions == other.dimensions:
        return one.factor / other.factor
    pair = sorted((set(one.dimensions), set(other.dimensions)), key=len)
    return Fraction(1) if pair[0] < pair[1] else None
