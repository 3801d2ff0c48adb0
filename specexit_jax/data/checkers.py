"""The checkers of answers. The same checker compares an answer with the reference, and an answer forced at a boundary
with the model's own final answer (docs/method.md §1)."""

from specexit_jax.data.choices import same_choice
from specexit_jax.data.mathematics import same_value
from specexit_jax.data.programs import passes, same_outcomes
from specexit_jax.data.texts import same_words
from specexit_jax.data.world import tasks

CHECKERS = ("world", "math", "choice", "text", "code")
_SAME = {"math": same_value, "choice": same_choice, "text": same_words, "code": passes}


def require_checker(name: str) -> None:
    """Raise ValueError unless `name` is one of ours."""
    if name not in CHECKERS:
        raise ValueError(f"unknown checker {name!r}: choose among {', '.join(CHECKERS)}")


def accepts(checker: str, task: str, answer: str | None, reference: str) -> bool:
    """Whether `answer` is right if `reference` is; no answer (None) is never right.

    `world`: by reasoning-gym's checker of the task. `math`: equal as mathematics, wherever in the text it is stated.
    `choice`: the same letter, or the option's words. `text`: the same words, ignoring case, spacing and sentence
    punctuation. `code`: the program in the answer passes the tests that the reference holds, in a sandbox
    (`programs.CodeTests`).
    """
    require_checker(checker)
    if answer is None:
        return False
    if checker == "world":
        return tasks.check(task, answer, reference)
    return _SAME[checker](answer, reference)


def agrees(checker: str, task: str, answer: str | None, own: str | None, reference: str) -> bool:
    """Whether `answer` agrees with the model's own final answer, `reference`, be it right or wrong.

    For code, both programs are called with the inputs of the tests (`programs.same_outcomes`).
    """
    if answer is None or own is None:
        return False
    if checker == "code":
        return same_outcomes(answer, own, reference)
    return accepts(checker, task, answer, own)
