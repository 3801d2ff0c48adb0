"""Outcomes of random traces, for tests of calibration."""

import numpy as np

from specexit_jax.exits.calibration import Outcomes, task_weights
from specexit_jax.exits.units import Units


def random_outcomes(seed: int, traces: int = 200, most: int = 9) -> Outcomes:
    """Traces whose confidence rises once the answer is known: earlier exits are wrong, later ones cost tokens."""
    rng = np.random.default_rng(seed)
    present = np.arange(most)[None, :] < rng.integers(0, most + 1, traces)[:, None]
    known = np.arange(most)[None, :] >= rng.integers(0, most, traces)[:, None]
    confidence = np.clip(0.35 + 0.3 * known + 0.15 * rng.normal(size=(traces, most)), 0, 1)
    progress, remain = rng.random((traces, most)), 200 * rng.random((traces, most))
    full_correct = rng.random(traces) < 0.95
    tasks = ["a"] * (traces // 4) + ["b"] * (traces - traces // 4)
    tokens = np.cumsum(rng.integers(5, 30, (traces, most)), axis=1)
    return Outcomes(
        smoothed=np.stack([confidence, progress, remain], axis=-1).astype(np.float32),
        present=present,
        tokens=tokens,
        thinking=tokens - 4,
        correct=known & full_correct[:, None],
        full_tokens=np.full(traces, 400),
        full_correct=full_correct,
        closed=rng.random(traces) < 0.97,
        weights=task_weights(tasks),
        units=Units.of([str(number) for number in range(traces)], [0] * traces, tasks),
    )
