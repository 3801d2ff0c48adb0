"""The exit score of a session's draft, fitted on an annotated split that neither fixes the path nor certifies."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from specexit_jax.annotation.kinds import annotated_split
from specexit_jax.annotation.replay import statistics_at_boundaries
from specexit_jax.engine.session import Session
from specexit_jax.evaluation.pipeline.harness import extracted
from specexit_jax.evaluation.score_quality import auc
from specexit_jax.exits.labels import confidence_targets
from specexit_jax.exits.score import ScoreNetwork
from specexit_jax.exits.trace_statistics import statistic_names, statistics_without
from specexit_jax.exits.units import problem_of
from specexit_jax.models.draft_layer import DraftBundle
from specexit_jax.storage.rows import taken
from specexit_jax.training.score_fit import CannotFit, ScoreFit, fit_score

MOST = 2**20  # boundaries of a table, at most
_HELD_OUT = 10  # one problem in so many is held out to tell how well a network like this does


@dataclasses.dataclass(frozen=True)
class BoundaryTable:
    """The boundaries of a split's traces that closed their thinking, an array for each trace. The others have no answer to agree
    with.

    statistics: names of the F columns of `seen`; None: all. seen: [boundaries, F]. wanted: the label that a score is fitted to.
    agree: whether the answer forced there agrees. problems: of the traces.
    """

    split: str
    statistics: tuple[str, ...] | None
    seen: list[np.ndarray]
    wanted: list[np.ndarray]
    agree: list[np.ndarray]
    problems: list[str]

    def fitted(self, rows: Sequence[int], fit: ScoreFit) -> ScoreNetwork:
        """The network fitted to these traces. Raises CannotFit where all their boundaries agree alike."""
        return fit_score(_joined(self.seen, rows), _joined(self.wanted, rows), fit).replace(statistics=self.statistics)

    def auc(self, network: ScoreNetwork, rows: Sequence[int]) -> tuple[float, int]:
        """(the AUC on these traces, their boundaries); nan where all of them agree or none does."""
        known = _joined(self.agree, rows)
        if not 0 < known.sum() < len(known):
            return float("nan"), len(known)
        return auc(known, np.asarray(network.logits(_joined(self.seen, rows)))), len(known)


def boundary_table(
    session: Session,
    folder: Path,
    kinds: Sequence[str],
    confidence: str,
    name: str = "signals.npz",
    without: Sequence[str] = (),
    whole: bool = False,
) -> BoundaryTable:
    """The boundaries of these kinds of an annotated split, for the session's draft; MOST of them, of traces at random, where there
    are more.

    confidence: which label (`exits.labels.confidence_targets`). name: the file of the draft's signals along the split. without:
    parts of the statistics that are left out (`trace_statistics.PARTS`). whole: refuse a split that was annotated at some of its
    boundaries; else those whose label is not known are left out. Raises ValueError where the split was not annotated at
    these kinds.
    """
    names = statistics_without(session.draft.signal_names, without)
    read = np.isin(statistic_names(session.draft.signal_names), names)
    traces, labels = annotated_split(session, folder, kinds, whole)
    closed = _some([place for place, trace in enumerate(traces) if trace["think_end"] is not None], labels)
    traces, labels = taken(traces, closed), taken(labels, closed)
    draft = DraftBundle(session.draft, session.params.draft, session.params.d2t)
    along = extracted(session, traces, draft, folder, name=name).signals
    seen = statistics_at_boundaries(session.draft.signal_names, traces, labels, along)
    pairs = [(confidence_targets(label, confidence), np.asarray(label["agree"], bool)) for label in labels]
    wanted, agree = [np.asarray(values, np.float32) for values, _ in pairs], [values for _, values in pairs]
    known = [np.isfinite(values) for values in wanted]
    return BoundaryTable(
        folder.name,
        names if without else None,
        [rows[sure][:, read] for rows, sure in zip(seen, known, strict=True)],
        [values[sure] for values, sure in zip(wanted, known, strict=True)],
        [values[sure] for values, sure in zip(agree, known, strict=True)],
        [problem_of(trace) for trace in traces],
    )


def _some(places: list[int], labels: Sequence[dict]) -> list[int]:
    """These traces, or, of more than MOST boundaries, whole traces at random until they have so many."""
    counts = [len(label["boundaries"]) for label in taken(labels, places)]
    if sum(counts) <= MOST:
        return places
    order = np.random.default_rng(0).permutation(len(places))
    return sorted(places[number] for number in order[: int(np.searchsorted(np.cumsum(np.array(counts)[order]), MOST))])


def fitted_score(table: BoundaryTable, fit: ScoreFit, say: Callable[[str], None]) -> ScoreNetwork:
    """The network fitted on all traces of a split. Says the AUC on every tenth problem by one that was fitted without these.

    Raises CannotFit where all boundaries agree alike.
    """
    every = range(len(table.seen))
    if not every:
        raise CannotFit(f"An exit score needs traces that closed their thinking, but {table.split} has none.")
    network = table.fitted(every, fit)
    say(f"score: fitted on {sum(map(len, table.wanted))} boundaries of {len(every)} traces of {table.split}")
    number = {problem: n for n, problem in enumerate(dict.fromkeys(table.problems))}
    kept, out = ([n for n in every if (number[table.problems[n]] % _HELD_OUT == 0) == held] for held in (False, True))
    try:
        found, boundaries = table.auc(table.fitted(kept, fit), out)
    except CannotFit:
        return network
    if not np.isnan(found):
        say(f"score: AUC {found:.4f} on {boundaries} held-out boundaries, fitted without them")
    return network


def learning_curve(
    table: BoundaryTable, fit: ScoreFit, seeds: int, judged: Callable[[ScoreNetwork], dict[str, float]]
) -> list[dict[str, float]]:
    """What scores fitted on 1/32, 1/16, ... and all of a split's traces are worth, least first.

    Each is read as many times. seeds: fits of each size, with other traces and first weights, whose results are averaged. judged:
    what a network is worth.
    """
    rows = []
    for part in reversed(range(6)):
        size, found = len(table.seen) >> part, []
        if size == 0:
            continue
        for seed in range(seeds):
            chosen = np.random.default_rng(seed).permutation(len(table.seen))[:size]
            network = table.fitted(chosen, dataclasses.replace(fit, seed=fit.seed + seed))
            found.append(judged(network) | {"boundaries": sum(len(table.wanted[row]) for row in chosen)})
        rows.append({"traces": size} | {name: float(np.mean([one[name] for one in found])) for name in found[0]})
    return rows


def _joined(parts: Sequence[np.ndarray], places: Sequence[int]) -> np.ndarray:
    return np.concatenate([parts[place] for place in places] or [parts[0][:0]])
