"""The option that an answer settles on: its letter, or its words where the answer names no letter."""

import re

from specexit_jax.data.letter_patterns import DENYING, L
from specexit_jax.data.letters import is_letter, settled, undressed
from specexit_jax.data.statements import boxed, field, last, mentions, named, sentences
from specexit_jax.data.texts import normal

_FIRST = re.compile(
    r"^[\W_]{0,12}(?:(?i:option|choice|letter|answer)\s+)?([A-Z])(?:[)\]}]*\s*$|[)\]}]*[.:]|\)(?!\s+(?:is|are|was|seems|looks|sounds|would|could|might|may|can|cannot|can't|isn't|and|or)\b)|[)\]}]*\s+-+\s|[)\]}]*[,;]?\s+(?:because|since)\b)"
)
_NAMED_LATER = re.compile(
    rf"^[^.!?\n]{{0,60}}?(?:,\s*|\(|--\s*|\boption\s+|\bchoice\s+)(?:(?:namely|that is|i\.e\.),?\s+)?{L}\W{{0,12}}(?:$|[.!?)\n])"
)
_LEADS = r"(?i:that|the|is|it|it's|clearly|thus|therefore|simply|definitely|indeed|most likely)"
_BEGINS = re.compile(rf"^[\W_]{{0,12}}(?:{_LEADS}\s+)*[\W_]{{0,12}}{L}", re.DOTALL)
_ANOTHER = re.compile(
    r"[\s)\]}]*(?:,|/|&|\bor\b|\band\b|,\s*(?:or|and)\b)\s*(?:(?:option|choice|maybe|possibly)\s+)?[(\[]*[A-Z]\b(?!')"
)
_TAIL = 400  # characters behind "the answer is" in which its letter stands
_LETTERED = re.compile(r"^[\W_]{0,12}[A-Z][.:)]\s+")
_LISTED = re.compile(r"(?m)^[\W_]{0,12}([A-Z])[.:)]")


def same_choice(answer: str, reference: str) -> bool:
    """Whether both settle on one letter, or the answer on the words of the reference (`C. Evaporation`)."""
    answer = last(answer)
    letter, right = choice(answer), choice(reference)
    if letter or _hedged(answer):
        return letter is not None and letter == right
    words = _words(reference)
    return bool(words) and _words(answer) == words


def choice(text: str) -> str | None:
    """The letter that a text settles on: boxed, in an answer field, last called the answer or right, or standing alone."""
    text = last(text).strip()
    for content in (boxed(text), field(text)):
        if content is not None and (letter := _letter(content)):
            return letter
    if boxed(text) is not None:
        return None
    if re.fullmatch(r"[\W_]{0,12}[a-z][\W_]{0,12}", text):
        return text.strip("*_()[]{}. \n").upper()
    flat = undressed(text)
    called = next(((at, letter) for at, tail in mentions(flat) if (letter := _letter(tail[:_TAIL]))), None)
    said = max(filter(None, (called, settled(flat))), key=lambda pair: pair[0], default=None)
    if said:
        return said[1]
    if len(set(_LISTED.findall(flat))) > 1:  # the options, told over
        return None
    first = _FIRST.match(flat)
    return first[1] if first and is_letter(flat, first.start(1)) else None


def _letter(content: str) -> str | None:
    """The letter that a statement begins with; none where another is offered beside it."""
    content = undressed(content)
    if re.fullmatch(r"[\W_]{0,12}[a-z][\W_]{0,12}", content):  # an answer of one small letter
        return re.sub(r"[\W_]", "", content).upper()
    found = _BEGINS.match(content)
    if not found or not is_letter(content, found.start(1)):
        found = _NAMED_LATER.match(content)
        return found[1] if found and not DENYING.search(found[0]) else None
    return None if _ANOTHER.match(content[found.end(1) :]) else found[1]


def _hedged(text: str) -> bool:
    """Whether what is stated offers several letters."""
    content = undressed(boxed(text) or named(text) or text)
    found = _BEGINS.match(content)
    return bool(found and _ANOTHER.match(content[found.end(1) :]))


def _words(text: str) -> str:
    """What is stated in words, without the letter before it; "" of a text of several sentences that states nothing."""
    content = boxed(text)
    if content is None:
        content = named(text)
    content = _LETTERED.sub("", text if content is None else content)
    return normal(content) if len(sentences(content)) == 1 else ""
