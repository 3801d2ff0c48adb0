"""Stops a run at a loss that is not finite or that spikes, and saves the batch."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from specexit_jax.data.packing import Rows
from specexit_jax.parallel.distributed import InAll

_DECAY = 0.98  # of the average that a spike is compared with: about fifty steps
_WARMUP = 50  # steps before the average is used


class BadLoss(InAll, ValueError):
    """The run must stop: this step's loss or gradient is not finite, or the loss spiked."""


class Guard:
    """Checks every step's loss, in order.

    spike_factor: the largest allowed ratio of a loss to the exponential average of earlier losses; 0: no limit. The
    average is saved in checkpoints (`notes`), so a resumed run decides like an uninterrupted one.
    """

    def __init__(self, spike_factor: float, notes: Mapping[str, float]):
        if spike_factor and spike_factor <= 1:
            raise ValueError(f"spike_factor is {spike_factor}: it must be above 1, or 0 to let every loss pass")
        self._factor = spike_factor
        self._average, self._seen = float(notes.get("loss_average", 0.0)), int(notes.get("losses_seen", 0))

    def notes(self) -> dict[str, float]:
        """The state that a resumed run's Guard continues from."""
        return {"loss_average": self._average, "losses_seen": self._seen}

    def look(self, step: int, values: Mapping[str, float]) -> None:
        """Raises BadLoss with the step's number."""
        bad = [name for name in ("loss", "grad_norm") if not math.isfinite(values.get(name, 0.0))]
        if bad:
            raise BadLoss(f"{' and '.join(bad)} not finite at step {step}")
        loss = values["loss"]
        if self._factor and self._seen >= _WARMUP and loss > self._factor * self._average:
            raise BadLoss(
                f"the loss of step {step} is {loss:.4g}, over {self._factor:g} times its average of {self._average:.4g} "
                "(lower the learning rate, or raise spike_factor)"
            )
        # the plain mean of the first steps, then exponential
        share = max(1 - _DECAY, 1 / (self._seen + 1))
        self._average, self._seen = self._average + share * (loss - self._average), self._seen + 1


def keep_batch(workdir: Path, step: int, batch: Rows) -> Path:
    """Writes this process's rows of the batch to `workdir`; returns the file."""
    several = f"_process_{jax.process_index()}" if jax.process_count() > 1 else ""
    path = workdir / f"bad_batch_{step}{several}.npz"
    temporary = path.with_name(path.name + ".tmp.npz")
    np.savez(temporary, **batch)
    os.replace(temporary, path)
    return path
