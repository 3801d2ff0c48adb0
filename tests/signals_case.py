"""A whole signals.npz at once, as tests have it; the library writes traces as they come."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from specexit_jax.annotation.signal_file import write_signals


def save_signals(path: Path, signals: Mapping[str, np.ndarray], draft: str) -> None:
    write_signals(path, signals.items(), sum(map(len, signals.values())), draft)
