"""Passes the metrics of every finished step to the guard, the progress line and metrics.jsonl."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import jax

from specexit_jax.data.batches import Batches
from specexit_jax.monitoring.metrics import MetricsWriter
from specexit_jax.monitoring.progress import Progress
from specexit_jax.training.guard import BadLoss, Guard, keep_batch
from specexit_jax.training.line import step_line
from specexit_jax.training.speed import Speed, peak_flops

Metrics = Mapping[str, jax.Array]


class Watch:
    """Reads each step's metrics in order, one step after it was dispatched, so that the device never waits for the
    host.

    flops: per step, over all `devices`. rates: learning rates by name, as functions of the update number.
    """

    def __init__(
        self, steps: int, start: int, log_every: int, workdir: Path, batches: Batches, guard: Guard,
        flops: float = 0.0, devices: int = 1, rates: Mapping[str, Callable[[int], Any]] | None = None,
    ):  # fmt: skip
        self._rates, self._look = rates or {}, None
        self._log_every, self._workdir, self._batches, self._guard = log_every, workdir, batches, guard
        self._speed = Speed(flops, devices * (peak_flops(jax.devices()[0].device_kind) or 0.0))
        self._pace = Speed()  # since the last progress line; `_speed` counts since the last entry of metrics.jsonl
        self._writer = MetricsWriter(workdir / "metrics.jsonl", start)
        self._progress = Progress(steps, "step ")
        self._pending: tuple[int, Metrics] | None = None

    def dispatched(self, step: int, metrics: Metrics) -> None:
        """Reads the metrics of the previous step. Raises BadLoss after saving its batch."""
        self.settle()
        self._pending = step, metrics

    def settle(self, log: bool = False) -> None:
        """Waits for the step dispatched last and reads its metrics; writes them every `log_every` steps, or as `log`
        says."""
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        try:
            self._guard.look(step, values)
        except BadLoss as problem:
            path = keep_batch(self._workdir, step, self._batches(step))
            raise BadLoss(f"{problem}; its batch is saved in {path}, the last checkpoint is intact") from None
        done = step + 1
        for speed in (self._speed, self._pace):
            speed.step(values.get("tokens", 0.0))
        self._progress.update(done, lambda: step_line(values, self._rates_of(step), self._pace.read(), self._look))
        if log or done % self._log_every == 0:
            self._writer.write(done, values | self._rates_of(step) | self._speed.read())

    def write(self, done: int, values: Mapping[str, float] | None) -> None:
        """Writes a hook's metrics after `done` steps."""
        if values:
            self._look = done, values
            self._writer.write(done, values)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Time inside the block (saving, evaluation, their compilation) is not counted."""
        with self._speed.aside(), self._pace.aside():
            yield

    def _rates_of(self, step: int) -> dict[str, float]:
        return {name: float(rate(step)) for name, rate in self._rates.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
