"""How well agreement can be predicted at all: from a boundary the model continues several times, each time with other
noise.

The share of continuations that end in the answer forced there estimates P(agree | the text so far, the forced answer).
No score computed from these has a higher AUC than that probability. A share of few continuations is a noisy estimate,
so two AUCs are reported: that of the share, which is too low, and that of the probability, from its estimated
distribution over the boundaries.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from specexit_jax.data.grading.grader import Grader, Later
from specexit_jax.data.world.tasks import final_answer
from specexit_jax.engine.generate import stream
from specexit_jax.engine.keys import noise_of
from specexit_jax.engine.methods import Method
from specexit_jax.engine.outcomes import Outcome
from specexit_jax.engine.placement import Auto, Placement
from specexit_jax.engine.requests import Request
from specexit_jax.engine.session import Session, text_of
from specexit_jax.evaluation.score_quality import auc
from specexit_jax.evaluation.statistics import resampled
from specexit_jax.exits.units import problem_of
from specexit_jax.monitoring.progress import Progress
from specexit_jax.storage.rows import brief_rows, whole_rows
from specexit_jax.storage.shards import held, own_rows

_GRID, _ROUNDS = np.linspace(0, 1, 201), 3000
_WAITING = 256  # boundaries that may wait for grades


@dataclasses.dataclass(frozen=True)
class Foresight:
    """boundaries: how many of a split; continuations: of each; seed: of their choice and noise; max_new_tokens: of a
    whole trace, its beginning included; target: the name recorded with them."""

    boundaries: int
    continuations: int
    seed: int
    batch_size: int | Auto
    max_new_tokens: int
    target: str = ""

    def __post_init__(self):
        if self.boundaries < 1 or self.continuations < 1:
            raise ValueError("Foresight needs at least one boundary and one continuation of it.")


@dataclasses.dataclass(frozen=True)
class Place:
    """A boundary: `number` among its trace's, `token` its index in the ids."""

    trace: dict
    label: dict
    number: int

    @property
    def token(self) -> int:
        return self.label["boundaries"][self.number]

    @property
    def id(self) -> str:
        return f"{self.trace['id']}/from-{self.token}"


def chosen_places(traces: Sequence[dict], labels: Sequence[dict], count: int, seed: int) -> list[Place]:
    """A uniform sample of `count` boundaries (or all) of traces that closed their thinking; labels: one per trace."""
    pairs = zip(brief_rows(traces), labels, strict=True)
    counts = [0 if trace["think_end"] is None else len(label["boundaries"]) for trace, label in pairs]
    ends = np.cumsum(counts)
    picked = np.sort(np.random.default_rng(seed).permutation(int(sum(counts)))[:count])
    owners = np.searchsorted(ends, picked, side="right").tolist()
    full = whole_rows(traces)
    held_rows = {row: (full[row], labels[row]) for row in dict.fromkeys(owners)}
    return [
        Place(*held_rows[row], int(number - ends[row] + counts[row]))
        for row, number in zip(owners, picked, strict=True)
    ]


def request_from(place: Place, seed: int) -> Request:
    """The request that continues from the boundary as if the model had just written it, with other noise than the
    trace's."""
    ids = place.trace["ids"][: place.token + 1]
    return Request(place.id, (*place.trace["prompt_ids"], *ids), seed)


def go_on(
    session: Session,
    places: Sequence[Place],
    method: Method,
    setting: Foresight,
    folder: Path,
    grader: Grader | None = None,
) -> list[dict[str, Any]]:
    """One row per boundary, stored in FOLDER/foresight.jsonl: whether its own trace and each continuation end in the
    forced answer.

    Continues where a killed run stopped. method: one without an exit. grader: judges the answers, by default in this
    process. Raises ValueError if the folder holds rows of other settings.
    """
    settings = {name: getattr(setting, name) for name in ("continuations", "seed", "max_new_tokens", "target")}
    settings |= {"sampling": session.sampling.settings()} | noise_of(session.sampling)
    with own_rows(folder, "foresight", "foresight", settings) as kept:
        found = {row["id"]: row for row in held(folder, "foresight")}
        missing = [place for place in places if place.id not in found]
        bar, grader = Progress(len(missing), f"foresight {folder.name} "), grader or Grader()
        graded = grader.arrived(_rows(session, missing, method, setting, grader), _WAITING)
        for count, row in enumerate(graded, start=1):
            kept.append([row])
            found[row["id"]] = row
            bar.update(count)
    return [found[place.id] for place in places]


