"""Talk of several turns on one slot: what it holds of earlier turns is not computed again."""

import itertools
from collections.abc import Iterator

from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.methods import Method
from specexit_jax.engine.requests import Outcome, Request, prepare, slot_requests
from specexit_jax.engine.run import slots_for
from specexit_jax.engine.session import Session, chat_ids, text_of
from specexit_jax.engine.streaming import Piece, pieces_of
from specexit_jax.engine.thinking import THINK

CONTEXT = 16_384  # tokens that are kept at most where the caller does not say


class Conversation:
    """A conversation with a model.

    The chat template says what a later prompt holds of an earlier turn: mostly its answer without its thinking. The slot
    keeps the tokens that the prompts share; a turn computes the answer before it, the new message, and what it writes.
    computed, prompted: prompt tokens of the last turn that were computed, and all of them.
    """

    def __init__(
        self,
        session: Session,
        method: Method,
        *,
        sampling: Sampling | None = None,
        max_new_tokens: int | None = None,
        context: int | None = None,
        seed: int = 0,
    ):
        self.session, self.method, self.seed = session, method, seed
        self.messages: list[dict[str, str]] = []
        self.computed = self.prompted = 0
        self._sampling, self._wanted = sampling or session.sampling, max_new_tokens or session.max_new_tokens
        length = min(context or CONTEXT, session.target.max_position)
        self._slots = slots_for(session, method, 1, length, "keyed" if self._sampling.greedy else self._sampling.rule)
        self._held: tuple[int, ...] = ()

    def say(self, message: str) -> Iterator[Piece]:
        """The answer to the user's next message, piece by piece; it joins the conversation as far as it came.

        Raises ValueError where the conversation has outgrown its context.
        """
        session, turn = self.session, len(self.messages) // 2
        messages = [*self.messages, {"role": "user", "content": message}]
        request = Request(f"turn {turn}", tuple(chat_ids(session, messages)), self.seed)
        (request,) = prepare(session, [request], self.method)
        limit = self._slots.loop.spec.buffer_length
        if len(request.prompt_ids) >= limit:
            raise ValueError(
                f"The conversation has grown to {len(request.prompt_ids)} tokens, beyond its context of {limit}: "
                "begin a new one."
            )
        pairs = zip(self._held, request.prompt_ids, strict=False)
        held = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        self.prompted, self.computed = len(request.prompt_ids), len(request.prompt_ids) - max(held - 1, 0)
        (asked,) = slot_requests(session, [request], limit, self._sampling, self._wanted)
        written: list[int] = []
        try:
            for piece in pieces_of(session, self._slots, request, asked, self.method, held=held):
                written += piece.ids
                yield piece
        finally:
            opened = THINK + "\n" if session.thinking and session.thinking.is_open(request.prompt_ids) else ""
            answer = {"role": "assistant", "content": opened + text_of(session, written)}
            self.messages = [*messages, answer]
            # The last token's keys may be missing: a stop token ends the row before it is read.
            self._held = (*request.prompt_ids, *written)[:-1]

    def ask(self, message: str) -> Outcome:
        """The same, all at once."""
        return list(self.say(message))[-1].outcome
