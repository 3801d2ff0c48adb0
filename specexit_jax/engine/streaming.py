"""One request while it is decoded: text, ids and signals piece by piece. The loop runs in segments of a few iterations."""

import dataclasses
import time
from collections.abc import Iterator, Sequence

import numpy as np

from specexit_jax.decoding.state import DecodeResult
from specexit_jax.engine.methods import Method
from specexit_jax.engine.outcomes import Outcome, outcome_of
from specexit_jax.engine.requests import PreparedRequest, PreparedRequests
from specexit_jax.engine.session import Session, text_of
from specexit_jax.engine.slots import Slots, slots_for
from specexit_jax.engine.specs import spec_of

STEPS = 4  # iterations of a segment


@dataclasses.dataclass(frozen=True)
class Piece:
    """What was generated since the piece before.

    thinking: whether the thinking is still open after it. signals: what the exit policy saw last, in the order of
    `Policy.signals`; None for policies that read none. outcome: of the last piece alone.
    """

    text: str
    ids: tuple[int, ...]
    thinking: bool
    signals: tuple[float, ...] | None
    outcome: Outcome | None = None


def stream_pieces(prepared: PreparedRequests, steps: int = STEPS) -> Iterator[Piece]:
    """The pieces of a single prepared request. To cancel it, stop iterating or close the iterator: nothing more is computed.

    steps: iterations of the loop from piece to piece.
    """
    slots = slots_for(prepared.session, prepared.method, spec_of(prepared), 1)
    yield from pieces_of(prepared, slots, steps)


def pieces_of(prepared: PreparedRequests, slots: Slots, steps: int = STEPS, held: int = 0) -> Iterator[Piece]:
    """The pieces of a single request in the only slot of `slots`, which holds the first `held` tokens of its prompt already."""
    (request,) = prepared.requests
    start = time.perf_counter() - slots.compile_seconds
    slots.admit(0, request.in_buffer(slots.loop.spec.buffer_length), held)
    text, sent = Increments(prepared.session), 0
    try:
        while True:
            result = slots.result(0)
            ids = _generated(result)
            fresh, sent, done = ids[sent:], len(ids), bool(slots.done[0])
            new_text = text.upto(ids, done)
            live = _is_thinking(request, result), _signals(prepared.method, result)
            if done:
                seconds = time.perf_counter() - slots.compile_seconds - start
                yield Piece(new_text, fresh, *live, outcome_of(prepared, request, result, 0, seconds))
                return
            if fresh:
                yield Piece(new_text, fresh, *live)
            slots.run(steps=steps)
    finally:
        slots.stop(0)


class Increments:
    """Generated ids as text that grows. A piece never ends within a character; all pieces joined are `text_of` all ids."""

    def __init__(self, session: Session):
        self._session, self._start, self._read = session, 0, 0

    def upto(self, ids: Sequence[int], last: bool) -> str:
        """The text that `ids` add to those of the calls before. An incomplete character waits, unless they are the last."""
        # Decoded with a few ids before them: some tokenizers write a word's space only behind another word.
        if not last and ids and ids[-1] in self._session.stop_ids:
            ids = ids[:-1]
        before = text_of(self._session, ids[self._start : self._read])
        text = text_of(self._session, ids[self._start :])
        if not last and text.endswith("\ufffd"):
            return ""
        self._start, self._read = self._read, len(ids)
        return text[len(before) :]


def _generated(result: DecodeResult) -> tuple[int, ...]:
    return tuple(result.tokens[0, int(result.prompt_length[0]) : int(result.length[0])].tolist())


def _is_thinking(request: PreparedRequest, result: DecodeResult) -> bool:
    return request.thinking and int(result.think_end[0]) < 0


def _signals(method: Method, result: DecodeResult) -> tuple[float, ...] | None:
    return tuple(np.asarray(result.seen_signals[0]).tolist()) if method.policy.signals else None
