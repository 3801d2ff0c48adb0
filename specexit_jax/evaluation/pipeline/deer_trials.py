"""DEER's score compared with the signals: exits where an answer tried at the boundary is likely; replayed, not
decoded."""

from collections.abc import Sequence

import numpy as np

from specexit_jax.annotation.kinds import labels_at
from specexit_jax.engine.methods import TRIAL_CONFIDENCE
from specexit_jax.engine.session import Session
from specexit_jax.evaluation import bounds
from specexit_jax.evaluation.certified.ablation import PARAGRAPHS, Paired, compared
from specexit_jax.evaluation.certified.certify import Goal
from specexit_jax.evaluation.pipeline.ablating import Split
from specexit_jax.exits.labels import confidence_targets
from specexit_jax.exits.risk import CannotCertify


def trial_rows(session: Session, splits: Sequence[Split], goal: Goal, table: str) -> list[dict]:
    """Two rows: DEER by its own threshold, and by one certified as every arm is. splits: development, calibration, test.

    The tokens of trials that failed are not counted, as in the main table; the score is exp(mean log p) of the forced answer.
    """
    development, calibration, test = (_boundaries(session, split) for split in splits)
    own = {"table": table, "arm": f"deer, {TRIAL_CONFIDENCE:g}"} | _used(test, TRIAL_CONFIDENCE)
    named = {"table": table, "arm": "deer, certified"}
    try:
        threshold = bounds.certify_threshold(
            development, development.extra[:, 0], calibration, calibration.extra[:, 0], goal.epsilon, goal.delta
        )
    except CannotCertify as refusal:
        return [own, named | {"refused": str(refusal)}]
    return [own, named | {"thresholds": [threshold]} | _used(test, threshold)]


def _boundaries(session: Session, split: Split) -> bounds.Boundaries:
    """The boundaries at paragraph ends; the score is in the extra column."""
    labels = labels_at(split.traces, split.labels, session.boundaries(PARAGRAPHS))
    scores = {label["id"]: np.asarray(confidence_targets(label, "deer"), np.float32)[:, None] for label in labels}
    return bounds.gather_boundaries(split.traces, labels, None, scores, len(session.end_think_ids))


def _used(test: bounds.Boundaries, threshold: float) -> dict:
    exits = bounds.threshold_exits(test, test.extra[:, 0], threshold)
    outcomes, exited = bounds.outcomes(test, exits), exits != bounds.NO_EXIT
    full = test.full_tokens, test.full_correct
    return compared(Paired(test.tasks, test.problems, *outcomes, *full, exited))
