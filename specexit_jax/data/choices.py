"""The option that an answer settles on: its letter, or its words where the answer names no letter."""

import re

from specexit_jax.data.statements import boxed, named, sentences
from specexit_jax.data.texts import normal

_L = r"(?:\\?[a-z]+\{)?[\s*(\[]*([A-Z])\b(?!')[\s*)\]}]*"  # a letter in what may surround it
_RIGHT = r"(?:the\s+)?(?:only\s+)?(?:correct|right|best)\b"
_SAID = [
    re.compile(pattern)
    for pattern in (
        rf"(?i:\b(?:correct|right|best)\s+(?:option|choice|one)\s+is\s+(?:option\s+|choice\s+)?){_L}",
        rf"\b{_L}(?i:is\s+{_RIGHT})|(?i:\b(?:option|choice|only)\s+){_L}(?i:is\s+{_RIGHT}|fits\b)",
        rf"(?i:\b(?:choose|pick|select|go\s+with|it\s+(?:is|must\s+be|has\s+to\s+be))\s+(?:option\s+|choice\s+)?|选择?\s*){_L}(?=[.,;:!。]|$)",
        rf"(?i:\b(?:therefore|thus|hence|so)\b[,:]?\s+(?:option\s+|choice\s+)?){_L}[.!]?\s*$",
        r"(?m)^[\W_]*([A-Z])[\W_]*$",
    )
]
_FIRST = re.compile(r"^[\W_]*(?:(?i:option|choice)\s+)?([A-Z])[*\]}]*(?:\s*$|[.:)]|\s+-\s|[,;]?\s+(?:because|since)\b)")
_OF_CONTENT = re.compile(
    r"^[\W_]*(?:(?i:option|choice)\s+)?(?:\\?[a-z]+\{)?[\W_]*(?:(?i:option|choice)\s+)?([A-Z])\b(?!')(.*)", re.DOTALL
)
_ANOTHER = re.compile(r"[\s*)\]}]*(?:,|/|&|\bor\b|\band\b|,\s*(?:or|and)\b)\s*(?:option\s+)?[*(\[]*[A-Z]\b(?!')")
_LETTERED = re.compile(r"^[\W_]*[A-Z][.:)]\s+")
_LISTED = re.compile(r"(?m)^[\W_]*([A-Z])[.:)]")


def same_choice(answer: str, reference: str) -> bool:
    """Whether both settle on one letter, or the answer on the words of the reference (`C. Evaporation`)."""
    letter, right = choice(answer), choice(reference)
    if letter or _hedged(answer):
        return letter is not None and letter == right
    words = _words(reference)
    return bool(words) and _words(answer) == words


def choice(text: str) -> str | None:
    """The letter that a text settles on: boxed, called the answer, called correct, or standing alone."""
    text = text.strip()
    for content in (boxed(text), named(text)):
        if content is not None and (letter := _letter(content)):
            return letter
    if boxed(text) is not None:
        return None
    if re.fullmatch(r"[\W_]*[a-z][\W_]*", text):
        return text.strip("*_()[]{}. \n").upper()
    said = [(match.start(), match) for pattern in _SAID for match in pattern.finditer(text)]
    if said:
        match = max(said, key=lambda pair: pair[0])[1]
        return None if _ANOTHER.match(text, match.end()) else next(filter(None, match.groups()))
    if len(set(_LISTED.findall(text))) > 1:  # the options, told over
        return None
    first = _FIRST.match(text)
    return first[1] if first else None


def _letter(content: str) -> str | None:
    """The letter that a statement begins with; none where another is offered beside it."""
    if re.fullmatch(r"(?:\\[a-z]+)?[\W_]*[a-z][\W_]*", content):  # an answer of one small letter
        return re.sub(r"\\[a-z]+|[\W_]", "", content).upper()
    found = _OF_CONTENT.match(content)
    if not found or _ANOTHER.match(found[2]):
        return None
    if found[1] in "AI" and re.match(r"\s+(?!because\b|since\b|as\b|for\b|and\b|which\b|is\b)[a-z]", found[2]):
        return None  # an article, or the one who writes
    return found[1]


def _hedged(text: str) -> bool:
    """Whether what is stated offers several letters."""
    content = boxed(text) or named(text) or text
    found = _OF_CONTENT.match(content)
    return bool(found and _ANOTHER.match(found[2]))


def _words(text: str) -> str:
    """What is stated in words, without the letter before it; "" of a text of several sentences that states nothing."""
    content = boxed(text)
    if content is None:
        content = named(text)
    content = _LETTERED.sub("", text if content is None else content)
    return normal(content) if len(sentences(content)) == 1 else ""
