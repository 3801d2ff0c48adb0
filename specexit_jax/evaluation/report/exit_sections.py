"""Sections of results.json on the evaluated split: a certified policy, its frontier, and the policies of single
tasks."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from specexit_jax.annotation.replay import outcomes_by
from specexit_jax.evaluation import statistics
from specexit_jax.evaluation.certified.certify import Seen, harm_of_problems, transfer, use
from specexit_jax.exits.policy import POLICIES
from specexit_jax.exits.policy_file import PolicyFile, load_policy
from specexit_jax.exits.score import from_json
from specexit_jax.exits.signals import of_draft
from specexit_jax.exits.smoothers import Smoother, smoother_named


def exit_sections(
    file: PolicyFile,
    workdir: Path,
    traces: Sequence[dict],
    labels: Sequence[dict],
    signals: Mapping[str, np.ndarray],
    end_think_length: int,
) -> dict:
    """`risk`; `frontier`, where WORKDIR/frontier.json tells one; `transfer`, where WORKDIR/policies holds some.

    A policy whose rule is more than thresholds (`Rule.by_thresholds`) has none of them: it is not replayed.
    """
    if not POLICIES[file.rule].by_thresholds:
        return {}
    rows, score = _frontier_rows(workdir / "frontier.json")
    own = {path.stem: load_policy(path, file.draft) for path in sorted((workdir / "policies").glob("*.json"))}
    names = {file.smoothing, *(row["smoothing"] for row in rows), *(policy.smoothing for policy in own.values())}
    smoothers = {name: _smoother(name, file, score) for name in sorted(names)}
    seen = outcomes_by(smoothers, traces, labels, signals, end_think_length)
    sections = {"risk": realised_risk(file, seen)}
    if rows:
        sections["frontier"] = [_frontier_row(row, seen) for row in rows]
    if own:
        sections["risk"]["policies_together"] = min(_together(policy) for policy in own.values())
        sections["transfer"] = transfer({"pooled": file, **own}, seen, [trace["task"] for trace in traces])
    return sections


def realised_risk(file: PolicyFile, seen: Seen) -> dict:
    """The share of problems that the exit turned from right to wrong, and the certified bound on it."""
    used = use(seen[file.smoothing], file.thresholds, file.budget)
    harm = harm_of_problems(seen[file.smoothing], file.thresholds, file.budget)
    found = {name: used[name] for name in ("harmed", "problems", "traces")}
    found |= {"risk": used["risk"], "risk_ci95": list(statistics.share(harm)[1:])}
    if file.certificate is not None:
        told = dataclasses.asdict(file.certificate)
        found["certificate"] = {name: value for name, value in told.items() if name not in ("step", "steps")}
    else:
        found["chosen_on"] = {"split": file.split, "problems": file.problems}
    return found


def _together(file: PolicyFile) -> int:
    return (file.certificate.together or 1) if file.certificate else 1


def _smoother(name: str, file: PolicyFile, score: dict | None) -> Smoother:
    """The smoother of this name. score: the network of the frontier's exit score; the policy's own is used where it has one."""
    names = of_draft(file.signals)
    network = file.network if score is None or file.score is not None else from_json(score, names)
    return smoother_named(name, names, network)


def _frontier_rows(path: Path) -> tuple[list[dict], dict | None]:
    """The certified rows of frontier.json and the network of their exit score; none without the file."""
    if not path.is_file():
        return [], None
    try:
        content = json.loads(path.read_bytes())
        rows = content["rows"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a frontier ({error}): run launch.calibrate again, or remove it") from error
    return [row for row in rows if "refused" not in row], content.get("score")


def _frontier_row(row: dict, seen: Seen) -> dict:
    used = use(seen[row["smoothing"]], row["thresholds"], row.get("budget"))
    kept = {name: row[name] for name in ("epsilon", "delta", "smoothing", "thresholds")}
    return kept | {"risk_bound": row["risk_upper"]} | used
