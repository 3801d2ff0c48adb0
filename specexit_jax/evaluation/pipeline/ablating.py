"""The work of `launch.ablate`: every arm's outcomes on three splits, and the released rule by real decoding."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from specexit_jax.annotation.joined import join_labels
from specexit_jax.annotation.kinds import labels_at, missing_kinds
from specexit_jax.annotation.replay import outcomes
from specexit_jax.annotation.unfinished import require_finished
from specexit_jax.data.splits import Problem
from specexit_jax.engine.methods import make_method
from specexit_jax.engine.session import Session
from specexit_jax.evaluation.certified.ablation import Arm, Paired, against_single, compared, row_of
from specexit_jax.evaluation.certified.certify import Goal, Seen
from specexit_jax.evaluation.pipeline.harness import Setting, annotated, decoded_by, decoded_traces, extracted
from specexit_jax.exits.released import released
from specexit_jax.exits.score import SCORE, ScoreNetwork
from specexit_jax.exits.smoothers import smoother_named
from specexit_jax.exits.units import problem_of
from specexit_jax.models.draft_layer import DraftBundle
from specexit_jax.storage.rows import by_id, ids_in
from specexit_jax.storage.shards import read_shards


@dataclasses.dataclass(frozen=True)
class Split:
    """Annotated traces of a split, and where they are kept."""

    folder: Path
    traces: Sequence[dict]
    labels: Sequence[dict]


def read_split(folder: Path) -> Split:
    """All traces of a split with their labels. Raises ValueError where too many of its answers did not end."""
    traces = read_shards(folder, "traces").brief()
    labels = join_labels(traces, read_shards(folder, "labels").brief())
    require_finished(folder, traces, labels)
    return Split(folder, traces, labels)


def test_split(
    session: Session, problems: Sequence[Problem], kinds: Sequence[str], setting: Setting, folder: Path
) -> Split:
    """The traces of these problems under every seed, decoded and annotated where they are not yet."""
    traces = decoded_traces(session, problems, "eagle3", setting, folder)
    return Split(folder, traces, annotated(session, traces, kinds, setting, folder))


def annotated_arms(arms: Sequence[Arm], folders: Sequence[Path], say: Callable[[str], None]) -> list[Arm]:
    """The arms whose boundaries are annotated in the splits of all these folders; says which kinds of the others are not."""
    kinds = {arm.kinds for arm in arms}
    missing = {each: {kind for folder in folders for kind in missing_kinds(folder, each)} for each in kinds}
    if absent := sorted(set().union(*missing.values())):
        named = ", ".join(absent)
        say(f"boundaries: {named} left out: not every split was annotated at them (--config.annotate.kinds)")
    return [arm for arm in arms if not missing[arm.kinds]]


Fit = Callable[[str, tuple[str, ...], tuple[str, ...]], ScoreNetwork]


def signals_file(draft: str) -> str:
    """The file of a split's signals along a draft of this name."""
    return "signals.npz" if draft == "own" else f"signals-{draft}.npz"


class SeenSplits:
    """The outcomes of thresholds on several splits, by draft, kind of boundary and smoother; each is computed on first
    use.

    fit: makes the network of an exit score, for a draft's name, kinds of boundaries, and parts that it does not read.
    """

    def __init__(self, sessions: Mapping[str, Session], splits: Sequence[Split], fit: Fit):
        self._sessions, self._splits, self._fit = sessions, splits, functools.cache(fit)
        self._signals: dict[str, list[Mapping[str, np.ndarray]]] = {}
        self._labels: dict[tuple, Sequence[dict]] = {}
        self._seen: dict[tuple, Seen] = {}

    def of(self, arm: Arm) -> list[Seen]:
        """The arm's smoothers on each split."""
        found = []
        for number in range(len(self._splits)):
            for smoother in arm.smoothers:
                self._see(number, arm.draft, arm.kinds, smoother, arm.without)
            found.append({name: self._seen[number, arm.draft, arm.kinds, name, arm.without] for name in arm.smoothers})
        return found

    def _see(self, number: int, draft: str, kinds: tuple[str, ...], smoother: str, without: tuple[str, ...]) -> None:
        if (number, draft, kinds, smoother, without) in self._seen:
            return
        session, split = self._sessions[draft], self._splits[number]
        if (number, draft, kinds) not in self._labels:  # which remember where these boundaries are
            self._labels[number, draft, kinds] = labels_at(split.traces, split.labels, session.boundaries(kinds))
        labels = self._labels[number, draft, kinds]
        signals, end = self._along(draft)[number], len(session.end_think_ids)
        network = self._fit(draft, kinds, without) if smoother == SCORE else None
        made = smoother_named(smoother, session.draft.signal_names, network)
        seen = outcomes(made, split.traces, labels, signals, end)
        self._seen[number, draft, kinds, smoother, without] = seen

    def _along(self, draft: str) -> list[Mapping[str, np.ndarray]]:
        if draft not in self._signals:
            session = self._sessions[draft]
            bundle = DraftBundle(session.draft, session.params.draft, session.params.d2t)
            self._signals[draft] = [
                extracted(session, split.traces, bundle, split.folder, name=signals_file(draft)).signals
                for split in self._splits
            ]
        return self._signals[draft]


def rows_of(arms: Sequence[Arm], seen: SeenSplits, goal: Goal, test: Split, say: Callable[[str], None]) -> list[dict]:
    """A row an arm, and one of all signals against the best of them."""
    tasks, problems = _names(test.traces)
    rows, results = [], []
    for arm in arms:
        row, found = row_of(arm, seen.of(arm), goal, tasks, problems)
        _tell(row, say)
        rows.append(row)
        results.append(found)
    if row := against_single(arms, rows, results):
        _tell(row, say)
        rows.append(row)
    return rows


def _tell(row: dict, say: Callable[[str], None]) -> None:
    ratio = row.get("tokens_ratio")
    text = f"{100 * (ratio['value'] - 1):+.1f} % tokens, {row['harmed']} harmed" if ratio else row["refused"]
    say(f"{row['table']}: {row['arm']}: {text}")


def released_row(
    session: Session, score: str, problems: Sequence[Problem], setting: Setting, test: Split, table: str
) -> dict:
    """The released rule by one of its scores: it depends on how verification slices the text, so it is decoded."""
    method = make_method(session, "specexit", released(score), ("released",), setting.draft_tokens)
    rows = decoded_by(session, problems, method, setting, test.folder, f"released-{score}")
    full = by_id(test.traces)
    beside = [full[name] for name in ids_in(rows)]
    pairs = Paired(
        *_names(rows),
        *_outcomes(rows),
        *_outcomes(beside),
        exited=np.asarray([row["exit"] is not None for row in rows]),
    )
    return {"table": table, "arm": f"released, {score}"} | compared(pairs)


def _names(traces: Sequence[dict]) -> tuple[list[str], list[str]]:
    return [trace["task"] for trace in traces], [problem_of(trace) for trace in traces]


def _outcomes(traces: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray([len(trace["ids"]) for trace in traces]), np.asarray([trace["correct"] for trace in traces], bool)
