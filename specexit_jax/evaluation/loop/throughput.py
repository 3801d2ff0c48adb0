"""Tokens a second of a batch whose slots are refilled, against closed batches that wait for their longest answer."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from specexit_jax.engine.generate import generate
from specexit_jax.engine.methods import Method
from specexit_jax.engine.outcomes import Outcome
from specexit_jax.engine.placement import Placement
from specexit_jax.engine.requests import DecodeSettings, Request
from specexit_jax.engine.session import Session


def refill_gain(
    session: Session, requests: Sequence[Request], method: Method, *, batch_size: int, max_new_tokens: int, rounds: int
) -> dict[str, Any]:
    """Tokens per second of both, and their ratio, by medians over interleaved rounds.

    Compilation is left out: a first round, which is not counted, compiles every shape. Raises ValueError should the two
    write different tokens.
    """
    seconds: dict[str, list[float]] = {"refilled": [], "closed": []}
    written: dict[str, list[Outcome]] = {}
    settings = DecodeSettings(max_new_tokens=max_new_tokens)
    for turn in range(rounds + 1):
        for name in seconds if turn % 2 else reversed(seconds):
            start = time.perf_counter()
            placement = Placement(batch_size, refill=name == "refilled")
            written[name] = generate(session, requests, method, settings, placement)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    if [one.ids for one in written["refilled"]] != [one.ids for one in written["closed"]]:
        raise ValueError("Refilled and closed batches wrote different tokens, so their times cannot be compared.")
    tokens = sum(len(one.ids) for one in written["closed"])
    pace = {name: tokens / float(np.median(taken)) for name, taken in seconds.items()}
    return {
        "requests": len(requests),
        "batch_size": batch_size,
        "method": method.name,
        "tokens": tokens,
        "tokens_per_second": pace,
        "times": float(np.median(np.array(seconds["closed"]) / np.array(seconds["refilled"]))),
        "rounds": rounds,
    }
