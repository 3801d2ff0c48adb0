"""The search for T* with few forced answers. It assumes that answers disagree before T* and agree from there on.

It begins at the boundary by which the text first states the final answer, goes away from it in steps that double until T* is
between two forced boundaries, and bisects. Then the boundaries after T* are forced. One that disagrees there sends the search on,
past it. What is asked next follows from what is known alone, so a search can be stopped and begun anew at any time.
"""

import re
from collections.abc import Mapping, Sequence

from specexit_jax.data.statements import boxed
from specexit_jax.engine.session import Session, text_of

_LONGEST = 64  # characters of a final answer that the text is searched for


def asked(known: Mapping[int, bool], count: int, guess: int, verify: int = 1, width: int = 2) -> list[int]:
    """The boundaries, of `count`, to force next; empty once T* is found. known: which of those forced so far agree. guess: where T*
    may be. width: how many are asked for at a time, at least 2; wider searches are shorter and force more."""
    if not known:
        guess = min(guess, count - 1)
        around = (guess - 2 ** (n // 2 + 1) + 1 if n % 2 == 0 else guess + 2 ** (n // 2 + 1) - 2 for n in range(width))
        return sorted({number for number in around if 0 <= number < count} | {guess}) if count else []
    low, high = bracket(known, count)
    if high - low > 1 and width > 2:
        return sorted({low + round((high - low) * (n + 1) / (width + 1)) for n in range(width)} - {low, high})
    if high - low == 1:
        return [number for number in range(high + 1, min(high + 1 + verify, count)) if number not in known]
    if low == -1:
        return [max(high - (max(known) - high + 1), 0)]
    if high == count:
        return [min(low + (low - min(known) + 1), count - 1)]
    return [(low + high) // 2]


def bracket(known: Mapping[int, bool], count: int) -> tuple[int, int]:
    """(the last boundary that disagrees, the first that agrees behind it); -1 and `count` where there is none."""
    low = max((number for number, agrees in known.items() if not agrees), default=-1)
    return low, min((number for number, agrees in known.items() if agrees and number > low), default=count)


def found(agree: Sequence[bool]) -> int | None:
    """T* of kind `stable` among the boundaries that a search has forced: the first that agrees behind all that disagree."""
    _, high = bracket(dict(enumerate(agree)), len(agree))
    return high if high < len(agree) else None


def guessed(session: Session, trace: dict, boundaries: Sequence[int]) -> int:
    """The first boundary by which the thinking has stated the final answer; the middle one where none has."""
    answer, middle = trace["answer"] or "", len(boundaries) // 2
    wanted = (boxed(answer) or answer).strip()
    if not 0 < len(wanted) <= _LONGEST:
        return middle
    stated = re.compile(rf"(?<![\w.]){re.escape(wanted)}(?!\w)")
    starts = [0, *(place + 1 for place in boundaries)]
    pieces = zip(starts, boundaries, strict=False)
    texts = (text_of(session, trace["ids"][start : place + 1]) for start, place in pieces)
    return next((number for number, text in enumerate(texts) if stated.search(text)), middle)