def _rows(
    session: Session, places: Sequence[Place], method: Method, setting: Foresight, grader: Grader
) -> Iterator[Later[dict[str, Any]]]:
    by_id = {place.id: (place, {}) for place in places}
    requests = [
        request_from(place, setting.seed + number) for place in places for number in range(setting.continuations)
    ]
    placement = Placement(setting.batch_size, in_order=False)
    for outcome in stream(session, requests, method, placement=placement):
        place, ends = by_id[outcome.id]
        ends[outcome.seed] = answer_of(session, place, outcome, setting.max_new_tokens)
        if len(ends) == setting.continuations:
            yield _row(place, [ends[seed] for seed in sorted(ends)], grader)


def answer_of(session: Session, place: Place, outcome: Outcome, max_new_tokens: int) -> str | None:
    """The final answer; None if the trace, its beginning included, would have reached its token limit before."""
    if not outcome.finished or place.token + 1 + len(outcome.ids) > max_new_tokens:
        return None
    return final_answer(text_of(session, outcome.ids))


def _row(place: Place, answers: Sequence[str | None], grader: Grader) -> Later[dict[str, Any]]:
    trace, label, number = place.trace, place.label, place.number
    checker, forced = trace.get("checker", "world"), label["forced"][number]
    row = {
        "id": place.id,
        "trace": trace["id"],
        "problem": problem_of(trace),
        "boundary": place.token,
        "agree": label["agree"][number],
        "forced": forced,
        "answers": list(answers),
    }
    grades = [grader.agrees(checker, trace["task"], forced, answer, trace["reference"]) for answer in answers]
    return Later(grades, lambda found: row | {"stands": found})


def summary(
    rows: Sequence[dict],
    confidence: Sequence[float],
    resamples: int = 1000,
    seed: int = 0,
    score: Sequence[float] | None = None,
) -> dict[str, Any]:
    """AUC of agreement by the shares, by the probability that they estimate, and by confidence and exit score (None: there is
    none) at the same boundaries; 95 % intervals from a bootstrap over problems, each with all of its traces' boundaries."""
    agree = np.asarray([row["agree"] for row in rows], bool)
    stands = np.asarray([row["stands"] for row in rows], bool)
    judges = {"confidence": np.asarray(confidence, np.float64), "share": stands.mean(axis=1)}
    if score is not None:
        judges["score"] = np.asarray(score, np.float64)
    problems = [problem_of(row | {"id": row["trace"]}) for row in rows]
    value = _aucs(agree, judges)
    drawn = [
        _aucs(agree[own], {name: values[own] for name, values in judges.items()})
        for own in resampled(problems, resamples, seed)
    ]
    low, high = np.nanquantile(np.asarray([list(one.values()) for one in drawn]), (0.025, 0.975), axis=0).tolist()
    told = {name: {"value": v, "ci95": [a, b]} for (name, v), a, b in zip(value.items(), low, high, strict=True)}
    halves = [1 << n for n in range(stands.shape[1].bit_length()) if 1 << n < stands.shape[1]]
    return {
        "boundaries": len(rows),
        "problems": len(set(problems)),
        "agreeing": float(agree.mean()),
        "continuations": stands.shape[1],
        "auc": told,
        "auc_by_continuations": {str(n): auc(agree, stands[:, :n].mean(axis=1)) for n in [*halves, stands.shape[1]]},
        "auc_of_probability": best_auc(stands.sum(axis=1), stands.shape[1]),
    }


def _aucs(agree: np.ndarray, judges: Mapping[str, np.ndarray]) -> dict[str, float]:
    found = {name: auc(agree, values) for name, values in judges.items()}
    return found | {"share_minus_confidence": found["share"] - found["confidence"]}


def best_auc(counts: np.ndarray, trials: int) -> float:
    """AUC of the probability q_i itself, estimated by counts[i] of `trials`, for an outcome that happens with
    probability q_i.

    The distribution of q over boundaries by nonparametric maximum likelihood (Kiefer and Wolfowitz 1956), by EM on a grid; then
    P(q of one that happened > q of one that did not), ties half.
    """
    seen, number = np.unique(np.asarray(counts), return_counts=True)
    likelihood = stats.binom.pmf(seen[:, None], trials, _GRID[None])
    weights = np.full(len(_GRID), 1 / len(_GRID))
    for _ in range(_ROUNDS):
        shares = likelihood * weights
        weights = number @ (shares / shares.sum(axis=1, keepdims=True)) / number.sum()
    happened, not_ = weights * _GRID, weights * (1 - _GRID)
    if not happened.sum() or not not_.sum():
        return float("nan")
    below = np.cumsum(not_) - not_ / 2
    return float(happened @ below / (happened.sum() * not_.sum()))
