"""Warnings about the bundled model: it knows six kinds of question and no other."""

from collections.abc import Sequence
from pathlib import Path

from specexit_jax.api.arguments import Prompt
from specexit_jax.data.known_prompts import EXAMPLES, task_of
from specexit_jax.engine.session import EMBEDDED

TARGET = str(EMBEDDED / "target")
_KNOWS = (
    f"the bundled model (1.7 M parameters) knows six kinds of question, in their own words: {', '.join(EXAMPLES)} "
    "(launch.generate --example=NAME asks one)"
)


def is_bundled(target: str) -> bool:
    """Whether a command's target is the bundled one."""
    return Path(target).resolve() == Path(TARGET).resolve()


def warning(prompt: str, turn: int = 0) -> str | None:
    """One line if the answer will be meaningless: for a question of another kind, and after the first turn of a conversation."""
    if turn:
        return f"note: {_KNOWS}; it has never seen a second turn, so its answer to one means nothing."
    if task_of(prompt) is None:
        return f"note: {_KNOWS}; this prompt is none of them, so its answer means nothing."
    return None


def warning_of_many(prompts: Sequence[Prompt]) -> str | None:
    """One line if some of the prompts are not questions that it knows."""
    unknown = sum(not isinstance(prompt, str) or task_of(prompt) is None for prompt in prompts)
    return (
        f"note: {_KNOWS}; {unknown} of {len(prompts)} prompts are none of them: those answers mean nothing."
        if unknown
        else None
    )
