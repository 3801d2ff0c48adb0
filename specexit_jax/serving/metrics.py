"""The numbers of /metrics, in Prometheus' text form."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from specexit_jax.api.answer import Answer

disable_created_metrics()  # a second line for each number, with the time of its first
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """waiting, busy: requests without a slot, slots with one; slots: of them all."""

    def __init__(self, waiting: Callable[[], int], busy: Callable[[], int], slots: int):
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        named = {"namespace": "specexit", "registry": registry}
        self.requests = Counter("requests", "HTTP requests, by path and status.", ["path", "status"], **named)
        Gauge("queue_length", "Answers that wait for a slot.", **named).set_function(waiting)
        Gauge("slots_busy", "Slots that hold an answer.", **named).set_function(busy)
        Gauge("slots", "Slots.", **named).set(slots)
        self.warm = Gauge("warm_seconds", "How long it took to compile all programs.", **named)
        self._tokens = Counter("tokens", "Tokens, by kind: prompt, thinking, answer.", ["kind"], **named)
        self._steps = Counter("steps", "Passes of the target.", **named)
        self._whole = Counter("whole_steps", "Verify steps that count for the mean of accepted tokens.", **named)
        self._accepted = Counter(
            "accepted_tokens", "Tokens of whole steps, the bonus token too: divided by them, tau.", **named
        )
        self._closed = Counter("thinking_closed", "Answers, by who ended the thinking.", ["by"], **named)
        self._saved = Counter("tokens_saved", "Tokens that exits are expected to have saved.", **named)
        self._cancelled = Counter("cancelled", "Answers whose client left, or whose time was over.", **named)
        self._first = Histogram("first_token_seconds", "From a request to its first text.", buckets=_SECONDS, **named)
        self._gap = Histogram("gap_seconds", "Between two pieces of a stream.", buckets=_SECONDS, **named)
        self._whole_seconds = Histogram(
            "answer_seconds", "From a request to its last token.", buckets=_SECONDS, **named
        )

    def answered(self, answer: Answer, block: dict) -> None:
        """Counts an answer that is over. block: its `specexit`."""
        tokens, usage = block["tokens"], answer.usage
        for kind, number in tokens.items():
            self._tokens.labels(kind).inc(number)
        self._steps.inc(usage.steps)
        self._closed.labels(block["closed"] or "nobody").inc()
        if block["unstopped"] is not None:
            self._saved.inc(max(block["unstopped"] - len(answer.ids), 0))
        self._whole_seconds.observe(block["seconds"]["total"])

    def accepted(self, histogram: tuple[int, ...]) -> None:
        """Counts verify steps. histogram[n]: those that accepted n drafts."""
        self._whole.inc(sum(histogram))
        self._accepted.inc(sum((number + 1) * count for number, count in enumerate(histogram)))

    def cancelled(self) -> None:
        self._cancelled.inc()

    def first_token(self, seconds: float) -> None:
        self._first.observe(seconds)

    def gap(self, seconds: float) -> None:
        self._gap.observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)
