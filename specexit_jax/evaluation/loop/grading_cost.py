"""Tokens a second of rollouts whose answers a slow checker grades, against those whose grades cost nothing."""

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from specexit_jax.annotation.rollout import Rollout, roll_out
from specexit_jax.data.grading.grader import Grader
from specexit_jax.data.splits import Problem
from specexit_jax.engine.methods import Method
from specexit_jax.engine.placement import told_rows
from specexit_jax.engine.session import Session
from specexit_jax.evaluation.loop import slow_judge

WAYS = ("no checker to wait for", "in other processes", "in the process that decodes")


def grading_cost(
    session: Session,
    problems: Sequence[Problem],
    method: Method,
    rollout: Rollout,
    *,
    checker: str,
    workers: int,
    rounds: int,
) -> dict[str, Any]:
    """Tokens a second of each way, and its ratio to the first by medians over pairs of interleaved rounds; compilation and
    the start of processes are left out. checker: a function of `slow_judge`. The last way, which is slow, takes one round.

    Raises ValueError should the ways write different tokens.
    """
    dear = dict.fromkeys({problem.checker for problem in problems}, 60.0)
    judge = f"{slow_judge.__name__}:{checker}"
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    ids: dict[str, list] = {}
    tally: dict[str, Any] = {}
    cpu: dict[str, float] = {}
    shares: dict[str, list[float]] = {}

    def one(way: str, own: Sequence[Problem], grader: Grader) -> float:
        with tempfile.TemporaryDirectory() as folder:
            began, computed = time.perf_counter(), time.process_time()
            measured = roll_out(session, own, method, Path(folder), rollout, grader=grader)
            taken, cpu[way] = time.perf_counter() - began, time.process_time() - computed
            shares.setdefault(way, []).append(measured["seconds"] / taken)
            rows = map(json.loads, (Path(folder) / "traces.jsonl").read_text().splitlines())
            ids[way] = sorted((row["id"], row["ids"]) for row in rows)
        return taken

    one(WAYS[0], problems, Grader())
    for turn in range(rounds):
        for way in WAYS[:2] if turn % 2 else WAYS[1::-1]:
            # a fresh grader: it would know the pairs of the last round
            with Grader(workers, judge, dear) if way == WAYS[1] else Grader() as grader:
                grader.start()
                seconds[way].append(one(way, problems, grader))
                tally[way] = grader.tally()
    seconds[WAYS[2]].append(one(WAYS[2], problems, Grader(0, judge, dear)))
    if any(ids[way] != ids[WAYS[0]] for way in WAYS):
        raise ValueError("The traces differ with the way of grading, so their times cannot be compared.")
    tokens = sum(len(row) for _, row in ids[WAYS[0]])
    plain = seconds[WAYS[0]]
    pace = {way: tokens / float(np.median(taken)) for way, taken in seconds.items()}
    return {
        "traces": len(problems),
        "batch_size": told_rows(rollout.batch_size),
        "checker": f"{checker}, {slow_judge.SECONDS} s a pair",
        "workers": workers,
        "tokens": tokens,
        "tokens_per_second": pace,
        "ratio": {way: float(np.median(np.array(plain[: len(seconds[way])]) / seconds[way])) for way in WAYS[1:]},
        # of a round's time, in which the device decodes (in batches of one row): other programs on the machine change it little
        "decoding_share": {way: float(np.median(taken)) for way, taken in shares.items()},
        "processor_seconds": cpu,  # of the process that decodes, in the last round
        "grading": tally[WAYS[1]],  # of the last round
        "rounds": rounds,
    }
