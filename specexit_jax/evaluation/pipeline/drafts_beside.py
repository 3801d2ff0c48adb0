"""Two drafts of one target side by side: how far they guess, what their confidence knows, what their policies save, their pace.

Both see the same problems; intervals are of 95 %, over problems, those of a difference of pairs (evaluation/statistics.py).
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from specexit_jax.annotation.kinds import annotated_split
from specexit_jax.annotation.replay import outcomes, smoothed_at_boundaries
from specexit_jax.annotation.rollout import request_of
from specexit_jax.data.splits import Problem
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.engine.generate import generate
from specexit_jax.engine.methods import Method, make_method
from specexit_jax.engine.placement import Placement
from specexit_jax.engine.requests import DecodeSettings
from specexit_jax.engine.session import Session
from specexit_jax.evaluation.loop.latency import measure_latency
from specexit_jax.evaluation.pipeline.harness import extracted
from specexit_jax.evaluation.score_quality import auc
from specexit_jax.evaluation.statistics import LEVEL, Estimate, resampled, strata_of, stratified_estimate
from specexit_jax.exits.calibration import Outcomes, exit_boundaries, results_at
from specexit_jax.exits.policy_file import PolicyFile
from specexit_jax.exits.signals import agreement_column
from specexit_jax.exits.smoothers import smoother_named
from specexit_jax.exits.units import problem_of
from specexit_jax.models.draft_layer import DraftBundle

RESAMPLES = 400  # of an AUC, which ranks all boundaries each time


@dataclasses.dataclass(frozen=True)
class Row:
    """A quantity of both drafts, and the second's less the first's."""

    quantity: str
    first: Estimate
    second: Estimate
    difference: Estimate


@dataclasses.dataclass(frozen=True)
class Side:
    """A session with one of the drafts, its certified policy, and a folder with the annotated splits."""

    session: Session
    policy: PolicyFile
    workdir: Path


Sides = tuple[Side, Side]
MethodOf = Callable[[Session], Method]


def drafting(
    sides: Sides, problems: Sequence[Problem], shape: str, of: MethodOf, seed: int, longest: int, rows: int
) -> list[Row]:
    """τ of drafts of one shape, and of a chain the share of drafts that is accepted at each place, of those before which all were.

    longest: new tokens of an answer at most. rows: decoded at a time. Raises ValueError should the drafts change what is written.
    """
    found = []
    for side in sides:
        requests = [request_of(side.session, problem, seed) for problem in problems]
        settings = DecodeSettings(max_new_tokens=longest)
        found.append(generate(side.session, requests, of(side.session), settings, Placement(rows)))
    if [one.ids for one in found[0]] != [one.ids for one in found[1]]:
        raise ValueError(f"{shape}: the drafts wrote different tokens, so that their steps cannot be compared.")
    tasks, names = [problem.task for problem in problems], [problem.id for problem in problems]
    accepted = [np.asarray([one.accepted for one in own], np.float64) for own in found]
    counts = np.arange(1, accepted[0].shape[1] + 1, dtype=np.float64)
    pairs = [np.stack([own @ counts, own.sum(axis=1)], axis=1) for own in accepted]
    told = [_ratios(f"τ, {shape}", pairs, tasks, names)]
    if of(sides[0].session).tree is None:
        for place in range(1, accepted[0].shape[1]):
            shares = [
                np.stack([own[:, place:].sum(axis=1), own[:, place - 1 :].sum(axis=1)], axis=1) for own in accepted
            ]
            told.append(_ratios(f"accepted at step {place}, {shape}", shares, tasks, names))
    return told


def knowing(sides: Sides, split: str, kinds: Sequence[str]) -> Row:
    """AUC of the confidence at the boundaries of a split against whether the answer forced there agrees."""
    scores, agree, names = [], np.zeros(0, bool), []
    for side, (traces, labels, signals) in zip(sides, _both(sides, split, kinds), strict=True):
        own = smoothed_at_boundaries(smoother_named("none", side.session.draft.signal_names), traces, labels, signals)
        column = agreement_column(side.session.draft.signal_names)
        scores.append(np.concatenate([seen[:, column] for seen in own]))
        agree = np.concatenate([np.asarray(label["agree"], bool) for label in labels])
        names = [problem_of(trace) for trace, seen in zip(traces, own, strict=True) for _ in seen]
    drawn = np.asarray([[auc(agree[rows], own[rows]) for own in scores] for rows in resampled(names, RESAMPLES)])
    values = [auc(agree, own) for own in scores]
    return _row("AUC of confidence", values, drawn)


def saving(sides: Sides, split: str, kinds: Sequence[str]) -> Row:
    """The tokens that each draft's policy leaves, as a share of those without exits, on a split."""
    columns, tasks, names = [], [], []
    for side, (traces, labels, signals) in zip(sides, _both(sides, split, kinds), strict=True):
        length = len(side.session.end_think_ids)
        seen = outcomes(side.policy.policy().smoother, traces, labels, signals, length)
        columns.append(np.stack([_tokens(seen, side.policy), seen.full_tokens], axis=1))
        tasks, names = [trace["task"] for trace in traces], [problem_of(trace) for trace in traces]
    return _ratios("tokens with exits, of those without", columns, tasks, names)


