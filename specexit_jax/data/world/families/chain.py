"""Arithmetic chains (reasoning-gym `chain_sum`): running total, plus and minus terms apart, undoing from the result."""

import re

from specexit_jax.data.world.families.scratch import CannotWork, Scratch

CONFIG = {"min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 2}


def parse(entry: dict) -> list[int]:
    """Signed terms of the expression; chains whose running total leaves 0..999 are not in this world."""
    terms = [int(sign + digits) for sign, digits in re.findall(r"(-?) ?(\d+)", entry["metadata"]["expression"])]
    total = 0
    for term in terms:
        total += term
        if total < 0:
            raise CannotWork("the running total turns negative")
    return terms


def forward(terms: list[int], scratch: Scratch) -> tuple[list[str], str]:
    """The running total, term by term."""
    total, paragraphs = terms[0], []
    for term in terms[1:]:
        text, total = scratch.add(total, term) if term >= 0 else scratch.subtract(total, -term)
        paragraphs.append(text)
    return paragraphs, str(total)


def grouped(terms: list[int], scratch: Scratch) -> tuple[list[str], str]:
    """Plus terms first (from the last to the first), then the minus terms taken away one by one."""
    plus, minus = [t for t in terms if t >= 0][::-1], [-t for t in terms if t < 0]
    total, paragraphs = plus[0], []
    for term in plus[1:]:
        text, total = scratch.add(total, term)
        paragraphs.append(text)
    for term in minus:
        text, total = scratch.subtract(total, term)
        paragraphs.append(text)
    return ["Plus terms first. " + paragraphs[0], *paragraphs[1:]], str(total)


def undo(terms: list[int], scratch: Scratch, answer: str) -> tuple[list[str], bool]:
    """From the answer back to the first term."""
    total, paragraphs = int(answer), []
    for term in terms[:0:-1]:
        text, total = scratch.subtract(total, term) if term >= 0 else scratch.add(total, -term)
        paragraphs.append(text)
    paragraphs[0] = f"Undo from {answer}. " + paragraphs[0]
    paragraphs[-1] += f", and the first term is {terms[0]}"
    return paragraphs, total == terms[0]


METHODS = (forward, grouped)
INVERSES = (undo,)
