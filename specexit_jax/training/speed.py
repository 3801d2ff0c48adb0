"""The speed of steps: seconds, tokens per second, and model FLOPs utilisation (MFU)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Dense bfloat16 FLOP/s of one device by the start of its kind, as JAX names it; longer starts first. From NVIDIA's data
# sheets of A100, H100 and H200 (without sparsity) and Google Cloud's pages on TPU v4, v5e, v5p and v6e.
_PEAKS: tuple[tuple[str, float], ...] = (
    ("NVIDIA H200", 989e12),
    ("NVIDIA H100 PCIe", 756e12),
    ("NVIDIA H100 NVL", 835e12),
    ("NVIDIA H100", 989e12),
    ("NVIDIA A100", 312e12),
    ("TPU v6 lite", 918e12),
    ("TPU v6e", 918e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5e", 197e12),
    ("TPU v5", 459e12),  # v5p, under either name
    ("TPU v4 lite", 138e12),
    ("TPU v4", 275e12),
)


def peak_flops(device_kind: str) -> float | None:
    """bfloat16 FLOP/s of one device of this kind; None if it is not known."""
    return next((peak for start, peak in _PEAKS if device_kind.startswith(start)), None)


class Speed:
    """Counts the steps between reads. The first call of `step` includes compilation and is left out.

    flops: model FLOPs a step over all devices. peak: FLOP/s of all devices together. Either 0: no utilisation.
    """

    def __init__(self, flops: float = 0.0, peak: float = 0.0, clock: Callable[[], float] = time.monotonic):
        self._flops, self._peak, self._clock = flops, peak, clock
        self._since: float | None = None
        self._steps, self._tokens = 0, 0.0

    def step(self, tokens: float = 0.0) -> None:
        """Counts one finished step; tokens: those it trained on or read, without padding."""
        if self._since is None:
            self._since = self._clock()
            return
        self._steps, self._tokens = self._steps + 1, self._tokens + tokens

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Time inside the block (evaluation) is not counted."""
        before = self._clock()
        yield
        if self._since is not None:
            self._since += self._clock() - before

    def read(self) -> dict[str, float]:
        """seconds_per_step, tokens_per_second and mfu since the last call, as far as they are known."""
        if not self._steps:
            return {}
        seconds = max(self._clock() - self._since, 1e-9)
        values = {"seconds_per_step": seconds / self._steps}
        if self._tokens:
            values["tokens_per_second"] = self._tokens / seconds
        if self._flops and self._peak:
            values["mfu"] = self._flops * self._steps / seconds / self._peak
        self._since, self._steps, self._tokens = self._clock(), 0, 0.0
        return values
