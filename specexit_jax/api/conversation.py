"""A conversation of several turns. What the caches hold of earlier turns is not computed again."""

from collections.abc import Iterator

from specexit_jax.api import arguments, reading
from specexit_jax.api.answer import Answer, Piece
from specexit_jax.api.calls import Call
from specexit_jax.engine import conversation


class Conversation:
    """One conversation with a model; `SpecExit.conversation` makes it."""

    def __init__(self, call: Call, context: int | None):
        self._call = call
        self._talk = conversation.Conversation(
            call.session, call.method, call.decode_settings(), context=context, seed=call.seed
        )

    @property
    def messages(self) -> list[dict[str, str]]:
        """All messages so far, {"role", "content"}, the thinking of answers included."""
        return self._talk.messages

    @property
    def why(self) -> str:
        """The method, and why it was chosen."""
        return f"method {self._call.choice.name}: {self._call.why}"

    @property
    def kept(self) -> tuple[int, int]:
        """(cached, all): prompt tokens of the last turn that were in the caches before it, and all of them."""
        return self._talk.prompted - self._talk.computed, self._talk.prompted

    def say(self, message: str) -> Iterator[Piece]:
        """The answer to the next message, piece by piece. Of a cancelled answer the conversation keeps what was written.

        Raises TypeError or ValueError at once on a message that is no text, or empty. The answer begins with its first piece:
        then ValueError is raised if the conversation has outgrown its context, or an earlier answer is still being written.
        """
        arguments.check_message(message)
        call = self._call
        thinks = call.session.thinking is not None and not call.method.closes_thinking
        return reading.pieces_of(call.session, self._talk.say(message), thinks, call.method, call.policy)

    def ask(self, message: str) -> Answer:
        """The whole answer to the next message. Raises as `say`."""
        return list(self.say(message))[-1].answer
