"""Talk of several turns: what the model has read of earlier ones is not computed again."""

from collections.abc import Iterator

from specexit_jax.api import arguments, reading
from specexit_jax.api.answer import Answer, Piece
from specexit_jax.api.asking import Asked
from specexit_jax.engine import conversation


class Conversation:
    """One conversation with a model; `SpecExit.conversation` makes it."""

    def __init__(self, asked: Asked, context: int | None):
        self._asked = asked
        self._talk = conversation.Conversation(
            asked.session, asked.method, asked.decode_settings(), context=context, seed=asked.seed
        )

    @property
    def messages(self) -> list[dict[str, str]]:
        """All messages so far, {"role", "content"}, the thinking of answers included."""
        return self._talk.messages

    @property
    def why(self) -> str:
        """Which method answers, and how it was chosen."""
        return self._asked.choice.line

    @property
    def kept(self) -> tuple[int, int]:
        """Prompt tokens of the last turn that had been read before, and all of them."""
        return self._talk.prompted - self._talk.computed, self._talk.prompted

    def say(self, message: str) -> Iterator[Piece]:
        """The answer to the next message, piece by piece; it joins the conversation as far as it came.

        Raises ValueError where the message is empty, and where the conversation has outgrown its context.
        """
        arguments.check_prompt(message)
        asked = self._asked
        thinks = asked.session.thinking is not None and not asked.method.closes_thinking
        return reading.pieces_of(asked.session, self._talk.say(message), thinks, asked.method, asked.policy)

    def ask(self, message: str) -> Answer:
        """The same, all at once."""
        return list(self.say(message))[-1].answer