def pacing(sides: Sides, problems: Sequence[Problem], of: MethodOf, seed: int, longest: int, rounds: int) -> Row:
    """Milliseconds a token of one row, medians over interleaved rounds; intervals over problems."""

    def decoder(side: Side) -> Callable[[Problem], Any]:
        method, settings = of(side.session), DecodeSettings(max_new_tokens=longest)
        return lambda problem: [
            len(one.ids) for one in generate(side.session, [request_of(side.session, problem, seed)], method, settings)
        ]

    ways = {"first": decoder(sides[0]), "second": decoder(sides[1])}
    seconds = measure_latency(ways, problems, rounds)
    tokens = np.asarray([sum(ways["first"](problem)) for problem in problems], np.float64)
    tasks, names = [problem.task for problem in problems], [problem.id for problem in problems]
    pairs = [np.stack([1000 * np.median(seconds[name], axis=1), tokens], axis=1) for name in ways]
    return _ratios("ms a token, one row", pairs, tasks, names)


def _both(sides: Sides, split: str, kinds: Sequence[str]) -> list[tuple]:
    """`_along` of both. Raises ValueError where their traces are not the same."""
    found = [_along(side, split, kinds) for side in sides]
    first, second = found[0][0], found[1][0]
    pairs = zip(first, second, strict=False)  # one of each at a time: they may be large
    if len(first) != len(second) or any((a["id"], a["ids"]) != (b["id"], b["ids"]) for a, b in pairs):
        raise ValueError(f"The two workdirs hold different traces of {split}: copy the split from one to the other.")
    return found


def _along(side: Side, split: str, kinds: Sequence[str]):
    folder = side.workdir / split
    traces, labels = annotated_split(side.session, folder, kinds)
    draft = DraftBundle(side.session.draft, side.session.params.draft, side.session.params.d2t)
    return traces, labels, extracted(side.session, traces, draft, folder).signals


def _tokens(seen: Outcomes, policy: PolicyFile) -> np.ndarray:
    (exits,) = exit_boundaries(seen, np.asarray([policy.thresholds], np.float64), policy.budget)
    return results_at(seen, exits)[0]


def _ratios(quantity: str, pairs: Sequence[np.ndarray], tasks: Sequence[str], names: Sequence[str]) -> Row:
    """Of the two columns of each of the pairs [N, 2], one row a trace."""
    strata = strata_of(np.concatenate(pairs, axis=1), tasks, names)
    ways = (
        lambda m: m[:, 0] / m[:, 1],
        lambda m: m[:, 2] / m[:, 3],
        lambda m: m[:, 2] / m[:, 3] - m[:, 0] / m[:, 1],
    )
    return Row(quantity, *(stratified_estimate(strata, way) for way in ways))


def _row(quantity: str, values: Sequence[float], drawn: np.ndarray) -> Row:
    """drawn: [resamples, 2]."""
    columns = [*zip(values, drawn.T, strict=True), (values[1] - values[0], drawn[:, 1] - drawn[:, 0])]
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return Row(quantity, *(Estimate(value, *map(float, np.nanquantile(own, ends))) for value, own in columns))


def text(rows: Sequence[Row], names: tuple[str, str]) -> str:
    """A Markdown table."""
    told = [f"| quantity | {names[0]} | {names[1]} | difference |", "|---|---:|---:|---:|"]
    for row in rows:
        cells = [f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for one in (row.first, row.second)]
        apart = row.difference
        told.append(
            f"| {row.quantity} | {' | '.join(cells)} | {apart.value:+.3f} ({apart.low:+.3f} to {apart.high:+.3f}) |"
        )
    return "\n".join(told)


def chain(length: int) -> MethodOf:
    return lambda session: make_method(session, "eagle3", draft_tokens=length)


def tree(shape: TreeShape) -> MethodOf:
    return lambda session: make_method(session, "eagle3", tree=shape)
