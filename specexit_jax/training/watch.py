"""What is seen of a run: every finished step's metrics on the guard, the progress line and metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

import jax

from specexit_jax.data.batches import Batches
from specexit_jax.metrics import MetricsWriter
from specexit_jax.progress import Progress
from specexit_jax.training.guard import BadLoss, Guard, keep_batch
from specexit_jax.training.speed import Speed, peak_flops

Metrics = Mapping[str, jax.Array]


class Watch:
    """Looks at each step once, in order, a step after it was dispatched: the device never waits for the host.

    flops: of a step, over all `devices`.
    """

    def __init__(
        self, steps: int, start: int, log_every: int, workdir: Path, batches: Batches, guard: Guard,
        flops: float = 0.0, devices: int = 1,
    ):  # fmt: skip
        self._log_every, self._workdir, self._batches, self._guard = log_every, workdir, batches, guard
        self._speed = Speed(flops, devices * (peak_flops(jax.devices()[0].device_kind) or 0.0))
        self._writer = MetricsWriter(workdir / "metrics.jsonl", start)
        self._progress = Progress(steps, "step ")
        self._pending: tuple[int, Metrics] | None = None

    def dispatched(self, step: int, metrics: Metrics) -> None:
        """Looks at the step before this one. Raises BadLoss, its batch saved."""
        self.settle()
        self._pending = step, metrics

    def settle(self, log: bool = False) -> None:
        """Looks at the step dispatched last, waiting for it; writes it every `log_every` steps, or as `log` says."""
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
        self._speed.step(values.get("tokens", 0.0))
        self._progress.update(done, f"loss {values['loss']:.4f}")
        if log or done % self._log_every == 0:
            self._writer.write(done, values | self._speed.read())

    def write(self, done: int, values: Mapping[str, float] | None) -> None:
        """What a hook found after `done` steps."""
        if values:
            self._writer.write(done, values)

    def aside(self) -> AbstractContextManager[None]:
        """Time inside (saving, evaluation, what they compile) is no step's."""
        return self._speed.aside()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
