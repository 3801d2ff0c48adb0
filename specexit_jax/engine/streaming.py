"""One request as it comes: text, ids and the live signals, piece by piece, while the loop runs on in segments."""

import dataclasses
import time
from collections.abc import Iterator, Sequence

import numpy as np

from specexit_jax.decoding.rows import SlotRequest
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.decoding.state import DecodeResult
from specexit_jax.engine.methods import Method
from specexit_jax.engine.requests import Outcome, Request, new_tokens, outcome_of, prepare, rule_of, slot_requests
from specexit_jax.engine.run import buffer_for, slots_for
from specexit_jax.engine.session import Session, is_thinking, text_of
from specexit_jax.engine.slots import Slots

STEPS = 4  # iterations of the loop from one look at it to the next


@dataclasses.dataclass(frozen=True)
class Piece:
    """What came since the last one. thinking: whether the thinking is still open after it; signals: what the exit policy
    saw last, in the order of `Policy.signals`, None for policies that read none; outcome: of the last piece alone."""

    text: str
    ids: tuple[int, ...]
    thinking: bool
    signals: tuple[float, ...] | None
    outcome: Outcome | None = None


def stream_pieces(
    session: Session,
    request: Request,
    method: Method,
    *,
    sampling: Sampling | None = None,
    max_new_tokens: int | None = None,
    steps: int = STEPS,
) -> Iterator[Piece]:
    """The pieces of one request; to cancel it, stop iterating (or close the iterator): nothing more is computed."""
    (request,) = prepare(session, [request], method, max_new_tokens)
    length = buffer_for(len(request.prompt_ids), new_tokens(session, request, max_new_tokens))
    slots = slots_for(session, method, 1, length, rule_of(session, [request], sampling))
    (asked,) = slot_requests(session, [request], slots.loop.spec.buffer_length, sampling, max_new_tokens)
    yield from pieces_of(session, slots, request, asked, method, steps)


def pieces_of(
    session: Session,
    slots: Slots,
    request: Request,
    asked: SlotRequest,
    method: Method,
    steps: int = STEPS,
    held: int = 0,
) -> Iterator[Piece]:
    """The pieces of a request in the only slot of `slots`, which holds the first `held` tokens of its prompt already."""
    start = time.perf_counter() - slots.compile_seconds
    slots.admit(0, asked, held)
    text, sent = Increments(session), 0
    try:
        while True:
            result = slots.result(0)
            ids = _generated(result)
            fresh, sent, done = ids[sent:], len(ids), bool(slots.done[0])
            said = text.upto(ids, done)
            if done:
                seconds = time.perf_counter() - slots.compile_seconds - start
                thinking, context = is_thinking(session, request.prompt_ids), session.target.max_position
                outcome = outcome_of(request, method, thinking, result, 0, seconds, context)
                yield Piece(said, fresh, _thinks(session, request, result), _signals(method, result), outcome)
                return
            if fresh:
                yield Piece(said, fresh, _thinks(session, request, result), _signals(method, result))
            slots.run(steps=steps)
    finally:
        slots.stop(0)


class Increments:
    """Generated ids as text that grows: never half a character, and in all what `text_of` makes of all ids."""

    def __init__(self, session: Session):
        self._session, self._start, self._read = session, 0, 0

    def upto(self, ids: Sequence[int], last: bool) -> str:
        """The text that `ids` add to those of the calls before; what is incomplete waits, unless they are the last."""
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


def _thinks(session: Session, request: Request, result: DecodeResult) -> bool:
    return is_thinking(session, request.prompt_ids) and int(result.think_end[0]) < 0


def _signals(method: Method, result: DecodeResult) -> tuple[float, ...] | None:
    return tuple(np.asarray(result.seen_signals[0]).tolist()) if method.policy.signals else None
