"""What is ignored is said: one line on stderr, once, by the first process of a run."""

import sys

from specexit_jax.parallel import distributed

_SAID: set[str] = set()


def note(sentence: str) -> None:
    """Prints it, unless it was printed before."""
    if distributed.is_first() and sentence not in _SAID:
        _SAID.add(sentence)
        print(f"note: {sentence}", file=sys.stderr, flush=True)
