"""Requests decoded at batch 1 under the clock."""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from specexit_jax.annotation.rollout import request_of, trace_of
from specexit_jax.data.splits import Problem
from specexit_jax.engine.batches import Batch, execute, outcomes, plan, warm_up
from specexit_jax.engine.methods import DECODED, Method, make_method
from specexit_jax.engine.preparing import prepare
from specexit_jax.engine.requests import DecodeSettings
from specexit_jax.engine.session import Session
from specexit_jax.evaluation.loop.latency import measure_latency
from specexit_jax.evaluation.pipeline.harness import Setting
from specexit_jax.evaluation.records import Record, record_of_trace
from specexit_jax.exits.policy import Policy
from specexit_jax.monitoring.progress import Progress


def timed_records(
    session: Session, problems: Sequence[Problem], policy: Policy | None, kinds: Sequence[str], setting: Setting
) -> list[Record]:
    """Every decoding method on the first problems of each task at batch 1, decoded for real under the clock; none where
    latency_per_task is 0."""
    subset = first_of_each_task(problems, setting.latency_per_task)
    names = [name for name in setting.methods if name in DECODED]
    if not subset or not names:
        return []
    methods = {
        name: make_method(session, name, policy, kinds, setting.draft_tokens, max_answer=setting.max_answer)
        for name in names
    }
    batches = {(name, p.id): _batch(session, methods[name], p, setting) for name in names for p in subset}
    calls: dict[str, Callable] = {
        name: (lambda problem, name=name: execute(batches[name, problem.id])) for name in names
    }
    shapes: set[tuple] = set()

    def unseen(name: str, problem: Problem) -> bool:
        batch = batches[name, problem.id]
        shape = (name, batch.rows.prompts.shape)
        fresh = shape not in shapes
        if fresh:
            warm_up(batch)  # also the live prefixes that this problem does not reach
        shapes.add(shape)
        return fresh

    bar = Progress(setting.latency_rounds * len(subset), "latency ")
    seconds = measure_latency(calls, subset, setting.latency_rounds, unseen, progress=lambda done, _: bar.update(done))
    records = []
    for name in names:
        for row, problem in enumerate(subset):
            batch = batches[name, problem.id]
            (outcome,) = outcomes(batch, jax.block_until_ready(execute(batch)))
            latency = float(np.median(seconds[name][row]))
            trace = trace_of(session, problem, outcome, grader=setting.grader)
            records.append(record_of_trace(name, trace, latency))
    return records


def _batch(session: Session, method: Method, problem: Problem, setting: Setting) -> Batch:
    request, settings = (
        request_of(session, problem, setting.seed),
        DecodeSettings(max_new_tokens=setting.max_new_tokens),
    )
    (batch,) = plan(prepare(session, [request], method, settings))
    return batch


def first_of_each_task(problems: Sequence[Problem], count: int) -> list[Problem]:
    """At most `count` problems of each task, in their order."""
    taken: dict[str, list[Problem]] = {}
    for problem in problems:
        chosen = taken.setdefault(problem.task, [])
        if len(chosen) < count:
            chosen.append(problem)
    return [problem for chosen in taken.values() for problem in chosen]
