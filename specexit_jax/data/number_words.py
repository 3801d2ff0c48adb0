"""Whole numbers written out: "two hundred and five" → 205."""

import re

_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {word: value for value, word in enumerate(_ONES)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}
_TIMES = {"hundred": 100, "thousand": 1000, "million": 10**6}
_ANY = "|".join(sorted([*_VALUES, *_TIMES], key=len, reverse=True))
_NUMBER = re.compile(rf"\b(?:(?:minus|negative)\s+)?(?:{_ANY})(?:[\s-]+(?:and\s+)?(?:{_ANY}))*\b", re.IGNORECASE)


def in_digits(text: str) -> str:
    """The text with the numbers that it writes out in digits."""
    return _NUMBER.sub(lambda match: str(_value(match[0].lower())), text)


def _value(words: str) -> int:
    whole, part, sign = 0, 0, 1
    for word in re.split(r"[\s-]+", words):
        if word in ("minus", "negative"):
            sign = -1
        elif word in _VALUES:
            part += _VALUES[word]
        elif word == "hundred":
            part = max(part, 1) * 100
        elif word in _TIMES:
            whole, part = whole + max(part, 1) * _TIMES[word], 0
    return sign * (whole + part)
