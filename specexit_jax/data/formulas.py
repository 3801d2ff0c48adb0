"""A stated answer as the formulas that it lists: LaTeX without dress, units, currency and the names before equals signs."""

import dataclasses
import re
import unicodedata

from specexit_jax.data.number_words import in_digits

_SIGNS = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ",
    "≥": r"\ge ", "≈": r"\approx ", "∈": r"\in ", "∪": r"\cup ", "±": r"\pm ", "°": "", "⁄": "/", "，": ",", "∅": r"\emptyset ",
}  # fmt: skip
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_WRAPPED = re.compile(r"\\(text(?:bf|it|rm|sf)?|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]*)\}")
_CURRENCY = re.compile(r"\\?[$€£¥](?=\s*\d)")
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_UNIT = re.compile(
    r"(?<=[\d}!)])\s*(?<![A-Za-z])[A-Za-z][A-Za-z./]+(?:\s+[A-Za-z./]+)*(?:\s*\^\s*(?:\d|\{-?\d\}))?\.?$"
)
_FUNCTIONS = ("sin", "cos", "tan", "log", "ln", "sqrt", "pi", "exp")
_EQUALS = r"(?<![\\<>!])="
_NAME = re.compile(r"\s*[A-Za-z](?:_\{?\w+\}?)?'?(?:\(\s*[A-Za-z]\s*\))?\s*")
_GROUPED = re.compile(r"(?<![\d.,])(\d{1,3}(?:,\d{3})+)(?![\d,])")


@dataclasses.dataclass(frozen=True)
class Formula:
    """One element of an answer: LaTeX, or words where `words` says so; percent: stated in percent."""

    latex: str
    percent: bool = False
    words: bool = False


def listed(statement: str) -> tuple[Formula, ...]:
    """The elements of a statement that is a formula, a list of formulas, or words; () where it states nothing.

    An order counts within brackets alone: the caller compares the elements of a list as a set.
    """
    text = _plain(statement)
    if text.startswith(r"\{") and text.endswith(r"\}"):
        text = text[2:-2]
    parts = [part.strip() for part in _split(text)]
    return tuple(formula for part in parts if part for formula in _elements(part))


def _elements(part: str) -> list[Formula]:
    percent = bool(re.search(r"\\?%|\bpercent\b", part, re.IGNORECASE))
    part = re.sub(r"\\?%|\b[Pp]ercent\b", "", part)
    part = re.sub(r"^(?:\\approx|about|approximately|exactly|only|around)\s*", "", part, flags=re.IGNORECASE).strip()
    part = _UNIT.sub("", _unwrapped(part)).strip().rstrip(".;:")
    if re.fullmatch(r"[\W\d_]*", part) is None and _is_words(part):
        return [Formula(re.sub(r"[\W_]+", " ", part).strip().casefold(), words=True)]
    part = re.sub(r"(?<![\d.])(\d+(?:\.\d+)?)[eE]([+-]?\d+)(?!\w)", r"\1\\times 10^{\2}", part)
    part = re.sub(r"(?<![\d.}^_])(\d+)\s*\\frac\s*(\d)\s*(\d)(?!\d)", r"(\1+\\frac{\2}{\3})", part)
    part = re.sub(r"(?<![\d.}^_])(\d+)\s*(\\frac\s*\{\d+\}\s*\{\d+\})", r"(\1+\2)", part)
    part = re.sub(r"^(-?)(\d+)\s+(\d+)\s*/\s*(\d+)$", r"\1(\2+\\frac{\3}{\4})", part)
    if not part:
        return []
    if r"\pm" in part:
        return [Formula(part.replace(r"\pm", sign).strip().removeprefix("+"), percent) for sign in "+-"]
    return [Formula(part, percent)]


def comparable(one: str, other: str) -> tuple[str, str]:
    """Two formulas without the names before their equals signs (`x = 5`, `f(x) = 5`, `5 = x`); without the whole left
    side, as in `m + n = 5`, where only one of them has one. Two equations stay what they are."""
    values = _value(one), _value(other)
    if all(values):
        return values
    if "=" in one and "=" in other:
        return one, other
    return tuple(
        value or re.split(_EQUALS, latex)[-1].strip() for value, latex in zip(values, (one, other), strict=True)
    )


