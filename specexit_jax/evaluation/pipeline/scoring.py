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
from specexit_jax.models.draft import DraftBundle
from specexit_jax.training.score_fit import ScoreFit, fit_score

_HELD_OUT = 10  # one trace in so many is held out to tell how well a network like this does


def fitted_score(
    session: Session,
    folder: Path,
    kinds: Sequence[str],
    confidence: str,
    fit: ScoreFit,
    say: Callable[[str], None],
    name: str = "signals.npz",
) -> ScoreNetwork:
    """The network fitted on a split's boundaries of these kinds, for the session's draft.

    confidence: which label (`exits.labels.confidence_targets`). Traces that never closed their thinking have no answer to agree
    with, and are left out. name: the file of the draft's signals along the split. Says the AUC on every tenth trace, by a
    network fitted without these. Raises ValueError where the split was not annotated at these kinds.
    """
    traces, labels = annotated_split(session, folder, kinds)
    draft = DraftBundle(session.draft, session.params.draft, session.params.d2t)
    along = extracted(session, traces, draft, folder, name=name).signals
    closed = [place for place, trace in enumerate(traces) if trace["think_end"] is not None]
    traces, labels = [traces[place] for place in closed], [labels[place] for place in closed]
    seen = statistics_at_boundaries(session.draft.signal_names, traces, labels, along)
    wanted = [np.asarray(confidence_targets(label, confidence), np.float32) for label in labels]
    held = [place % _HELD_OUT == 0 for place in range(len(traces))]
    apart = [place for place, out in enumerate(held) if not out], [place for place, out in enumerate(held) if out]
    (fitted, targets), (others, _) = ((_joined(seen, side), _joined(wanted, side)) for side in apart)
    agree = np.concatenate([np.asarray(labels[place]["agree"], bool) for place in apart[1]])
    found = np.asarray(fit_score(fitted, targets, fit).logits(others))
    everything = range(len(traces))
    network = fit_score(_joined(seen, everything), _joined(wanted, everything), fit)
    told = f"fitted on {sum(map(len, wanted))} boundaries of {len(traces)} traces of {folder.name}"
    say(f"score: {told}; AUC {auc(agree, found):.4f} on {len(agree)} held-out boundaries")
    return network


def _joined(parts: Sequence[np.ndarray], places: Sequence[int]) -> np.ndarray:
    return np.concatenate([parts[place] for place in places])
