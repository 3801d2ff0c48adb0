"""Slots whose request is decoded in a state of one row while it is the only one.

An iteration computes all rows of a state, so that one row among free slots takes as long as a full batch. Here it moves between two
states, on the device, and writes in both what it writes in either.
"""

from collections.abc import Iterator

import jax
import numpy as np

from specexit_jax.decoding.loop.segments import Written
from specexit_jax.decoding.rows import SlotRequest
from specexit_jax.decoding.spec import LoopContext
from specexit_jax.decoding.state import DecodeResult
from specexit_jax.engine.session import Session
from specexit_jax.engine.slots import FOREVER, Slots

LONE_ROW = ("auto", "on", "off")


class LoneSlots:
    """`full`, free slots at first, and one more row. To its user it is `full`.

    A slot's result is to be read before another request is admitted. lone: the row of the only request, while `row` says in which
    slot it is; None: it is in none, and `full` has all requests. While `lone` has one, `full` has none.
    """

    def __init__(self, full: Slots):
        self.full, self.lone = full, full.beside(1)
        self.row: int | None = None
        self._reading = False

    @property
    def loop(self) -> LoopContext:
        return self.full.loop

    @property
    def size(self) -> int:
        return self.full.size

    @property
    def compile_seconds(self) -> float:
        return self.full.compile_seconds

    @property
    def done(self) -> np.ndarray:
        return self.full.done if self.row is None else self._with_lone(self.full.done, self.lone.done)

    @property
    def lengths(self) -> np.ndarray:
        return self.full.lengths if self.row is None else self._with_lone(self.full.lengths, self.lone.lengths)

    @property
    def active(self) -> int:
        return int((~self.done).sum())

    @property
    def alone(self) -> bool:
        """Whether the next iteration computes one row."""
        return self.active == 1 and (self.row is not None or not self._reading)

    def admitting(self, row: int, request: SlotRequest) -> Iterator[None]:
        """As of `Slots`. The only request goes on by itself until the prompt is read."""
        self._reading = True
        try:
            fresh, room = yield from self.full.reading(request)
            if self.active:
                self._join()
                self.full.place(row, request, self.full.fitted(fresh, room), room)
            else:
                self.lone.adopt(request, fresh, room)
                self.row = row
        finally:
            self._reading = False

    def run(self, steps: int = FOREVER, enough: int | None = None) -> list[int]:
        """As of `Slots`. The last active request leaves the others' state, unless another's prompt is being read."""
        if self.alone and self.row is None:
            self._leave(int(np.flatnonzero(~self.full.done)[0]))
        if self.row is None:
            return self.full.run(steps, enough)
        return [self.row] if self.lone.run(steps, 1) else []

    def result(self, row: int) -> DecodeResult:
        return self.lone.result(0) if row == self.row else self.full.result(row)

    def stop(self, row: int) -> None:
        if row == self.row:
            self.lone.stop(0)
        else:
            self.full.stop(row)

    def written(self, since: np.ndarray, width: int) -> Written:
        """As of `Slots`. While the only request is by itself, its values stand for every slot."""
        if self.row is None:
            return self.full.written(since, width)
        seen = self.lone.written(since[self.row : self.row + 1], width)
        return jax.tree.map(lambda part: np.broadcast_to(part, (self.size, *part.shape[1:])), seen)

    def _join(self) -> None:
        """Moves the lone row into its slot of `full`, where all are free."""
        if self.row is None:
            return
        row, self.row = self.row, None
        self.full.resize(self.lone.live)  # so that a row needs no program for caches that are longer than its own
        self.lone.give(0, self.full, row)

    def _leave(self, row: int) -> None:
        """Moves the only active row of `full` out of it."""
        self.full.resize(self.full.needs(row))
        self.full.give(row, self.lone, 0)
        self.row = row

    def _with_lone(self, of_full: np.ndarray, of_lone: np.ndarray) -> np.ndarray:
        found = of_full.copy()
        found[self.row] = of_lone[0]
        return found


def lone_row_for(chosen: str, session: Session, slots: int) -> bool:
    """Whether `slots` slots of a session should have a row for a request that is the only one. chosen: one of `LONE_ROW`.

    auto: in float32 on one device. In bfloat16 programs of one row and of several round differently, so that a token could depend
    on whether others came while its request ran.
    """
    if slots == 1 or chosen != "auto":
        return slots > 1 and chosen == "on"
    return session.target.dtype == "float32" and (session.mesh is None or session.mesh.size == 1)
