"""Wall time of decoding at batch 1: methods interleaved, compilation excluded, timed until the device is done."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


def measure_latency(
    methods: Mapping[str, Callable[[Any], Any]],
    problems: Sequence[Any],
    rounds: int = 3,
    warm_up: Callable[[str, Any], bool] = lambda method, problem: True,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, np.ndarray]:
    """Seconds of every method on every problem: {method: float64[problems, rounds]}; take the median over rounds.

    methods: name -> decode(problem), whose result is arrays (their pytree is waited for).
    Interleaved: each problem is run by every method before the next one, in an order that rotates with problem and
    round, so that a slow minute of the machine or a warm cache touches all methods alike.
    warm_up(method, problem): whether to run the pair once, untimed, at the start (default: all pairs). Needed for one
    pair of every compiled shape, so that no compilation is timed.
    """
    if not methods or not problems:
        raise ValueError("latency needs at least one method and one problem")
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}: at least 1")
    names = list(methods)
    for problem in problems:
        for name in names:
            if warm_up(name, problem):
                jax.block_until_ready(methods[name](problem))
    seconds = {name: np.zeros((len(problems), rounds)) for name in names}
    for round_ in range(rounds):
        for row, problem in enumerate(problems):
            for name in _rotated(names, row + round_):
                seconds[name][row, round_] = _timed(lambda: methods[name](problem), clock)  # noqa: B023 (called at once)
            progress(round_ * len(problems) + row + 1, rounds * len(problems))
    return seconds


class Ratio(NamedTuple):
    """second / first over interleaved rounds."""

    median: float  # of the per-round ratios
    low: float  # 95 % interval of the median (order statistics, distribution-free)
    high: float
    first_s: float  # mean seconds of a round
    second_s: float
    rounds: int


def interleaved_ratio(
    first: Callable[[], Any],
    second: Callable[[], Any],
    rounds: int = 50,
    warm_up: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> Ratio:
    """A/B timing: both run in every round, who goes first alternates; refuses fewer than 50 rounds.

    Both must do the same amount of work (e.g. the same number of loop iterations) for the ratio to mean anything.
    """
    if rounds < 50:
        raise ValueError(
            f"rounds is {rounds}: an A/B ratio needs at least 50 interleaved rounds to resolve a few per cent"
        )
    for _ in range(warm_up):
        jax.block_until_ready((first(), second()))
    seconds = np.zeros((rounds, 2))
    for round_ in range(rounds):
        for side in (0, 1) if round_ % 2 == 0 else (1, 0):
            seconds[round_, side] = _timed((first, second)[side], clock)
    ratios = np.sort(seconds[:, 1] / seconds[:, 0])
    margin = 0.98 * np.sqrt(rounds)  # 1.96 * sqrt(n / 4): ranks of the binomial(n, 1/2) interval
    low = ratios[max(0, int(np.floor(rounds / 2 - margin)))]
    high = ratios[min(rounds - 1, int(np.ceil(rounds / 2 + margin)))]
    mean = seconds.mean(axis=0)
    return Ratio(
        median=float(np.median(ratios)),
        low=float(low),
        high=float(high),
        first_s=float(mean[0]),
        second_s=float(mean[1]),
        rounds=rounds,
    )


def _timed(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    jax.block_until_ready(call())
    return clock() - start


def _rotated(names: list[str], turn: int) -> list[str]:
    """Rotated by `turn`, and reversed every other lap, so that no method always follows the same neighbour."""
    shift = turn % len(names)
    order = names[shift:] + names[:shift]
    return order[::-1] if turn // len(names) % 2 else order
