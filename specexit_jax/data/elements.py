"""One number, formula or word of an answer, with its percent sign and its unit."""

import dataclasses
import re
from fractions import Fraction

from specexit_jax.data.latex import without_text
from specexit_jax.data.number_words import in_digits
from specexit_jax.data.units import Unit, unit

_PERCENT = re.compile(
    r"\s*(?:\\?%|\\text\{\s*(?:\\?%|percent)\s*\}|(?:percent(?:age)?|per cent|pct)\b(?:\s+points?)?)", re.IGNORECASE
)
_MONEY = re.compile(r"(?<![A-Za-z])(\\\$|[$€£¥₹]|US\$|USD|EUR|GBP|CHF|INR|Rs\.?)\s*(?=-?[\d.])")
_TAIL = re.compile(  # letters behind a number
    r"(?:(?<=[\d}!)\]])|(?<=\\pi)\s|(?<=\\pi )|(?<=\\infty )|(?<=°))(\s*)"
    r"((?:\\text\s*\{|[A-Za-zµμΩ°$€£¥₹¢]|\\(?:Omega|mu|ohm)(?![A-Za-z])).*)$"
)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}|[^\W\d_a-zA-Z]{2,}")
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)\s*(?:([ap])\.?\s?m\.?)?", re.IGNORECASE)
_TURNS = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_FUNCTIONS = {
    "sin",
    "cos",
    "tan",
    "cot",
    "sec",
    "csc",
    "arcsin",
    "arccos",
    "arctan",
    "log",
    "ln",
    "exp",
    "max",
    "min",
    "gcd",
    "lcm",
    "mod",
}
_SHORT = {"is", "it", "if", "by", "my", "us"}  # words, though they could be factors
_NOTHING = ("no solution", "no solutions", "no real solution", "no real solutions", "empty set", "has no solution")
_ALL = ("all real numbers", "all reals", "every real number", "any real number", "all real values", "real numbers")
_MEANT = (
    dict.fromkeys(_NOTHING, r"\emptyset")
    | dict.fromkeys(_ALL, r"\mathbb{R}")
    | {
        "infinity": r"\infty",
        "positive infinity": r"\infty",
        "negative infinity": r"-\infty",
        "minus infinity": r"-\infty",
    }
    | {"does not exist": "dne"}
)
_THERE_IS = re.compile(r"^(?:there (?:is|are|exists?)|it has|the equation has|x is|the) ")


@dataclasses.dataclass(frozen=True)
class Item:
    """One element of an answer.

    kind: formula, words, time (of the day), tuple, set or matrix (its parts are rows). text: LaTeX, or words; of a tuple its
    two brackets.
    name: what stands before its equals sign ("" without one). rough: called approximate.
    """

    kind: str
    text: str
    parts: tuple["Item", ...] = ()
    name: str = ""
    percent: bool = False
    unit: Unit | None = None
    rough: bool = False


def formula(text: str) -> list[Item]:
    """A number or formula with its unit, or words."""
    text = text if text.endswith("...") else text.strip().rstrip(".;: ")
    if clock := _CLOCK.fullmatch(without_text(text).strip()):
        half = f" {clock[3].lower()}m" if clock[3] else ""
        if half:
            return [Item("time", f"{int(clock[1])}:{clock[2]}{half}")]
    text, percent = _PERCENT.subn("", text)
    text, measure = _measured(text)
    if not text:
        return []
    latex = _based(text)
    if is_words(latex):
        words = re.sub(r"[\W_]+", " ", without_text(latex)).strip().casefold()
        meant = _MEANT.get(_THERE_IS.sub("", words), words)
        return [Item("formula" if "\\" in meant else "words", meant)] if words else []
    latex = _mixed(without_text(latex)).strip()
    if not re.search(r"[\w?∞]", latex):
        return []
    if r"\pm" in latex:
        signs = (latex.replace(r"\pm", sign).strip().removeprefix("+") for sign in "+-")
        return [Item("formula", one, percent=bool(percent), unit=measure) for one in signs]
    return [Item("formula", latex, percent=bool(percent), unit=measure)]


