"""Answers that are equal as mathematics, wherever in the texts they are stated."""

import functools
import re

from specexit_jax.data.equality import load
from specexit_jax.data.formulas import Listing, listed
from specexit_jax.data.latex import without_text
from specexit_jax.data.limits import within
from specexit_jax.data.listings import same_listing
from specexit_jax.data.number_words import in_digits
from specexit_jax.data.quantities import BRACKETS, COMPOUND, NUMBER
from specexit_jax.data.statements import boxed, last, named, sentences

_SECONDS = 2.0
_BOUNDED = r"(?:(?:more|less|greater|fewer|larger|smaller|bigger) than|at (?:least|most)|between)"
_NONE = re.compile(  # nothing is stated where this is said
    r"\b(?:cannot|can't|can not|unable|not able|don't know|do not know|not enough|impossible to|not sure|sorry|lacks?|missing"
    rf"|answer is not|(?:is|are|be|costs?|has|have|takes?|needs?) (?:\w+ )?{_BOUNDED}|at (?:least|most)|between)\b"
    rf"|^\W{{0,12}}(?:no |not )?{_BOUNDED}\b",
    re.IGNORECASE,
)
_BOUND = re.compile(
    rf"\W{{0,12}}(?:(?:strictly |a little |slightly |much )?{_BOUNDED}|over|under|above|below|unknown|unclear)\b",
    re.IGNORECASE,
)
_SENTENCES = 20  # that are read, from the end
_LONGEST = 600  # characters of a formula within a text
_FORMULA = re.compile(
    rf"\\\[(.{{1,{_LONGEST}}}?)\\\]|\\\((.{{1,{_LONGEST}}}?)\\\)|\$\$(.{{1,{_LONGEST}}}?)\$\$"
    rf"|(?<!\\)\$((?:[^$\n\\]|\\.){{1,{_LONGEST}}}?)\$(?!\d)",
    re.DOTALL,
)
_RATIO = re.compile(r"\bratio\b[^.\n]{0,80}?(\d+)\s+to\s+(\d+)")
_CHANCE = re.compile(
    r"\b(?:probability|chance|likelihood|odds)\b[^.\n]{0,80}?(\d+)\s+(?:in|out\s+of)\s+(\d+)", re.IGNORECASE
)
_REFUSED = re.compile(r"(?:\bnot|n't)\s+(?:\w+\s+)?[$\\(]*$")  # before a number
_CUT = re.compile(
    r"(?<=[^\s.])[.!?](?=[\s*_\"')]|$)|[。！？;\n]|\s\((?=[A-Za-z]{2})"
    r"|,?\s+(?:and not|not|which|because|since|where|so|that is|when|after|if|rather than|instead of)\b"
)
_ASIDE = re.compile(
    r",?\s+\(?(?:of which|including|which includes|not counting|excluding|because|since|rather than|instead of|not"
    r"|\w+ (?:more|less|fewer) than)\b"
)
_AGAIN = re.compile(r"(?<=\S)\s+\([^(),]*\)\s*\.?\s*$")  # `42 (that is, 6 · 7).`
_BETWEEN = re.compile(  # numbers of one list
    r"\s*(?:[,;(]|,?\s*\(?\s*(?:and|or|i\.e\.,?|that is,?)(?=[\s$€£(]|$))\s*(?:(?:about|approximately|roughly|or)\b)?"
    r"\s*[$€£(]?\s*(?:[A-Za-z]\s*=\s*)?"
)
_SENTENCE_END = re.compile(r"[.!?。！？:*$`)\]}>]\s*$")


def same_value(answer: str, reference: str) -> bool:
    """Whether both state the same value, tuple, interval, set of solutions or words; nothing stated equals nothing.

    What takes longer than two seconds is not the same, and nothing is raised, whatever the texts are.
    """
    load()
    return within(_SECONDS, lambda: _same(answer, reference), False)


def _same(answer: str, reference: str) -> bool:
    try:
        if same_listing(_read(reference), _read(answer)):
            return True
        return any(
            re.search(r"\d,\d", text) and same_listing(*pair)
            for text, pair in (
                (answer, (_read(reference), _read(answer, True))),
                (reference, (_read(reference, True), _read(answer))),
            )
        )
    except Exception:  # sympy raises what it likes on formulas that nobody foresaw: they equal nothing
        return False


