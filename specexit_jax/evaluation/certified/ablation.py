"""Ablations of the exit: arms that differ in one choice, certified in the same way and used on the same test traces."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from specexit_jax.evaluation import statistics
from specexit_jax.evaluation.certified.certify import Goal, Seen, certify, scored, use
from specexit_jax.exits.calibration import exit_boundaries, results_at
from specexit_jax.exits.risk import CannotCertify
from specexit_jax.exits.score import SCORE
from specexit_jax.exits.signals import PAPER
from specexit_jax.exits.trace_statistics import PARTS

PARAGRAPHS = ("paragraph",)
KINDS = (PARAGRAPHS, ("marker",), ("paragraph", "marker"), ("sentence",))


@dataclasses.dataclass(frozen=True)
class Arm:
    """One row of a table: the signals it exits by, the smoothers it may choose among, its boundaries and its draft
    (a name; `own` is the session's). signals None: all that the draft has. without: parts of the statistics that its exit score
    does not read."""

    table: str
    name: str
    signals: tuple[str, ...] | None = None
    smoothers: tuple[str, ...] = ()
    kinds: tuple[str, ...] = PARAGRAPHS
    draft: str = "own"
    without: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Paired:
    """The results of an arm and of full thinking on N traces; problem, task: of each trace (seeds of a problem share
    both)."""

    tasks: Sequence[str]
    problems: Sequence[str]
    tokens: np.ndarray
    correct: np.ndarray
    full_tokens: np.ndarray
    full_correct: np.ndarray
    exited: np.ndarray


def arms(smoothers: Sequence[str], places: Mapping[str, str], signals: Sequence[str] = PAPER) -> list[Arm]:
    """Every subset of the signals, the exit score and each of its parts if it is among the smoothers, every smoother, every kind
    of boundary, every draft; places: where drafts have their signals, by the name of the draft; signals: of the session's own
    draft."""
    smoothers = tuple(smoothers)
    subsets = [names for size in range(1, 1 + len(signals)) for names in itertools.combinations(signals, size)]
    plain = tuple(name for name in smoothers if name != SCORE)
    found = [Arm("signals", " + ".join(names), names, plain) for names in subsets if plain]
    found += [Arm("signals", "exit score", smoothers=(SCORE,))] if SCORE in smoothers else []
    if SCORE in smoothers:
        parts = [Arm("exit score", f"without {part}", smoothers=(SCORE,), without=(part,)) for part in PARTS]
        found += [Arm("exit score", "whole", smoothers=(SCORE,)), *parts]
    found += [Arm("smoother", name, smoothers=(name,)) for name in smoothers]
    found += [Arm("boundaries", " + ".join(kinds), smoothers=smoothers, kinds=kinds) for kinds in KINDS]
    return found + [
        Arm("signals' place", f"{place} ({name})", smoothers=smoothers, draft=name) for name, place in places.items()
    ]


def row_of(
    arm: Arm, splits: Sequence[Seen], goal: Goal, tasks: Sequence[str], problems: Sequence[str]
) -> tuple[dict, Paired | None]:
    """(the arm's row: certified on the first two of (development, calibration, test), used on the third; its results there).

    tasks, problems: of the test traces. Without results where nothing can be certified.
    """
    development, calibration, test = ({name: seen[name] for name in arm.smoothers} for seen in splits)
    named = {"table": arm.table, "arm": arm.name}
    try:
        own = dataclasses.replace(goal, signals=arm.signals)
        path, found = certify(scored(development, own), calibration, own)
    except CannotCertify as refusal:
        return named | {"refused": str(refusal)}, None
    seen = test[path.smoothing]
    exits = exit_boundaries(seen, np.asarray([found.thresholds]), goal.budget)[0]
    pairs = Paired(
        tasks, problems, *results_at(seen, exits), seen.full_tokens, seen.full_correct, exits < seen.present.shape[1]
    )
    chosen = {"smoothing": path.smoothing, "thresholds": list(found.thresholds), "certified_harm": found.harmed}
    there = use(calibration[path.smoothing], found.thresholds, goal.budget)["tokens_ratio"]
    return named | chosen | {"calibration_tokens_ratio": there} | compared(pairs), pairs


def against_single(arms: Sequence[Arm], rows: Sequence[dict], results: Sequence[Paired | None]) -> dict | None:
    """The row of all that the policy can exit by, the exit score where there is one, against the single signal that saves most on
    the calibration split at the same certificate. None where one of both is not certified."""
    signals = [number for number, arm in enumerate(arms) if arm.table == "signals"]
    single = [number for number in signals if len(arms[number].signals or ()) == 1 and results[number]]
    if not single or results[signals[-1]] is None or signals[-1] in single:
        return None
    best = min(single, key=lambda number: rows[number]["calibration_tokens_ratio"])
    own, other = results[signals[-1]], results[best]
    pairs = dataclasses.replace(own, full_tokens=other.tokens, full_correct=other.correct)
    return {"table": "signals", "arm": f"{arms[signals[-1]].name}, against {arms[best].name}"} | compared(pairs)


def compared(pairs: Paired) -> dict:
    """Comparison with full thinking (`eagle3`): 95 % intervals from a paired bootstrap over problems. Tasks have equal
    weight; a problem's seeds are averaged first."""
    tokens = strata(pairs, np.stack([pairs.tokens, pairs.full_tokens], axis=1))
    correct = strata(pairs, np.stack([pairs.correct, pairs.full_correct], axis=1))
    ratio, difference = statistics.paired_ratio(tokens), statistics.paired_difference(correct)
    return {
        "traces": len(pairs.tokens),
        "problems": sum(len(stratum) for stratum in tokens),
        "tokens": float(np.mean([stratum[:, 0].mean() for stratum in tokens])),
        "tokens_ratio": {"value": ratio.value, "ci95": [ratio.low, ratio.high]},
        "accuracy": float(np.mean([stratum[:, 0].mean() for stratum in correct])),
        "accuracy_difference": {"value": difference.value, "ci95": [difference.low, difference.high]},
        "harmed": int((pairs.full_correct & ~pairs.correct).sum()),
        "mended": int((~pairs.full_correct & pairs.correct).sum()),
        "exit_rate": float(pairs.exited.mean()),
    }


def strata(pairs: Paired, columns: np.ndarray) -> list[np.ndarray]:
    """[problems, C] a task: columns [N, C] averaged over the seeds of each problem."""
    return statistics.strata_of(columns, pairs.tasks, pairs.problems)


def table_of(rows: Sequence[Mapping], name: str) -> str:
    """One table in markdown."""
    lines = [
        f"| {name} | tokens | vs eagle3 % (95 %) | accuracy − eagle3, points (95 %) | right → wrong | wrong → right | exits % |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        if row["table"] != name:
            continue
        if "refused" in row:
            lines.append(f"| {row['arm']} | – | {row['refused']} | – | – | – | – |")
            continue
        ratio, difference = row["tokens_ratio"], row["accuracy_difference"]
        less = [100 * (value - 1) for value in (ratio["value"], *ratio["ci95"])]
        points = [100 * value for value in (difference["value"], *difference["ci95"])]
        lines.append(
            f"| {row['arm']} | {row['tokens']:.1f} | {less[0]:+.1f} ({less[1]:+.1f} to {less[2]:+.1f}) | {points[0]:+.2f} "
            f"({points[1]:+.2f} to {points[2]:+.2f}) | {row['harmed']} | {row['mended']} | {100 * row['exit_rate']:.0f} |"
        )
    return "\n".join(lines) + "\n"
