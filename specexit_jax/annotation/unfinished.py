"""Forced answers that are not finished: how many, what cut them, and when they are too many to calibrate on.

An answer that the buffer cuts (max_new_tokens) is cut at the same place in a decode. An answer that annotation cuts at
max_answer would continue in a decode: what an exit at that boundary gives is not known, and counts as wrong.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from specexit_jax.annotation.joined import finished_of, leavable_tokens, stop_ids_in
from specexit_jax.annotation.kinds import annotate_settings
from specexit_jax.storage.rows import brief_rows, by_id, whole_rows

MOST = 0.005  # largest share of forced answers that may be cut at max_answer


@dataclasses.dataclass(frozen=True)
class Unfinished:
    """answers: those forced where an exit is possible; cut: how many of them at max_answer; outside: how many at the
    buffer's end."""

    answers: int = 0
    cut: int = 0
    outside: int = 0

    def __add__(self, other: Unfinished) -> Unfinished:
        return Unfinished(self.answers + other.answers, self.cut + other.cut, self.outside + other.outside)

    @property
    def any(self) -> bool:
        return self.cut + self.outside > 0

    @property
    def share(self) -> float:
        """The share of answers that max_answer cut."""
        return self.cut / max(self.answers, 1)

    def to_json(self) -> dict[str, float]:
        return dataclasses.asdict(self) | {"share": self.share}

    def summary(self) -> str:
        """A phrase that says how many answers were cut."""
        if not self.any:
            return "all answers ended"
        return (
            f"{self.cut} of {self.answers} answers ({100 * self.share:.2f} %) cut at max_answer, {self.outside} at the "
            "buffer's end"
        )


def count_unfinished(traces: Sequence[dict], labels: Sequence[dict], max_answer: int | None = None) -> Unfinished:
    """Counts over these labels, whose traces are among `traces`. max_answer: tokens at which annotation cut an answer;
    None if not known: then all unfinished answers count as cut there."""
    there, full, found = by_id(brief_rows(traces)), by_id(whole_rows(labels)), Unfinished()
    stops = functools.cache(lambda: stop_ids_in(whole_rows(traces)))
    for label in (label for label in brief_rows(labels) if label["id"] in there):
        room = leavable_tokens(there[label["id"]], label)
        finished = label["finished"] if "finished" in label else finished_of(full[label["id"]], stops())
        rows = zip(label["boundaries"], finished, label["forced_ids"], strict=True)
        left = [(whole, len(ids)) for place, whole, ids in rows if place < room]
        cut = sum(not whole and (max_answer is None or length >= max_answer) for whole, length in left)
        found += Unfinished(len(left), cut, sum(not whole for whole, _ in left) - cut)
    return found


def require_finished(folder: Path, traces: Sequence[dict], labels: Sequence[dict]) -> Unfinished:
    """Counts the unfinished answers of a split; raises ValueError if max_answer cut more than `MOST` of them."""
    most = annotate_settings(folder).get("max_answer")
    found = count_unfinished(traces, labels, most)
    if found.share > MOST:
        at = "max_answer" if most is None else f"max_answer {most}"
        raise ValueError(
            f"{found.cut} of {found.answers} forced answers of {folder} ({100 * found.share:.1f} %) were cut at {at} before "
            f"they ended, so that what an exit there answers is not known: raise config.annotate.max_answer and annotate in a "
            f"new workdir (at most {100 * MOST:g} % may be cut)"
        )
    return found
