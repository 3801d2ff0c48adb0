"""The writer of thinking traces that overthink as real models do.

A trace is a list of paragraphs: a first attempt, worked out step by step; the stated answer; then a random, bounded
number of rounds. A round is a real check (another order, another method, an inverse check), a redundant look, or a doubt
that only seems to be one. A wrong first answer (one slip in one operation) is found by a check, redone and mended.
Every paragraph records the writer's belief there: the answer that a forced stop at that place would give.
"""

import dataclasses
import random

from specexit_jax.data.world.families.scratch import CannotWork, Scratch
from specexit_jax.data.world.tasks import FAMILIES

# The statistics of the world, frozen before any work on exits.
SLIP = 0.25  # of the hard operations in a first attempt go wrong, at most one an attempt
CHECK_SLIP = 0.01  # the same, in a check; a redo is careful and never slips
ROUNDS = (4, 9)  # rounds after the first answer: at least, at most
STOP = 0.3  # chance that thinking ends after a round, once the least number is done
LONG = 800  # characters of thinking after which it ends at the least number of rounds
CHECK, REDUNDANT = 0.62, 0.23  # of rounds; the rest only seem to doubt
INVERSE = 0.45  # of real checks, where the family can

_STATE = ("So the answer is {a}", "The answer is {a}", "This makes the answer {a}")
_OPEN = (
    "Wait, let me check this",
    "Hmm, let me verify",
    "But let me make sure",
    "Let me double-check",
    "Actually, let me go over it again",
)
_SAME = ("That gives {a} again", "Same result, {a}", "Good, {a} once more", "It is {a} here too")
_OTHER = ("That gives {b}, not {a}", "Hmm, {b} now, but I had {a}")
_FITS = ("That fits, so {a} stands", "It fits, {a} is right")
_MISFIT = ("That does not fit, so {a} is wrong", "No, {a} cannot be right")
_REDO = ("Let me redo it carefully. ", "Once more from the start. ")
_LOOK = (
    "Let me read the question again. It asks for just this, and I have {a}",
    "Wait, did I use everything? Yes, so {a} is fine",
    "I could write it more nicely, but {a} is what it comes to",
)
_DOUBT = (
    "Hmm, maybe I misread something? No, it is as I read it, so {a}",
    "But is there a trick? No, there is none, {a} it is",
    "Wait, could it be something else? No, {a} is right",
)


@dataclasses.dataclass
class Trace:
    """Paragraphs without their ends, the answer believed after each, and where the first answer is stated."""

    paragraphs: list[str] = dataclasses.field(default_factory=list)
    believed: list[str] = dataclasses.field(default_factory=list)
    stated: int = -1
    first: str = ""

    @property
    def answer(self) -> str:
        """The answer at the end."""
        return self.believed[-1]

    def add(self, paragraphs: list[str], believed: str) -> None:
        """Append paragraphs under one belief."""
        self.paragraphs += paragraphs
        self.believed += [believed] * len(paragraphs)


def _work(method, problem, scratch: Scratch) -> tuple[list[str], str]:
    """One way of working a problem out; a slip that leads outside the world (below zero) is undone."""
    try:
        return method(problem, scratch)
    except CannotWork:
        return method(problem, Scratch())


def _check(family, problem, rng: random.Random, stated: str) -> tuple[list[str], bool]:
    """One real check of the stated answer: (paragraphs, does it confirm)."""
    opener, scratch = rng.choice(_OPEN) + ". ", Scratch(CHECK_SLIP, rng)
    if rng.random() < INVERSE:
        try:
            paragraphs, fits = rng.choice(family.INVERSES)(problem, scratch, stated)
            verdict = rng.choice(_FITS if fits else _MISFIT).format(a=stated)
            return [opener + paragraphs[0], *paragraphs[1:], verdict], fits
        except (CannotWork, ValueError):
            scratch = Scratch(CHECK_SLIP, rng)  # this answer cannot be held against the problem backwards
    paragraphs, found = _work(rng.choice(family.METHODS), problem, scratch)
    verdict = rng.choice(_SAME if found == stated else _OTHER).format(a=stated, b=found)
    return [opener + paragraphs[0], *paragraphs[1:], verdict], found == stated


def write_trace(task: str, entry: dict, rng: random.Random, slip: float = SLIP) -> Trace:
    """Write one thinking trace for a problem; `slip`: the chance of each hard operation of the first attempt."""
    family, trace = FAMILIES[task], Trace()
    problem = family.parse(entry)
    paragraphs, answer = _work(family.METHODS[0], problem, Scratch(slip, rng))
    trace.add(paragraphs, answer)
    trace.add([rng.choice(_STATE).format(a=answer)], answer)
    trace.stated, trace.first = len(trace.paragraphs) - 1, answer
    for done in range(1, ROUNDS[1] + 1):
        kind = rng.random()
        if kind >= CHECK:
            texts = _LOOK if kind < CHECK + REDUNDANT else _DOUBT
            trace.add([rng.choice(texts).format(a=answer)], answer)
        else:
            paragraphs, confirms = _check(family, problem, rng, answer)
            trace.add(paragraphs, answer)
            if not confirms:
                paragraphs, redone = family.METHODS[0](problem, Scratch())
                trace.add([rng.choice(_REDO) + paragraphs[0], *paragraphs[1:]], answer)
                answer = redone
                trace.add([rng.choice(_STATE).format(a=answer)], answer)
        if done >= ROUNDS[0] and (rng.random() < STOP or sum(map(len, trace.paragraphs)) > LONG):
            break
    return trace


def thinking_text(trace: Trace, until: int | None = None) -> str:
    """The text of a trace's paragraphs (up to and including `until`), each ending in a full stop and an empty line."""
    last = len(trace.paragraphs) - 1 if until is None else until
    return "".join(f"{paragraph}.\n\n" for paragraph in trace.paragraphs[: last + 1])