def _value(latex: str) -> str | None:
    """What a formula says of one name, or all of it without an equals sign; None of an equation."""
    sides = re.split(_EQUALS, latex)
    if len(sides) == 1:
        return latex
    if len(sides) == 2 and _NAME.fullmatch(sides[0]):
        return sides[1].strip()
    return sides[0].strip() if len(sides) == 2 and _NAME.fullmatch(sides[1]) else None


def _plain(text: str) -> str:
    """Without what only decorates; in LaTeX's signs."""
    text = re.sub(r"\d*[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞]", _vulgar, text)
    text = re.sub(r"([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", lambda m: "^{" + m[1].translate(_RAISED) + "}", text)
    text = re.sub(r"√\s*(\d+|[A-Za-z]|\([^()]*\))", r"\\sqrt{\1}", text)
    text = "".join(_SIGNS.get(sign, sign) for sign in text)
    text = re.sub(r"(?<=\d)\s*(?:\\times|\*|x)\s*(?=10\s*\^)", r"\\times ", text)
    text = _CURRENCY.sub("", text)
    text = re.sub(r"\\[()\[\]]|\$|\*\*|(?<![\w}])`+|`+$|\\displaystyle", " ", text)
    text = re.sub(r"\\(?:left|right|bigl?|bigr|Bigl?|Bigr)(?![A-Za-z])", "", text)
    text = re.sub(r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree", "", text)
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r",\s*\\!\s*", ",", text).replace(r"\!", "").replace("{,}", ",")
    text = re.sub(r"(?<=\d)(?:\\[,;: ]|~)(?=\d{3}(?!\d))", ",", text)
    text = re.sub(r"(?<!\\)\\[,;: ]|~|\\q?quad(?![A-Za-z])", " ", text)
    return in_digits(_connected(text)).strip().rstrip(".").strip()


def _vulgar(match: re.Match) -> str:
    over, under = unicodedata.normalize("NFKC", match[0][-1]).split("⁄")
    return match[0][:-1] + rf"\frac{{{over}}}{{{under}}}"


def _connected(text: str) -> str:
    """`1 \\text{ and } -2`, `x = 1 or x = -2` → their elements between commas."""
    text = re.sub(r"\\(?:text|mathrm|mbox)\s*\{\s*,?\s*(?:and|or)\s*\}", " , ", text)
    return re.sub(r"(?<=[\d})\]\w])\s*,?\s+(?:and|or)\s+(?=[-+\\({\[\d]|[A-Za-z]\s*=)", " , ", text)


def _unwrapped(part: str) -> str:
    """Without text commands: their words go where they are units behind a number, and stay where nothing else is."""
    rest = _WRAPPED.sub("", part)
    if re.search(r"\d|\\pi|\\frac|\\sqrt", rest):
        kept = re.sub(r"\s*" + _WRAPPED.pattern + r"(?:\s*\^\s*(?:\d|\{-?\d\}))?", "", part)
        return kept if re.search(r"[\d\w]", kept) else rest
    return _WRAPPED.sub(lambda match: match[2], part)


def _is_words(part: str) -> bool:
    found = [
        word
        for word in _PROSE.findall(re.sub(r"\\(?:begin|end)\{\w+\}|\\[A-Za-z]+", "", part))
        if word not in _FUNCTIONS
    ]
    return any(not _product(word) for word in found) or bool(re.fullmatch(r"\(?[A-Z]\)?", part))


def _product(word: str) -> bool:
    """Letters that are factors (`xy`, `abc`), not a word."""
    return len(word) <= 3 and word.islower() and not re.search(r"[aeiou]", word[1:])


def _split(text: str) -> list[str]:
    """The parts between commas outside brackets; digits that commas group there are one number."""
    depth, start, parts = 0, 0, []
    grouped = [match.span() for match in _GROUPED.finditer(text)]
    for place in re.finditer(r"\\[A-Za-z]+|\\.|[()\[\]{},;]", text):
        sign = place[0].removeprefix("\\")
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(sign, 0)
        if depth == 0 and place[0] in ",;" and not any(low < place.start() < high for low, high in grouped):
            parts.append(text[start : place.start()])
            start = place.end()
    parts.append(text[start:])
    return [
        part if part.lstrip()[:1] in "([{" else _GROUPED.sub(lambda m: m[1].replace(",", ""), part) for part in parts
    ]
