"""What a question to a checker is, and its answer. Imported by grading processes: nothing here may import jax."""

import hashlib
from typing import NamedTuple

from specexit_jax.data import equality
from specexit_jax.data.checkers import accepts, agrees


class Question(NamedTuple):
    """Whether `answer` is right if `reference` is. own: for `code`, the model's own answer, which it shall agree with."""

    checker: str
    task: str
    answer: str
    reference: str
    own: str | None = None

    def digest(self) -> bytes:
        """The same for equal questions alone."""
        return hashlib.blake2b(repr(tuple(self)).encode(errors="surrogatepass"), digest_size=16).digest()


def load() -> None:
    """Imports what the checkers need, which takes seconds that no pair's time shall count."""
    equality.load()


def judge(checker: str, task: str, answer: str, reference: str, own: str | None = None) -> bool:
    """The answer of the checker to a `Question`."""
    if own is None:
        return accepts(checker, task, answer, reference)
    return agrees(checker, task, answer, own, reference)
