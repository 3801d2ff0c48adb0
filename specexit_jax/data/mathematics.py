"""Answers that are equal as mathematics, by math-verify, wherever in the texts they are stated.

math-verify stops a hopeless formula by a signal, which Python delivers to the main thread alone: on another thread it
runs without that limit.
"""

import functools
import logging
import re
import threading

from specexit_jax.data.formulas import Formula, comparable, listed
from specexit_jax.data.number_words import in_digits
from specexit_jax.data.statements import boxed, named, sentences

_SECONDS = 5
_NONE = re.compile(  # nothing is stated where this is said
    r"\b(?:cannot|can't|can not|unable|not able|don't know|do not know|not enough|impossible to|not sure|sorry|lacks?|missing"
    r"|answer is not)\b",
    re.IGNORECASE,
)
_FORMULA = re.compile(r"\\\[(.+?)\\\]|\\\((.+?)\\\)|\$\$(.+?)\$\$|(?<!\\)\$((?:[^$\n\\]|\\.)+?)\$(?!\d)", re.DOTALL)
_NUMBER = re.compile(
    r"(?<![\w.])[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:\s*(?:\\times|[×x*])\s*10\s*\^\s*\{?[-−]?\d+\}?|[eE][+-]?\d+)?"
    r"(?:\s\d+)?(?:\s*/\s*\d+)?(?:\s*(?:%|percent\b))?"
)
_CUT = re.compile(
    r"(?<=[^\s.])[.!?](?=[\s*_\"')]|$)|[。！？;\n]|\s\((?=[A-Za-z]{2})"
    r"|,?\s+(?:and not|not|which|because|since|where|so|that is|when|after|if)\b"
)
_SENTENCE_END = re.compile(r"[.!?。！？:*$`)\]}>]\s*$")


def same_value(answer: str, reference: str) -> bool:
    """Whether both state the same value, tuple, interval, set of solutions or words; nothing stated equals nothing."""
    right, found = _read(reference), _read(answer)
    if not right or len(right) != len(found):
        return False
    left = list(found)
    for one in right:
        other = next((formula for formula in left if _equal(one, formula)), None)
        if other is None:
            return False
        left.remove(other)
    return True


@functools.lru_cache(maxsize=4096)
def _read(text: str) -> tuple[Formula, ...]:
    """The formulas of the final answer of a text."""
    content = boxed(text)
    if content is not None:
        return listed(content)
    content = named(text)
    if content is not None:
        formula = _FORMULA.match(content.lstrip("*_ "))
        return _of_prose(content if formula else _CUT.split(content, maxsplit=1)[0], whole=True)
    parts, formula = sentences(text), listed(text)
    bare = "\n" not in text.strip() and bool(formula) and not any(part.words for part in formula)
    if (bare or len(parts) == 1) and not _NONE.search(text):
        return _of_prose(text, whole=True)
    for sentence in reversed(parts):
        if _NONE.search(sentence) or (sentence is parts[-1] and sentence.endswith(":")):
            return ()
        if found := _of_prose(sentence):
            return found
        if sentence is parts[-1] and not _SENTENCE_END.search(text):
            return ()  # cut off before anything was stated
    return ()


def _of_prose(text: str, whole: bool = False) -> tuple[Formula, ...]:
    """The formulas that a statement consists of, else the last in it; `whole`: words count as an answer too."""
    bold = [part for part in re.findall(r"\*\*(.+?)\*\*", text) if re.search(r"\d", part)]
    found = listed(text)
    if found and not any(formula.words for formula in found):
        return found
    formulas = [match for match in _FORMULA.finditer(text) if _mathematical(match)]
    if formulas:
        return listed(_last_joined(text, formulas))
    for part in (*bold[-1:], text):
        digits = in_digits(part)
        if numbers := [match for match in _NUMBER.finditer(digits) if re.search(r"\d", match[0])]:
            return listed(_last_joined(digits, numbers))
    return found if whole and found and all(len(formula.latex.split()) < 5 for formula in found) else ()


def _mathematical(match: re.Match) -> bool:
    """Not the text between the dollars of two prices."""
    content = next(filter(None, match.groups()))
    return not re.search(r"(?<!\\)\b[A-Za-z]{2,}\s+[A-Za-z]{2,}", re.sub(r"\\text\s*\{[^{}]*\}", "", content))


def _last_joined(text: str, matches: list[re.Match]) -> str:
    """The last of the matches, with those that commas, `and` and `or` join to it."""
    parts = [matches[-1][0]]
    for before, after in zip(matches[-2::-1], matches[:0:-1], strict=True):
        if not re.fullmatch(r"\s*(?:,|,?\s*\band\b|,?\s*\bor\b)\s*[$€£]?", text[before.end() : after.start()]):
            break
        parts.insert(0, before[0])
    return " , ".join(parts)


def _equal(reference: Formula, answer: Formula) -> bool:
    if reference.words or answer.words:
        return reference.latex == answer.latex or _bare(reference.latex) == _bare(answer.latex)
    if _bare(reference.latex) == _bare(answer.latex) and reference.percent == answer.percent:
        return True
    pair = comparable(reference.latex, answer.latex)
    if any(re.search(r"\d_|\d\s*:\s*\d", latex) for latex in pair):
        return False  # a base or a ratio is the same only as written
    left, right = (_parsed(latex) for latex in pair)
    if left and right and _verified(left, right):
        return True
    if reference.percent == answer.percent:
        return False
    percent, plain = (reference, answer) if reference.percent else (answer, reference)  # 50 % is called 50, and 0.5
    wanted = Formula(plain.latex)
    return _equal(Formula(percent.latex), wanted) or _equal(Formula(rf"\frac{{{percent.latex}}}{{100}}"), wanted)


def _bare(latex: str) -> str:
    return re.sub(r"\s|[{}()]" if re.fullmatch(r"\(?\w*\)?|\d+_\{?\d+\}?", latex) else r"\s", "", latex)


@functools.lru_cache(maxsize=4096)
def _parsed(latex: str) -> tuple:
    from math_verify import parse  # seconds of imports, which the world does not need

    return tuple(parse(f"${latex}$", parsing_timeout=_limit()))


def _verified(left: tuple, right: tuple) -> bool:
    from math_verify import verify

    return bool(verify(list(left), list(right), allow_set_relation_comp=True, timeout_seconds=_limit()))


def _limit() -> int | None:
    """Seconds for a formula; None where no signal could end it."""
    for name in ("math_verify.parser", "math_verify.grader"):  # a formula without an end is a wrong answer, and no news
        logging.getLogger(name).setLevel(logging.ERROR)
    return _SECONDS if threading.current_thread() is threading.main_thread() else None
