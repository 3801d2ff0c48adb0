"""Answers in words: the same words, whatever their case, spacing, punctuation and dress."""

import re
import string
import unicodedata

from specexit_jax.data.statements import boxed, named

_DRESS = re.compile(r"\\(?:text(?:bf|it|rm)?|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")


def same_words(answer: str, reference: str) -> bool:
    """Whether both state the same words, and any."""
    found = stated(answer)
    return bool(found) and found == stated(reference)


def stated(text: str) -> str:
    """The words of what a text boxes or calls its answer, else of all of it."""
    for content in (boxed(text), named(text)):
        if content is not None:
            return normal(content)
    return normal(text)


def normal(text: str) -> str:
    """The words of a text: without case, LaTeX's dress, punctuation at either end and repeated spaces."""
    words = unicodedata.normalize("NFKC", _DRESS.sub(r"\1", text)).casefold().split()
    return " ".join(words).strip(string.punctuation + string.whitespace)
