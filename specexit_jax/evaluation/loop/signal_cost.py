"""The cost of signals and exit rule on a real model: the loop with unreachable thresholds against a loop compiled
without them."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from specexit_jax.annotation.rollout import request_of
from specexit_jax.data.splits import Problem
from specexit_jax.engine.batches import Batch, execute, outcomes, plan, warm_up
from specexit_jax.engine.methods import make_method
from specexit_jax.engine.preparing import prepare
from specexit_jax.engine.requests import DecodeSettings
from specexit_jax.engine.session import Session, without_signals
from specexit_jax.evaluation.loop.latency import interleaved_ratio
from specexit_jax.exits.policy import Policy, Threshold, unreachable
from specexit_jax.exits.smoothers import Ewma


def signal_cost(
    session: Session,
    policy: Policy,
    kinds: Sequence[str],
    problems: Sequence[Problem],
    *,
    seed: int,
    draft_tokens: int,
    max_new_tokens: int,
    rounds: int,
) -> dict[str, Any]:
    """The added share of an iteration with its 95 % interval, ms an iteration of both sides; for JSON.

    Both sides write the same tokens in the same iterations (ValueError if not), each problem `rounds` times in turns,
    compilation excluded. Of `policy` the smoother runs.
    """
    smoother = policy.smoother if isinstance(policy, Threshold) else Ewma(signals=session.draft.signal_names)
    sides: dict[str, list[Batch]] = {}
    for name, side in (("without", without_signals(session)), ("with", session)):
        if name == "with":
            method = make_method(side, "specexit", unreachable(smoother), kinds, draft_tokens=draft_tokens)
        else:
            method = make_method(side, "eagle3", draft_tokens=draft_tokens)
        requests = [request_of(side, problem, seed) for problem in problems]
        sides[name] = plan(prepare(side, requests, method, DecodeSettings(max_new_tokens=max_new_tokens)))
        for batch in sides[name]:
            warm_up(batch)
    results = {name: _decoded(batches) for name, batches in sides.items()}
    written = [[outcome.ids for outcome in results[name]] for name in ("without", "with")]
    if written[0] != written[1]:
        raise ValueError("The two loops wrote different tokens, so their times cannot be compared.")
    steps = sum(outcome.steps for outcome in results["with"])
    # A round is one problem, so that a slow moment of the machine is shared by both sides.
    ratio = interleaved_ratio(*(_in_turn(sides[name]) for name in ("without", "with")), rounds * len(problems))
    return {
        "cost": ratio.median - 1,
        "low": ratio.low - 1,
        "high": ratio.high - 1,
        "iteration_ms": {
            name: 1e3 * seconds * len(problems) / steps
            for name, seconds in (("without", ratio.first_s), ("with", ratio.second_s))
        },
        "decodes": ratio.rounds,
        "iterations": steps,
    }


def _in_turn(batches: list[Batch]) -> Callable[[], Any]:
    """A call that decodes the next problem, round and round."""
    turns = itertools.cycle(batches)
    return lambda: execute(next(turns))


def _decoded(batches: list[Batch]) -> list:
    return [outcome for batch in batches for outcome in outcomes(batch, execute(batch))]