def _measured(text: str) -> tuple[str, Unit | None]:
    """A text without the money before it or the unit behind it, and that unit."""
    money = _MONEY.search(text)
    text, measure = _MONEY.sub("", text).strip(), None
    if money:
        measure = unit(money[1].replace("\\", "").replace("US$", "$").strip("."))
    tail = _TAIL.search(text)
    if tail and not (tail[2].startswith("°") and _TURNS.search(text)):
        inside = r"\text" in tail[2] or r"\O" in tail[2]
        if r"\text" in tail[2] and re.match(r"\s*\\text\{\s*\}", tail[2]):
            return text[: tail.start()].strip(), measure
        name = (
            without_text(tail[2]).replace(r"\Omega", "Ω").replace(r"\ohm", "Ω").replace(r"\mu", "µ").replace("°C", "°C")
        )
        name = re.sub(r"°\s+(?=[CF]\b)", "°", name)
        apart = bool(tail[1]) or inside or text[: tail.start(2)].endswith((" ", "°"))
        found = unit(name, apart=apart, words=inside)
        if found is not None:
            return text[: tail.start()].strip(), found if found.dimensions or measure is None else measure
    return text, measure


def compound(text: str) -> Item | None:
    """`1 hour 30 minutes` as one quantity in base units; None of anything else."""
    flat = re.sub(r"\s+", " ", without_text(text)).strip()
    if not re.fullmatch(
        r"(?:\d+(?:\.\d+)? ?[A-Za-z]+\.?(?:,? (?:and )?|$)){2,4}", flat + ("" if flat[-1:].isalpha() else " ")
    ):
        return None
    pairs = re.findall(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)", flat)
    units = [unit(name) for _, name in pairs]
    if any(one is None or not one.dimensions for one in units) or len({one.dimensions for one in units}) != 1:
        return None
    if [one.factor for one in units] != sorted({one.factor for one in units}, reverse=True):
        return None
    total = sum(Fraction(number) * one.factor for (number, _), one in zip(pairs, units, strict=True)) / units[0].factor
    return Item("formula", rf"\frac{{{total.numerator}}}{{{total.denominator}}}", unit=units[0])


def _based(text: str) -> str:
    r"""`1011_{\text{two}}`, `1011 (base 2)` → `1011_2`."""
    text = re.sub(r"_\s*\{?\s*\\text\s*\{\s*(\w+)\s*\}\s*\}?", lambda m: "_" + in_digits(m[1]), text)
    text = re.sub(r"(?<=\d)\s*\(?\s*(?:\\text\s*\{\s*)?\(?(?:in\s+)?base[ -]+(\d+)\)?\s*\}?\s*\)?$", r"_\1", text)
    return re.sub(r"^(\d+)\s+to\s+(\d+)$", r"\1:\2", text)


def _mixed(text: str) -> str:
    """Mixed numbers as sums, degrees of an angle within a function as radians."""
    text = (
        re.sub(r"(\d+(?:\.\d+)?)\s*°", r"(\\frac{\1\\pi}{180})", text) if _TURNS.search(text) else text.replace("°", "")
    )
    text = re.sub(r"(?<![\d.}^_])(\d+)\s*(\\frac\s*\{\d+\}\s*\{\d+\})", r"(\1+\2)", text)
    return re.sub(r"^(-?)\s*(\d+)\s+(\d+)\s*/\s*(\d+)$", r"\1(\2+\\frac{\3}{\4})", text)


def is_words(text: str) -> bool:
    inner = re.sub(r"\\(?:begin|end)\{\w+\}|\\(?!text)[A-Za-z]+", " ", text)
    found = [word for word in _WORD.findall(inner.replace(r"\text", "")) if word not in _FUNCTIONS]
    return any(not _product(word) or word.casefold() in _SHORT for word in found) or bool(
        re.fullmatch(r"\(?[A-Z]\)?", without_text(text).strip())
    )


def _product(word: str) -> bool:
    """Letters that are factors (`xy`, `abc`, `AB`), not a word."""
    return word.isascii() and len(word) <= 3 and (word.isupper() or not re.search(r"[aeiouAEIOU]", word[1:]))
