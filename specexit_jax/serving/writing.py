"""Generated ids as the texts of a message: reasoning and content, which grow; a stop text ends the content."""

from collections.abc import Sequence

from specexit_jax.engine.session import Session, text_of
from specexit_jax.engine.streaming import Increments
from specexit_jax.engine.thinking import END_THINK


class Stripped:
    """A text without the white space around it: that behind it is held back until something follows."""

    def __init__(self):
        self._held, self._begun = "", False

    def add(self, text: str) -> str:
        text = self._held + text if self._begun else text.lstrip()
        self._begun = self._begun or bool(text)
        said = text.rstrip()
        self._held = text[len(said) :]
        return said


class Stops:
    """A text up to the first of some texts: what may be the beginning of one is held back."""

    def __init__(self, stops: Sequence[str]):
        self._stops, self._held = stops, ""
        self.found = False

    def add(self, text: str, last: bool = False) -> str:
        if self.found:
            return ""
        text, self._held = self._held + text, ""
        places = [place for place in (text.find(stop) for stop in self._stops) if place >= 0]
        if places:
            self.found = True
            return text[: min(places)]
        if not last and self._stops:
            held = max(_overlap(text, stop) for stop in self._stops)
            text, self._held = text[: len(text) - held], text[len(text) - held :]
        return text


class Writing:
    """What one answer has written. raw: all of it is content, as it is (/v1/completions).

    kept: the number of ids up to the one that completes a stop text; None while there is none.
    """

    def __init__(self, session: Session, thinking: bool, stops: Sequence[str], raw: bool = False):
        self._session, self._thinking, self._raw = session, thinking and not raw, raw
        self._one_by_one = bool(stops)
        self._increments, self._stops = Increments(session), Stops(stops)
        self._reasoning, self._content = Stripped(), Stripped()
        self._text, self._read, self._place, self._begun = "", 0, 0, raw
        self.kept: int | None = None

    def upto(self, ids: Sequence[int], think_end: int | None, last: bool) -> tuple[str, str]:
        """(reasoning, content) that `ids`, all so far, add. think_end: the index of `</think>`; last: no more ids follow."""
        reasoning = content = ""
        for place in self._places(len(ids), think_end):
            if self.kept is not None:
                break
            self._read = place
            self._text += self._increments.upto(ids[:place], last and place == len(ids))
            one = self._parted(ids, think_end, last and place == len(ids))
            reasoning, content = reasoning + one[0], content + one[1]
            if self._stops.found:
                self.kept = place
        return reasoning, content

    def _places(self, number: int, think_end: int | None) -> Sequence[int]:
        """How many ids to read at a time: where a stop text ends the answer must not depend on where segments end."""
        if not self._one_by_one or (self._thinking and think_end is None):
            return (number,)
        first = max(self._read, think_end if self._thinking else 0) + 1
        return range(first, number + 1) or (number,)

    def _parted(self, ids: Sequence[int], think_end: int | None, last: bool) -> tuple[str, str]:
        reasoning = ""
        if self._thinking:
            end = self._end_of_thinking(ids, think_end, last)
            reasoning, self._place = self._reasoning.add(self._text[self._place : end]), end
            if self._thinking:
                return reasoning, ""
            self._place += len(END_THINK)
        fresh, self._place = self._text[self._place :], len(self._text)
        if not self._begun:
            fresh = fresh.lstrip()
            self._begun = bool(fresh)
        fresh = self._stops.add(fresh, last)
        return reasoning, fresh if self._raw else self._content.add(fresh)

    def _end_of_thinking(self, ids: Sequence[int], think_end: int | None, last: bool) -> int:
        """How much of the text is thinking for certain. Says so where it is over."""
        text = self._text
        if think_end is not None:
            # The first id of `</think>` may begin with text before it.
            found = text.find(END_THINK, len(text_of(self._session, ids[:think_end])))
            if found >= 0:
                self._thinking = False
                return found
        return len(text) if last else max(len(text) - _overlap(text, END_THINK), self._place)


def _overlap(text: str, ending: str) -> int:
    """The number of first characters of `ending`, not all of them, that a text ends in."""
    return next((n for n in range(min(len(ending) - 1, len(text)), 0, -1) if text.endswith(ending[:n])), 0)
