"""Answers in words: the same words, whatever their case, spacing, sentence punctuation, quotes and dress."""

import re
import unicodedata

from specexit_jax.data.statements import boxed, last, named

_DRESS = re.compile(r"\\(?:text(?:bf|it|rm)?|mathrm|mathbf|mathit|mbox|emph)\s*\{([^{}]*)\}")
_RAISED = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")
_ALIKE = str.maketrans("’‘ʼ“”„«»「」《》−–‐‑", "'''" + '"' * 9 + "----")  # quotes and dashes
_ENDS = ".,;:…。、，；：।॥۔؟،؛։"  # sentence punctuation, in whatever script; `!` and `?` where they end words
_WRAPPERS = {"*": "*", "_": "_", "`": "`", '"': '"', "'": "'", "(": ")", "$": "$", "~": "~"}
_EXPLAINED = re.compile(
    r",?\s+\(?(?:because|since|and\s+not|not|rather\s+than|instead\s+of|which|as\s+(?:it|the|this))\b"
)
_SENTENCE = re.compile(r"(?<=[^\W\d_]{2}[.!?])\s+(?=[A-Z])|(?<=[。！？])|\n+")


def same_words(answer: str, reference: str) -> bool:
    """Whether both state the same words, and any."""
    return not stated(answer).isdisjoint(stated(reference))


def stated(text: str) -> set[str]:
    """The words of what a text boxes or calls its answer, else of all of it; where it calls them so, also without what
    explains them."""
    text = last(text)
    content = boxed(text)
    if content is None:
        content = named(text)
        if content is not None:
            first = _SENTENCE.split(content, maxsplit=1)[0]
            return {normal(part) for part in (content, first, _EXPLAINED.split(first, maxsplit=1)[0])} - {""}
    return {normal(text if content is None else content)} - {""}


def normal(text: str) -> str:
    """The words of a text: without case, LaTeX's dress, markdown, sentence punctuation and quotes at its ends, and
    repeated spaces. Signs that carry meaning stay: `C++`, `-5`, `5%`, `.NET`."""
    text = _RAISED.sub(lambda match: "^" + unicodedata.normalize("NFKC", match[0]), _DRESS.sub(r"\1", text))
    text = unicodedata.normalize("NFKC", text.translate(_ALIKE)).translate(_ALIKE).casefold()
    text = "".join(sign for sign in text if unicodedata.category(sign) != "Cf")
    text = re.sub(r"\\([%$#&_])", r"\1", re.sub(r"\\[ ,;!]", " ", text))
    text = re.sub(r"(?<![\w*])\*{1,3}(?=\S)|(?<=\S)\*{1,3}(?![\w*])", "", " ".join(text.split()))
    before = None
    while before != text:
        before, text = text, _stripped(text.strip())
    return text if re.search(r"\w", text) else ""


def _stripped(text: str) -> str:
    if len(text) > 1 and _WRAPPERS.get(text[0]) == text[-1]:
        return text[1:-1]
    if text[-1:] == '"' and text.count('"') % 2:
        return text[:-1]
    if text[:1] in "¿¡" or (text.startswith("\\(") and text.endswith("\\)")):
        return text[2:-2] if text.startswith("\\(") else text[1:]
    if text[-1:] in _ENDS or (text[-1:] in "!?" and text[-2:-1].isalpha() and len(text) > 2):
        return text[:-1]
    return text
