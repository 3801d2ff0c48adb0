"""The seconds of a request at batch 1 by part: prefill, verify, draft, exit, and the host.

The whole and the prefill are timed on real requests. The parts of an iteration cannot be timed inside the loop on the
device. Verify and draft are timed separately, at every live prefix that the requests pass through, and weighted by the
number of steps at that prefix.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from specexit_jax.annotation.rollout import request_of
from specexit_jax.backend import on_mesh
from specexit_jax.data.splits import Problem
from specexit_jax.decoding.spec import DecodeSpec
from specexit_jax.engine.batches import execute, outcomes, plan, prefill_alone, warm_up
from specexit_jax.engine.methods import Method
from specexit_jax.engine.preparing import prepare
from specexit_jax.engine.requests import DecodeSettings
from specexit_jax.engine.session import Session
from specexit_jax.evaluation.loop.latency import interleaved_ratio
from specexit_jax.evaluation.loop.timing import Case, LoopTimer
from specexit_jax.exits.policy import NeverExit, Threshold, unreachable
from specexit_jax.monitoring.progress import Progress

PARTS = ("prefill", "verify", "draft", "exit", "host")
_ITERATIONS, _REPEATS = 16, 7


@dataclasses.dataclass(frozen=True)
class StepCost:
    """Seconds of one iteration's verify and draft, and of a whole iteration that reads no signals."""

    verify: float
    draft: float
    whole: float


def latency_split(
    session: Session,
    problems: Sequence[Problem],
    methods: Sequence[Method],
    lengths: Mapping[str, np.ndarray],
    *,
    seed: int,
    max_new_tokens: int,
    rounds: int,
) -> dict[str, Any]:
    """Seconds a request by part, for methods that draft; for JSON.

    lengths: of `acceptance_position.step_lengths`, of the same problems without an exit. prefill: a call that generates
    nothing. exit: the time that signals and decisions add to an iteration, for methods that exit. host: the remainder
    of the whole: planning, dispatch, reading, and the loop's bookkeeping.
    """
    timed = {method.name: _timed(session, problems, method, seed, max_new_tokens, rounds) for method in methods}
    prefixes = {name: [_prefixes(one, lengths) for one in rows] for name, rows in timed.items()}
    every = sorted({int(prefix) for rows in prefixes.values() for row in rows for prefix in row})
    spec = next(iter(timed.values()))[0].spec
    exits = next((method.policy for method in methods if isinstance(method.policy, Threshold)), None)
    with on_mesh(session.mesh):
        costs = {prefix: _step_cost(session, spec, prefix) for prefix in every}
        added = None if exits is None else _exit_share(session, spec, every[0], exits)
    means = {}
    for method in methods:
        share = added["value"] if added and method.policy.reads else 0.0
        rows = [
            parts_of(one.whole, one.prefill, where, costs, share)
            for one, where in zip(timed[method.name], prefixes[method.name], strict=True)
        ]
        means[method.name] = {key: float(np.mean([row[key] for row in rows])) for key in (*PARTS, "whole")}
        means[method.name]["steps"] = float(np.mean([one.steps for one in timed[method.name]]))
    steps = {str(prefix): {k: 1e3 * v for k, v in dataclasses.asdict(cost).items()} for prefix, cost in costs.items()}
    return {"problems": len(problems), "rounds": rounds, "methods": means, "step_ms": steps, "exit_share": added}


def parts_of(
    whole: float, prefill: float, prefixes: Sequence[int], costs: Mapping[int, StepCost], exit_share: float
) -> dict[str, float]:
    """One request's seconds by part. prefixes: the live prefix of each of its steps; exit_share: of an iteration."""
    spent = {
        "prefill": prefill,
        "verify": sum(costs[prefix].verify for prefix in prefixes),
        "draft": sum(costs[prefix].draft for prefix in prefixes),
        "exit": exit_share * sum(costs[prefix].whole for prefix in prefixes),
    }
    return spent | {"host": whole - sum(spent.values()), "whole": whole}


@dataclasses.dataclass(frozen=True)
class _Request:
    id: str
    spec: DecodeSpec
    width: int  # of the padded prompt
    prompt: int
    steps: int
    whole: float  # median seconds
    prefill: float


def _timed(
    session: Session, problems: Sequence[Problem], method: Method, seed: int, max_new_tokens: int, rounds: int
) -> list[_Request]:
    """Every problem decoded `rounds` times, and as often prefilled alone; medians over the rounds."""
    requests = [request_of(session, problem, seed) for problem in problems]
    settings = DecodeSettings(max_new_tokens=max_new_tokens)
    planned = plan(prepare(session, requests, method, settings))
    for batch in {batch.rows.prompts.shape[1]: batch for batch in planned}.values():
        warm_up(batch)
    bar, found = Progress(rounds * len(requests), f"{method.name} by part "), {}
    for turn in range(rounds):
        for place, request in enumerate(requests):
            start = time.perf_counter()
            (batch,) = plan(prepare(session, [request], method, settings))
            (outcome,) = outcomes(batch, jax.block_until_ready(execute(batch)))
            whole = time.perf_counter() - start
            prefill = _seconds(lambda: prefill_alone(batch))  # noqa: B023
            found.setdefault(request.id, (batch, outcome, []))[2].append((whole, prefill))
            bar.update(turn * len(requests) + place + 1)
    return [
        _Request(name, batch.spec, batch.rows.prompts.shape[1], len(outcome.prompt_ids), outcome.steps,
                 *np.median(seconds, axis=0).tolist())
        for name, (batch, outcome, seconds) in found.items()
    ]  # fmt: skip


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def _prefixes(request: _Request, lengths: Mapping[str, np.ndarray]) -> list[int]:
    """The live prefix of each step, from the run without an exit. A run with an exit has the first of these steps; the
    steps of its forced answer count at the prefix of the exit."""
    before = lengths[request.id][:-1][: request.steps]
    before = np.concatenate([before, np.repeat(before[-1:], request.steps - len(before))])
    first = request.spec.prefixes_after(request.width)[0]
    return [max(first, request.spec.prefix_for(request.prompt + int(length))) for length in before]


def _case(spec: DecodeSpec, prefix: int) -> Case:
    """A few iterations that end where the live prefix (or the buffer) does."""
    room = min(prefix - spec.reach, spec.buffer_length)
    iterations = max(1, min(_ITERATIONS, room // 2 // (spec.draft_tokens + 1)))
    spec = dataclasses.replace(spec, stop_ids=(), record_signals=False)
    return Case(spec, 1, room - iterations * (spec.draft_tokens + 1), iterations)


def _step_cost(session: Session, spec: DecodeSpec, prefix: int) -> StepCost:
    timer = LoopTimer(_case(spec, prefix), session.params, policy=NeverExit())
    seconds = {part: [] for part in timer.parts}
    for _ in range(_REPEATS):
        for part in timer.parts:
            seconds[part].append(timer.run(part))
    return StepCost(**{part: float(np.median(taken[1:])) for part, taken in seconds.items()})


def _exit_share(session: Session, spec: DecodeSpec, prefix: int, policy: Threshold) -> dict[str, Any]:
    """The time that signals and exit rule add to an iteration, relative to one without, with its 95 % interval."""
    without, within = (
        LoopTimer(_case(spec, prefix), session.params, policy=one)
        for one in (NeverExit(), unreachable(policy.smoother))
    )
    ratio = interleaved_ratio(lambda: without.run("whole"), lambda: within.run("whole"))
    return {"value": ratio.median - 1, "ci95": [ratio.low - 1, ratio.high - 1], "rounds": ratio.rounds}
