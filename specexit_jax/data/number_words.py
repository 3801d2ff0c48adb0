"""Numbers written out: "two hundred and five" → 205, "two thirds" → 2/3, "twelve point five" → 12.5, "3 million"."""

import re
from fractions import Fraction

_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {word: value for value, word in enumerate(_ONES)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}
_DOZEN = re.compile(r"\b(half )?a dozen\b", re.IGNORECASE)
_TIMES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
          "ninth": 9, "tenth": 10, "twelfth": 12, "twentieth": 20, "hundredth": 100}  # fmt: skip


def _any(words) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_WORD = _any([*_VALUES, "hundred", *_TIMES])
_PART = rf"(?:{_any([*_PARTS, *(word + 's' for word in _PARTS if word not in ('half', 'halves'))])})"
_NUMBER = re.compile(
    rf"\b(?:(?:minus|negative)[ ])?(?:\ba[ ](?=hundred|thousand|million|billion))?(?:{_WORD})\b(?:(?:[ -]|[ ]and[ ])(?:{_WORD})\b)*"
    rf"(?P<point>[ ]point(?:[ -](?:{_any(_ONES[:10])})\b)+)?",
    re.IGNORECASE,
)
_PRONOUN = re.compile(
    r"(?:\b(?:the|this|that|each|every|no|any|some|other|another|only|right|correct|wrong|last|first|next|which|\w+(?:er|est))\s+)$",
    re.IGNORECASE,
)
_FRACTION = re.compile(rf"(?<![\w.])(-?\d+|an?)[ -]({_PART})\b(?=(\s+of\b)?)(?=(\W*$)?)", re.IGNORECASE)
_AND_PART = re.compile(
    rf"(?<![\w.])(-?\d+) and (?:an?|one|1)[ -]({_PART})\b|(?<![\w.])(-?\d+) and (\d+)/(\d+)", re.IGNORECASE
)
_SCALED = re.compile(
    rf"(?<![\w.])(-?(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?)[ ](hundred|dozen|{_any(_TIMES)})\b", re.IGNORECASE
)
_MOST_WORDS = 24  # of one number; what is longer is a loop


def in_digits(text: str) -> str:
    """The text with the numbers that it writes out in digits; what is no well-formed number stays as it is."""
    text = re.sub(r"[ \t]+", " ", text)
    text = _SCALED.sub(_scaled, _DOZEN.sub(lambda match: "6" if match[1] else "12", text))
    text = _NUMBER.sub(lambda match: _digits(text, match), text)
    text = re.sub(r"^\W*(?:an? |one[ -]|1[ -])?half\W*$", "1/2", text, flags=re.IGNORECASE)
    text = _AND_PART.sub(_mixed, text)
    return _FRACTION.sub(_fraction, text)


def _digits(text: str, match: re.Match) -> str:
    words = [word for word in re.split(r"[ -]+", match[0].lower()) if word != "and"]
    before = text[max(0, match.start() - 20) : match.start()]
    if len(words) > _MOST_WORDS or (words == ["one"] and _PRONOUN.search(before)):
        return match[0]
    sign = words[0] in ("minus", "negative")
    words = words[sign:]
    digits = ""
    if "point" in words:
        place = words.index("point")
        words, digits = words[:place], "." + "".join(str(_VALUES[word]) for word in words[place + 1 :])
    value = _value(words)
    return match[0] if value is None else f"{'-' * sign}{value}{digits}"


def _value(words: list[str]) -> int | None:
    """The whole number that the words spell; None where they spell none ("two three")."""
    whole, part, below, last = 0, 0, 1000, 10**15
    for word in words:
        if word == "a":
            part, below = 1, 1
        elif word == "hundred":
            if not 0 < part < 20:
                return (100 if words == ["hundred"] else None) if not part else None
            part, below = part * 100, 100
        elif word in _TIMES:
            if _TIMES[word] >= last or (not part and words != [word]):
                return None
            whole, last = whole + max(part, 1) * _TIMES[word], _TIMES[word]
            part, below = 0, 1000
        elif _VALUES[word] >= below or (part and not _VALUES[word]):
            return None
        else:
            part, below = part + _VALUES[word], 10 if _VALUES[word] >= 20 else 1
    return whole + part


def _part(word: str) -> int:
    word = word.lower()
    return _PARTS.get(word) or _PARTS[word.removesuffix("s")]


def _mixed(match: re.Match) -> str:
    whole = match[1] or match[3]
    part = Fraction(int(match[4]), int(match[5]) or 1) if match[3] else Fraction(1, _part(match[2]))
    value = int(whole) + (-part if whole.startswith("-") else part)
    return f"{value.numerator}/{value.denominator}"


def _fraction(match: re.Match) -> str:
    """`two thirds`; `a third` only where it is of something, or the end."""
    count = match[1].lower()
    if count in ("a", "an") and not match[3] and not match[4] and match[2].lower() != "half":
        return match[0]
    return f"{1 if count in ('a', 'an') else count}/{_part(match[2])}"


def _scaled(match: re.Match) -> str:
    if len(match[1]) > 20:
        return match[0]
    value = Fraction(match[1].replace(",", "")) * {"hundred": 100, "dozen": 12, **_TIMES}[match[2].lower()]
    return str(value) if value.denominator == 1 else str(float(value))
