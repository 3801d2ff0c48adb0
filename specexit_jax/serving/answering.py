"""One answer while it is decoded: what the engine tells of it, as texts and blocks."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from specexit_jax.api.reading import answer_of
from specexit_jax.exits.boundaries import Boundaries, boundary_positions
from specexit_jax.serving import blocks
from specexit_jax.serving.engine_loop import Progress
from specexit_jax.serving.fields import Asked
from specexit_jax.serving.logs import Logged, logged, of_chat, of_text, text
from specexit_jax.serving.metrics import Metrics
from specexit_jax.serving.offer import Choice, Offer
from specexit_jax.serving.writing import Writing


@dataclasses.dataclass(frozen=True)
class Update:
    """What an answer has got. block: its `specexit`: live, or of the whole answer. finish: the reason; None while it goes on. logs:
    of its new tokens, where they were asked for."""

    reasoning: str
    content: str
    block: dict[str, Any]
    finish: str | None = None
    logs: tuple[Logged, ...] | None = None


class Answering:
    """reasoning, content, logs: all so far; logs is None where they were not asked for. over: whether nothing follows. enough:
    whether a stop text has ended it."""

    def __init__(self, offer: Offer, choice: Choice, asked: Asked, metrics: Metrics):
        (request,) = choice.job.prepared.requests
        self.choice, self.reasoning, self.content, self.over = choice, "", "", False
        self._offer, self._metrics, self._thinking = offer, metrics, request.thinking
        self._writing = Writing(offer.session, request.thinking, asked.stop, raw=not asked.chat)
        self._ids: list[int] = []
        self.logs: list[Logged] | None = None if asked.logprobs is None else []
        self._most_logs, self._chat, self._told_letters = asked.logprobs, asked.chat, 0
        self._seen = 0  # tokens that were looked at for boundaries
        self._exit_told = False
        self._first: float | None = None
        self._last = choice.job.arrived

    @property
    def enough(self) -> bool:
        return self._writing.kept is not None

    def take(self, progress: Progress) -> Update:
        """What a report of the engine adds."""
        self._ids += progress.ids
        self.over = progress.outcome is not None
        if progress.ids and self.choice.job.watched:
            self._time()
        reasoning, content = self._writing.upto(self._ids, progress.think_end, self.over)
        self.reasoning, self.content = self.reasoning + reasoning, self.content + content
        logs = self._log(progress)
        if self.over:
            return self._end(progress, reasoning, content, logs)
        block = blocks.live(self.choice, len(self._ids), progress, self._boundaries(progress.think_end))
        block["exit"] = None
        if progress.exit is not None and not self._exit_told:
            self._exit_told, block["exit"] = True, {"token": progress.exit, "signals": block["signals"]}
        return Update(reasoning, content, {"live": block}, logs=logs)

    def _log(self, progress: Progress) -> tuple[Logged, ...] | None:
        """The new tokens up to the one that completes a stop text, with their log-probabilities."""
        if self.logs is None:
            return None
        fresh = logged(progress.ids, progress.logs, self._most_logs) if progress.ids else []
        if self._writing.kept is not None:
            fresh = fresh[: max(self._writing.kept - len(self.logs), 0)]
        self.logs += fresh
        return tuple(fresh)

    def told_logs(self, logs: Sequence[Logged] | None) -> dict[str, Any] | None:
        """Some of its log-probabilities as the `logprobs` of a choice, those before them told already."""
        if logs is None:
            return None
        session = self._offer.session
        if self._chat:
            return of_chat(session, logs)
        offset, self._told_letters = (
            self._told_letters,
            self._told_letters + sum(len(text(session, each.token)) for each in logs),
        )
        return of_text(session, logs, offset)

    def _end(self, progress: Progress, reasoning: str, content: str, logs: tuple[Logged, ...] | None) -> Update:
        outcome, job = progress.outcome, self.choice.job
        answer = answer_of(self._offer.session, outcome, job.prepared.method, self.choice.call.policy)
        kept = len(outcome.ids) if self._writing.kept is None else self._writing.kept
        now = time.perf_counter()
        since = {"queued": job.admitted, "first": self._first, "total": now}
        seconds = {name: None if value is None else round(value - job.arrived, 6) for name, value in since.items()}
        block = blocks.ending(self.choice, answer, progress, kept, seconds)
        self._metrics.answered(answer, block)
        self._metrics.accepted(outcome.accepted)
        return Update(reasoning, content, block, "stop" if self.enough or outcome.finished else "length", logs)

    def _time(self) -> None:
        now = time.perf_counter()
        if self._first is None:
            self._first = now
            self._metrics.first_token(now - self.choice.job.arrived)
        else:
            self._metrics.gap(now - self._last)
        self._last = now

    def _boundaries(self, think_end: int | None) -> list[int]:
        """Those since the last look."""
        if self._offer.boundaries is None or not self._thinking:
            return []
        found, self._seen = boundaries_since(self._offer.boundaries, self._ids, self._seen, think_end)
        return found


def boundaries_since(table: Boundaries, ids: Sequence[int], start: int, think_end: int | None) -> tuple[list[int], int]:
    """(the boundaries among the thinking tokens from `start` on, the token to go on with). think_end: of `</think>`; None: not yet.

    The last token is left for later: whether it is a boundary may depend on the token after it.
    """
    stop = len(ids) - 1 if think_end is None else min(think_end, len(ids))
    if stop <= start:
        return [], start
    return [start + place for place in boundary_positions(table, ids[start : stop + 1], stop - start)], stop