@functools.lru_cache(maxsize=4096)
def _read(text: str, decimal_comma: bool = False) -> Listing:
    """The elements of the final answer of a text."""
    text = last(text)
    content = boxed(text)
    if content is not None:
        found = listed(content, decimal_comma)
        return (
            found
            if not found.words or named(without_text(content)) is None
            else _read(without_text(content), decimal_comma)
        )
    content = named(text)
    if content is not None:
        if _BOUND.match(content):
            return Listing()
        formula = _FORMULA.match(content.lstrip("*_ "))
        return _of_prose(content if formula else _CUT.split(content, maxsplit=1)[0], True, decimal_comma)
    whole = listed(text, decimal_comma) if "\n" not in text.strip() else Listing()
    parts = sentences(text)
    bare = whole.items and not whole.words
    if (bare or len(parts) == 1) and not _NONE.search(text):
        return _of_prose(text, True, decimal_comma)
    if "\n" in text.strip() and r"\begin{" in text and not (found := listed(text)).words and found.items:
        return found
    for sentence in parts[: -_SENTENCES - 1 : -1]:
        if _NONE.search(sentence) or (sentence is parts[-1] and sentence.endswith(":")):
            return Listing()
        found = _of_prose(sentence, False, decimal_comma)
        if found.items:
            return found
        if sentence is parts[-1] and not _SENTENCE_END.search(text):
            return Listing()  # cut off before anything was stated
    return Listing()


def _of_prose(text: str, whole: bool, decimal_comma: bool) -> Listing:
    """The formulas that a statement consists of, else the last in it; `whole`: words count as an answer too."""
    bold = [part for part in re.findall(r"\*\*([^*\n]+)\*\*", text) if re.search(r"\d", part)]
    found = listed(text, decimal_comma)
    if found.items and not found.words:
        return found
    formulas = [match for match in _FORMULA.finditer(text) if _mathematical(match)]
    if formulas:
        return listed(_last_joined(text, formulas), decimal_comma)
    main = _AGAIN.sub("", _ASIDE.split(text, maxsplit=1)[0])
    for part in (*bold[-1:], main, text):
        digits = in_digits(part)
        if ratio := _RATIO.search(digits):
            return listed(f"{ratio[1]}:{ratio[2]}")
        if chance := _CHANCE.search(digits):
            return listed(f"{chance[1]}/{chance[2]}")
        for pattern in (COMPOUND, BRACKETS, NUMBER):
            matches = [match for match in pattern.finditer(digits) if re.search(r"\d", match[0])]
            if matches and _REFUSED.search(digits[max(0, matches[-1].start() - 30) : matches[-1].start()]):
                return Listing()
            last_one = pattern is NUMBER or (matches and not re.search(r"\d", digits[matches[-1].end() :]))
            if not matches or not last_one or (pattern is COMPOUND and listed(matches[-1][0]).words):
                continue
            return listed(_last_joined(digits, matches), decimal_comma)
    return found if whole and all(len(item.text.split()) < 5 for item in found.items) else Listing()


def _mathematical(match: re.Match) -> bool:
    """Not the text between the dollars of two prices."""
    content = next(filter(None, match.groups()))
    return not re.search(r"(?<!\\)\b[A-Za-z]{2,}\s+[A-Za-z]{2,}", re.sub(r"\\text\s*\{[^{}]*\}", "", content))


def _last_joined(text: str, matches: list[re.Match]) -> str:
    """The last of the matches, with those that commas, `and` and `or` join to it, and what each is said to be of."""
    parts = [matches[-1]]
    for before, after in zip(matches[-2::-1], matches[:0:-1], strict=True):
        between = text[before.end() : after.start()]
        if len(between) > 40 or not _BETWEEN.fullmatch(between):
            break
        parts.insert(0, before)
    said = [_assigned(text, match) + match[0] for match in parts]
    return " , ".join(said)


def _assigned(text: str, match: re.Match) -> str:
    """`x =` before a number."""
    found = re.search(r"(?<![\w\\])[A-Za-z]\s*=\s*$", text[max(0, match.start() - 8) : match.start()])
    return found[0] if found else ""
