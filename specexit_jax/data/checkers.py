"""Which answers count as right. One checker judges both an answer against the reference, and an answer forced at a
boundary against the model's own final one (specexit.md section 1)."""

import functools
import re
import string
import unicodedata

from specexit_jax.data import tasks

CHECKERS = ("world", "math", "choice", "text")
_PROSE = re.compile(r"(?<!\\)\b[A-Za-z]{2,}\s+[A-Za-z]{2,}")  # which would be read as a product of its letters
_LETTER = r"\(?\s*([A-Z])\b(?!')"
_CHOICES = (  # from the surest on; of each the last in the text counts
    re.compile(r"\\boxed\{\s*(?:\\[a-z]+\{)?\s*" + _LETTER),
    re.compile(r"(?i:answer|choice|option)(?i:\s+is|\s*[:=])?[\s:*$]*(?:\\[a-z]+\{)?" + _LETTER),
    re.compile(r"^\W*([A-Z])(?:[\s.:)*]*$|[.:)])"),
)


def require_checker(name: str) -> None:
    """Raise ValueError unless `name` is one of ours."""
    if name not in CHECKERS:
        raise ValueError(f"unknown checker {name!r}: choose among {', '.join(CHECKERS)}")


def accepts(checker: str, task: str, answer: str | None, reference: str) -> bool:
    """Whether `answer` stands where `reference` is right; no answer (None) never does.

    `world`: by reasoning-gym's checker of the task. `math`: equal as mathematics, wherever in the texts it is stated.
    `choice`: the same letter. `text`: the same words, whatever their case, spacing and punctuation.
    """
    require_checker(checker)
    if answer is None:
        return False
    if checker == "world":
        return tasks.check(task, answer, reference)
    if checker == "math":
        from math_verify import verify

        return bool(verify(_parsed(reference), _parsed(answer)))
    read = choice if checker == "choice" else normal
    found = read(answer)
    return bool(found) and found == read(reference)


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> list:
    """What math-verify reads in a text; a formula without its dollars (`x^2 + 1`, `(1, 2)`) is given them."""
    from math_verify import parse  # seconds of imports, which the world does not need

    return parse(text) or ([] if _PROSE.search(text) else parse(f"${text}$"))


def choice(text: str) -> str | None:
    """The letter that a text settles on: boxed, called the answer, or standing alone at its start."""
    for pattern in _CHOICES:
        if found := pattern.findall(text.strip()):
            return found[-1]
    return None


def normal(text: str) -> str:
    """The words of a text, or of what it boxes: without case, punctuation at either end and repeated spaces."""
    if boxed := re.findall(r"\\boxed\{([^{}]*)\}", text):
        text = boxed[-1]
    words = unicodedata.normalize("NFKC", text).casefold().split()
    return " ".join(words).strip(string.punctuation + string.whitespace)
