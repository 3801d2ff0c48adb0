"""Certified exits from replayed outcomes: one policy for all tasks or one a task, and what each epsilon costs in tokens."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from specexit_jax.exits.calibration import Outcomes, exit_boundaries, harms, score, select
from specexit_jax.exits.path import Path, Scored, choose_path, scored_paths
from specexit_jax.exits.policy_file import PolicyFile
from specexit_jax.exits.risk import CannotCertify, Certificate, learn_then_test
from specexit_jax.exits.signals import PAPER, SIGNALS
from specexit_jax.exits.units import means_of

Seen = Mapping[str, Outcomes]  # a smoother's name -> the outcomes on a split under it


@dataclasses.dataclass(frozen=True)
class Goal:
    """P(risk <= epsilon) >= 1 - delta, by thresholds on `signals` (None: all that there are); budget: see `policy.Threshold`.

    path_split fixes the path, split certifies. together: the number of certificates, this one included, that hold at
    once with probability 1 - together x delta.
    """

    epsilon: float
    delta: float
    signals: tuple[str, ...] | None = None
    budget: int | None = None
    path_split: str = "development"
    split: str = "calibration"
    together: int = 1

    def __post_init__(self):
        if self.signals is None:
            return
        unknown = [name for name in self.signals if name not in SIGNALS]
        if unknown or not self.signals or len(set(self.signals)) < len(self.signals):
            raise ValueError(
                f"the signals to exit by are {self.signals!r}: choose among {', '.join(SIGNALS)}, each once"
            )


def scored(development: Seen, goal: Goal) -> list[Scored]:
    """Every path that the goal allows, scored on the development split, for any epsilon."""
    return scored_paths(development, goal.signals, goal.budget)


def certify(paths: Sequence[Scored], calibration: Seen, goal: Goal) -> tuple[Path, Certificate]:
    """The best path for this epsilon, and how far it is certified. Raises CannotCertify if no step is."""
    path = choose_path(paths, goal.epsilon)
    seen, splits = calibration[path.smoothing], (goal.split, goal.path_split)
    sides = goal.epsilon, goal.delta, goal.budget, *splits, path.fixed_on
    return path, learn_then_test(path.thresholds, seen, *sides, goal.together)


def policy_file(
    path: Path, certificate: Certificate, goal: Goal, kinds: Sequence[str], draft: str, names: Sequence[str] = PAPER
) -> PolicyFile:
    """The certified policy as policy.json holds it; draft: its digest; names: of the signals that the draft has."""
    return PolicyFile(
        rule="default",
        smoothing=path.smoothing,
        boundary_kinds=tuple(kinds),
        thresholds=certificate.thresholds,
        budget=goal.budget,
        bound=None,
        certificate=certificate,
        split=goal.split,
        problems=certificate.problems,
        draft=draft,
        signals=tuple(names),
    )


def frontier(paths: Sequence[Scored], calibration: Seen, goal: Goal, epsilons: Sequence[float]) -> list[dict]:
    """One row per epsilon: the policy certified for it and its mean tokens on the calibration split, or the reason why
    there is none.

    Each row by itself holds with probability 1 - delta. Choosing a row by its tokens needs another split.
    """
    rows = []
    for epsilon in epsilons:
        one = dataclasses.replace(goal, epsilon=epsilon)
        try:
            path, found = certify(paths, calibration, one)
        except CannotCertify as refusal:
            rows.append({"epsilon": epsilon, "delta": goal.delta, "refused": str(refusal)})
            continue
        facts = {name: getattr(found, name) for name in ("harmed", "problems", "traces", "test", "risk", "risk_upper")}
        shown = use(calibration[path.smoothing], found.thresholds, goal.budget)
        rows.append(
            {"epsilon": epsilon, "delta": goal.delta, "smoothing": path.smoothing, "thresholds": list(found.thresholds)}
            | {"budget": goal.budget}
            | facts
            | {"tokens": shown["tokens"], "tokens_ratio": shown["tokens_ratio"]}
        )
    return rows


def use(outcomes: Outcomes, thresholds: Sequence[float], budget: int | None = None) -> dict[str, float | int]:
    """The effect of these thresholds on some traces: tokens (mean over tasks), traces harmed, risk (mean harm per
    problem), accuracy, exits."""
    found = score(outcomes, exit_boundaries(outcomes, np.asarray([thresholds], np.float64), budget))
    full = float(outcomes.weights @ outcomes.full_tokens)
    return {
        "problems": outcomes.units.problems,
        "traces": len(outcomes.full_tokens),
        "tokens": float(found.tokens[0]),
        "tokens_ratio": float(found.tokens[0]) / full,
        "harmed": int(found.harmed[0]),
        "risk": float(found.risk[0]),
        "accuracy": float(found.accuracy[0]),
        "accuracy_lost": float(found.drop[0]),
        "exit_rate": float(found.exit_rate[0]),
    }


def harm_of_problems(outcomes: Outcomes, thresholds: Sequence[float], budget: int | None = None) -> np.ndarray:
    """float64 [P]: the share of each problem's traces that exiting by these thresholds harms."""
    exits = exit_boundaries(outcomes, np.asarray([thresholds], np.float64), budget)
    return means_of(harms(outcomes, exits), outcomes.units.problem)[0]


def of_task(seen: Seen, tasks: Sequence[str], task: str) -> dict[str, Outcomes]:
    """The outcomes of one task's traces; tasks: of all of them, in order."""
    rows = np.asarray([name == task for name in tasks])
    return {name: select(outcomes, rows) for name, outcomes in seen.items()}


def transfer(policies: Mapping[str, PolicyFile], seen: Seen, tasks: Sequence[str]) -> dict[str, dict[str, dict]]:
    """policy name -> task -> the effect of that policy on that task's traces (`use`)."""
    apart = {task: of_task(seen, tasks, task) for task in sorted(set(tasks))}
    return {
        name: {task: use(own[file.smoothing], file.thresholds, file.budget) for task, own in apart.items()}
        for name, file in policies.items()
    }
