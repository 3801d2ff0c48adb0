"""The service behind the addresses: requests become jobs of the engine, and what it tells of them comes back."""

import asyncio
import dataclasses
import hmac
import math
from collections.abc import AsyncIterator, Callable, Sequence

from specexit_jax.serving.answering import Answering, Update
from specexit_jax.serving.engine_loop import STEPS, EngineLoop, Job, Progress, Told
from specexit_jax.serving.fields import Asked
from specexit_jax.serving.metrics import Metrics
from specexit_jax.serving.offer import Choice, Offer
from specexit_jax.serving.refusals import Refused


@dataclasses.dataclass(frozen=True)
class Limits:
    """queue: answers that may wait for a slot. seconds: of a request, its wait included. largest_body: bytes. steps: iterations of
    a segment, after which requests join and leave."""

    queue: int = 256
    seconds: float = 600.0
    largest_body: int = 2**20
    steps: int = STEPS


class Service:
    """keys: who gives none of them is refused; () lets everybody in. warmed: called once all programs are compiled, with the
    seconds. stopping: whether new requests are refused. open: requests at work."""

    def __init__(
        self,
        offer: Offer,
        limits: Limits = Limits(),
        keys: Sequence[str] = (),
        warmed: Callable[[float], None] = lambda seconds: None,
    ):
        self.offer, self.limits, self._keys = offer, limits, [key.encode() for key in keys]
        self.stopping, self.open = False, 0
        self.engine = EngineLoop(offer.open_slots(), self._deliver, limits.steps, warmed)
        self.metrics = Metrics(lambda: self.engine.waiting, lambda: self.engine.busy, offer.size)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queues: dict[Job, asyncio.Queue[tuple[Job, Progress]]] = {}
        self._seconds = 1.0  # of an answer, on average lately

    def start(self) -> None:
        """Starts the engine; called in the event loop that serves."""
        self._loop = asyncio.get_running_loop()
        self.engine.start()

    def close(self) -> None:
        self.engine.close()

    @property
    def idle(self) -> bool:
        """Whether no request is at work."""
        return not (self.open or self.engine.busy or self.engine.waiting)

    @property
    def ready(self) -> bool:
        return self.engine.warm_seconds is not None and not self.stopping and not self.engine.failed

    def admit(self, authorization: str) -> None:
        """Checks a request's key. Raises Refused."""
        given = authorization.removeprefix("Bearer ").encode()
        # Every key is compared, in constant time.
        if self._keys and not sum(hmac.compare_digest(given, key) for key in self._keys):
            raise Refused(401, "The API key is missing or wrong.", code="invalid_api_key")

    def check_room(self, answers: int) -> None:
        """Raises Refused where so many answers cannot be accepted now."""
        if self.engine.failed:
            raise Refused(500, "The engine broke down.", code="engine_failed")
        if self.stopping or self.engine.warm_seconds is None:
            told = "is about to stop" if self.stopping else "is not warm yet"
            raise Refused(503, f"The server {told}.", code="not_ready", retry_after=5)
        if self.engine.waiting + answers > self.limits.queue:
            wait = math.ceil(self.engine.waiting / self.offer.size * self._seconds)
            raise Refused(429, "The queue is full: try again later.", code="queue_full", retry_after=max(wait, 1))

    def accept(self, asked: Asked, choices: Sequence[Choice]) -> "Answers":
        """Puts a request's answers into the queue. Raises Refused."""
        self.check_room(len(choices))
        return Answers(self, [Answering(self.offer, one, asked, self.metrics) for one in choices])

    def submit(self, jobs: Sequence[Job], queue: asyncio.Queue) -> None:
        self._queues |= dict.fromkeys(jobs, queue)
        self.engine.submit(jobs)

    def forget(self, jobs: Sequence[Job]) -> None:
        """Ends what is left of these jobs."""
        for job in jobs:
            if self._queues.pop(job, None) is not None:
                self.metrics.cancelled()
                self.engine.end(job)

    def _deliver(self, told: Told) -> None:
        self._loop.call_soon_threadsafe(self._dispatch, told)

    def _dispatch(self, told: Told) -> None:
        for job, progress in told:
            over = progress.outcome is not None or progress.failed
            queue = self._queues.pop(job, None) if over else self._queues.get(job)
            if progress.outcome is not None:
                self._seconds += 0.1 * (progress.outcome.seconds - self._seconds)
            if queue is not None:
                queue.put_nowait((job, progress))


class Answers:
    """The answers of one request. Iterate over `updates`, then `close`."""

    def __init__(self, service: Service, answers: Sequence[Answering]):
        self.all, self._service = answers, service
        self._by_job = {one.choice.job: one for one in answers}
        self._queue: asyncio.Queue[tuple[Job, Progress]] = asyncio.Queue()
        service.submit(list(self._by_job), self._queue)

    @property
    def prompt_tokens(self) -> int:
        return len(self.all[0].choice.job.request.prompt)

    async def updates(self) -> AsyncIterator[tuple[Answering, Update]]:
        """(an answer, what it has got), until all are over. Raises Refused where they take too long, or the engine breaks down."""
        until = asyncio.get_running_loop().time() + self._service.limits.seconds
        while not all(one.over for one in self.all):
            try:
                async with asyncio.timeout_at(until):
                    job, progress = await self._queue.get()
            except TimeoutError:
                told = f"The request took longer than {self._service.limits.seconds:g} seconds."
                raise Refused(504, told, code="timeout") from None
            if progress.failed:
                raise Refused(500, "The engine broke down.", code="engine_failed")
            one = self._by_job[job]
            update = one.take(progress)
            if one.enough and not one.over and not job.ended:
                self._service.engine.end(job)
            yield one, update

    def close(self) -> None:
        """Frees what is not over yet."""
        self._service.forget([job for job, one in self._by_job.items() if not one.over])
