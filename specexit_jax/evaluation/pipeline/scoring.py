"""The exit score of a session's draft, fitted on an annotated split that neither fixes the path nor certifies."""

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
from specexit_jax.models.draft import DraftBundle
from specexit_jax.training.score_fit import CannotFit, ScoreFit, fit_score

_HELD_OUT = 10  # one trace in so many is held out to tell how well a network like this does


def fitted_score(
    session: Session,
    folder: Path,
    kinds: Sequence[str],
    confidence: str,
    fit: ScoreFit,
    say: Callable[[str], None],
    name: str = "signals.npz",
    without: Sequence[str] = (),
) -> ScoreNetwork:
    """The network fitted on a split's boundaries of these kinds, for the session's draft.

    confidence: which label (`exits.labels.confidence_targets`). Traces that never closed their thinking have no answer to agree
    with, and are left out. name: the file of the draft's signals along the split. without: parts of the statistics that it does
    not read (`trace_statistics.PARTS`). Says the AUC on every tenth trace by a network fitted without these traces. Raises
    CannotFit where all boundaries agree alike, and ValueError where the split was not annotated at these kinds.
    """
    names = statistics_without(session.draft.signal_names, without)
    traces, labels = annotated_split(session, folder, kinds)
    draft = DraftBundle(session.draft, session.params.draft, session.params.d2t)
    along = extracted(session, traces, draft, folder, name=name).signals
    closed = [place for place, trace in enumerate(traces) if trace["think_end"] is not None]
    traces, labels = [traces[place] for place in closed], [labels[place] for place in closed]
    read = np.isin(statistic_names(session.draft.signal_names), names)
    seen = [rows[:, read] for rows in statistics_at_boundaries(session.draft.signal_names, traces, labels, along)]
    wanted = [np.asarray(confidence_targets(label, confidence), np.float32) for label in labels]
    agree = [np.asarray(label["agree"], bool) for label in labels]
    if not labels:
        raise CannotFit(f"An exit score needs traces that closed their thinking, but {folder.name} has none.")
    network = fit_score(np.concatenate(seen), np.concatenate(wanted), fit)
    if without:
        network = network.replace(statistics=names)
    say(f"score: fitted on {sum(map(len, wanted))} boundaries of {len(traces)} traces of {folder.name}")
    kept, out = ([n for n in range(len(traces)) if (n % _HELD_OUT == 0) == held] for held in (False, True))
    known = np.concatenate([agree[n] for n in out])
    try:
        found = fit_score(_joined(seen, kept), _joined(wanted, kept), fit).logits(_joined(seen, out))
    except CannotFit:
        return network
    if 0 < known.sum() < len(known):
        say(f"score: AUC {auc(known, np.asarray(found)):.4f} on {len(known)} held-out boundaries, fitted without them")
    return network


def _joined(parts: Sequence[np.ndarray], places: Sequence[int]) -> np.ndarray:
    return np.concatenate([parts[place] for place in places] or [parts[0][:0]])
