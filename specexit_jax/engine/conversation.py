"""A conversation of several turns in one slot. What the slot's caches hold of earlier turns is not computed again."""

import itertools
from collections.abc import Iterator

from specexit_jax.engine.methods import Method
from specexit_jax.engine.outcomes import Outcome
from specexit_jax.engine.preparing import prepare
from specexit_jax.engine.requests import DecodeSettings, Request
from specexit_jax.engine.session import Session, chat_ids, text_of
from specexit_jax.engine.slots import slots_for
from specexit_jax.engine.specs import rule_of, spec_for
from specexit_jax.engine.streaming import Piece, pieces_of
from specexit_jax.engine.thinking import THINK

CONTEXT = 16_384  # the most tokens of a conversation where the caller does not say


class Conversation:
    """A conversation with a model.

    The chat template decides what a prompt holds of earlier turns: mostly their answers without the thinking. The slot
    keeps the tokens that two prompts share. A turn computes the last answer, the new message, and what it generates.
    computed, prompted: prompt tokens of the last turn that were computed, and all of them.
    """

    def __init__(
        self,
        session: Session,
        method: Method,
        settings: DecodeSettings = DecodeSettings(),
        *,
        context: int | None = None,
        seed: int = 0,
    ):
        self.session, self.method, self.seed = session, method, seed
        self.messages: list[dict[str, str]] = []
        self.computed = self.prompted = 0
        self._settings = settings
        length = min(context or CONTEXT, session.target.max_position)
        spec = spec_for(session, method, length, rule_of([settings.sampling or session.sampling]))
        self._slots = slots_for(session, method, spec, 1)
        self._held: tuple[int, ...] = ()
        self._answering = False

    def say(self, message: str) -> Iterator[Piece]:
        """The answer to the user's next message, piece by piece. Of a cancelled answer the conversation keeps what was written.

        The answer begins with its first piece. Raises ValueError then, if the conversation has outgrown its context, or if an
        earlier answer is still being written.
        """
        if self._answering:
            raise ValueError(
                "An answer of this conversation is still being written: read it to its end, or close it, first."
            )
        session, turn = self.session, len(self.messages) // 2
        messages = [*self.messages, {"role": "user", "content": message}]
        asked = Request(f"turn {turn}", tuple(chat_ids(session, messages)), self.seed)
        self._check_length(len(asked.prompt_ids))
        prepared = prepare(session, [asked], self.method, self._settings)
        (request,) = prepared.requests
        self._check_length(len(request.prompt_ids))
        pairs = zip(self._held, request.prompt_ids, strict=False)
        held = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        self.prompted, self.computed = len(request.prompt_ids), len(request.prompt_ids) - max(held - 1, 0)
        written: list[int] = []
        self._answering = True
        try:
            for piece in pieces_of(prepared, self._slots, held=held):
                written += piece.ids
                yield piece
        finally:
            self._answering = False
            opened = THINK + "\n" if request.thinking else ""
            answer = {"role": "assistant", "content": opened + text_of(session, written)}
            self.messages = [*messages, answer]
            # The last token's keys may be missing: a stop token ends the row before it is read.
            self._held = (*request.prompt_ids, *written)[:-1]

    def _check_length(self, tokens: int) -> None:
        """Refuses a prompt that leaves no room for an answer."""
        limit = self._slots.loop.spec.buffer_length
        if tokens < limit:
            return
        if not self.messages:
            raise ValueError(
                f"The first prompt has {tokens} tokens, but the conversation's context is {limit}: shorten the message, or give "
                "a longer context."
            )
        raise ValueError(
            f"The conversation has grown to {tokens} tokens, beyond its context of {limit}: begin a new one."
        )

    def ask(self, message: str) -> Outcome:
        """The whole answer to the user's next message. Raises as `say`."""
        return list(self.say(message))[-1].outcome
