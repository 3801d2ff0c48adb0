"""The work of `launch.calibrate`: a policy by grid or by certificate, with messages on the way."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from specexit_jax.annotation.kinds import annotated_split
from specexit_jax.annotation.replay import outcomes_by
from specexit_jax.annotation.unfinished import require_finished
from specexit_jax.engine.session import Session
from specexit_jax.evaluation.certified import certify
from specexit_jax.evaluation.certified.certify import Goal, Seen
from specexit_jax.evaluation.certified.phrases import harm_text, little_known
from specexit_jax.evaluation.pipeline.harness import extracted
from specexit_jax.exits.calibration import choose_thresholds, threshold_grid
from specexit_jax.exits.path import Scored
from specexit_jax.exits.policy_file import PolicyFile
from specexit_jax.exits.risk import CannotCertify, require_enough
from specexit_jax.exits.score import SCORE, ScoreNetwork, to_json
from specexit_jax.exits.signals import of_draft
from specexit_jax.exits.smoothers import smoother_named
from specexit_jax.exits.units import problem_of
from specexit_jax.models.draft_layer import DraftBundle
from specexit_jax.storage.shards import read_shards

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class SeenSplit:
    """A split's annotated traces under every smoother; tasks: of the traces, in order."""

    name: str
    tasks: tuple[str, ...]
    by_smoother: Seen

    @property
    def problems(self) -> int:
        return next(iter(self.by_smoother.values())).units.problems

    def of_task(self, task: str) -> "SeenSplit":
        own = certify.of_task(self.by_smoother, self.tasks, task)
        return SeenSplit(f"{self.name} ({task})", tuple(name for name in self.tasks if name == task), own)


def seen_split(
    session: Session,
    folder: Path,
    smoothers: Sequence[str],
    kinds: Sequence[str],
    say: Say,
    score: ScoreNetwork | None = None,
) -> SeenSplit:
    """An annotated split at boundaries of these kinds, under each of the smoothers; the draft's signals along it are kept in
    signals.npz. score: the network of the smoother `score`. Raises ValueError where it was not annotated at these kinds, or too
    many of its answers did not end."""
    traces, labels = annotated_split(session, folder, kinds)
    if (unfinished := require_finished(folder, traces, labels)).any:
        say(f"{folder.name}: {unfinished.summary()}; an exit there counts as wrong")
    draft = DraftBundle(session.draft, session.params.draft, session.params.d2t)
    signals, length = extracted(session, traces, draft, folder).signals, len(session.end_think_ids)
    named = {name: smoother_named(name, session.draft.signal_names, score) for name in smoothers}
    by_smoother = outcomes_by(named, traces, labels, signals, length)
    return SeenSplit(folder.name, tuple(trace["task"] for trace in traces), by_smoother)


def require_problems(folder: Path, epsilon: float, delta: float) -> None:
    """Raises CannotCertify if the split has too few problems even without any harm; called before a model is loaded."""
    traces = read_shards(folder, "traces")
    told = zip(traces.ids, traces.column("problem"), strict=True)
    require_enough(len({problem_of({"id": name, "problem": own}) for name, own in told}), epsilon, delta, folder.name)


def by_grid(
    development: SeenSplit,
    bound: float,
    standard_errors: float,
    budget: int | None,
    kinds: Sequence[str],
    draft: str,
    say: Say,
    signals: Sequence[str] | None = None,
) -> PolicyFile:
    """The policy with the fewest tokens within `bound` of the accuracy on this split, over all smoothers; no guarantee
    for other problems."""
    best = None
    for name, seen in development.by_smoother.items():
        grid = threshold_grid(seen, signals=signals)
        choice = choose_thresholds(seen, grid, bound, standard_errors=standard_errors, budget=budget)
        say(f"{name}: {choice.tokens:.1f} tokens, accuracy {choice.accuracy:.4f}, lost {choice.drop:.4f}")
        if best is None or choice.tokens < best[1].tokens:
            best = (name, choice)
    name, choice = best
    say(
        little_known(
            development.name, certify.harm_of_problems(development.by_smoother[name], choice.thresholds, budget)
        )
    )
    return PolicyFile(
        rule="default",
        smoothing=name,
        boundary_kinds=tuple(kinds),
        thresholds=choice.thresholds,
        budget=budget,
        bound=bound,
        certificate=None,
        split=development.name,
        problems=development.problems,
        draft=draft,
        signals=development.by_smoother[name].signals,
    )


def with_score(file: PolicyFile, score: ScoreNetwork | None) -> PolicyFile:
    """The policy with the network of its exit score, if it compares one."""
    if file.smoothing != SCORE:
        return file
    return dataclasses.replace(file, score=to_json(score, of_draft(file.signals)))


def by_certificate(
    paths: Sequence[Scored], calibration: SeenSplit, goal: Goal, kinds: Sequence[str], draft: str, say: Say
) -> PolicyFile:
    """The certified policy. Raises CannotCertify."""
    goal = dataclasses.replace(goal, split=calibration.name)
    path, found = certify.certify(paths, calibration.by_smoother, goal)
    used = certify.use(calibration.by_smoother[path.smoothing], found.thresholds, goal.budget)
    say(
        f"{calibration.name}: P(risk <= {goal.epsilon:g}) >= {1 - goal.delta:g} at step {found.step + 1} of "
        f"{len(found.steps)} ({path.smoothing}, sweeping {path.swept}): {harm_text(dataclasses.asdict(found))}, "
        f"p {found.p_value:.2g}, {100 * (used['tokens_ratio'] - 1):+.1f} % tokens; it {found.scope}"
    )
    names = calibration.by_smoother[path.smoothing].signals
    return certify.policy_file(path, found, goal, kinds, draft, names)


def by_task(
    development: SeenSplit,
    calibration: SeenSplit,
    goal: Goal,
    kinds: Sequence[str],
    draft: str,
    say: Say,
    simultaneous: bool = False,
) -> dict[str, PolicyFile]:
    """A certified policy for each task whose own problems certify one; the reason is printed for the others.

    simultaneous: each of the k tasks at delta / k, so that all hold at once with probability 1 - delta (Bonferroni).
    """
    tasks, found = sorted(set(calibration.tasks)), {}
    if simultaneous:
        goal = dataclasses.replace(goal, delta=goal.delta / len(tasks), together=len(tasks))
    for task in tasks:
        own = calibration.of_task(task)
        try:
            require_enough(own.problems, goal.epsilon, goal.delta, own.name)
            paths = certify.scored(development.of_task(task).by_smoother, goal)
            found[task] = by_certificate(paths, own, goal, kinds, draft, say)
        except CannotCertify as refusal:
            say(f"{task}: no policy of its own: {refusal}")
    return found


def frontier_of(
    paths: Sequence[Scored], calibration: SeenSplit, goal: Goal, epsilons: Sequence[float], say: Say
) -> list[dict]:
    """The rows of frontier.json; each is printed when it is known."""
    rows = certify.frontier(paths, calibration.by_smoother, goal, sorted({*epsilons, goal.epsilon}))
    for row in rows:
        text = row.get("refused") or (
            f"{100 * (row['tokens_ratio'] - 1):+.1f} % tokens, {harm_text(row)}, risk below {100 * row['risk_upper']:.2f} %"
        )
        say(f"epsilon {100 * row['epsilon']:g} %: {text}")
    return rows
