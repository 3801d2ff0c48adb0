"""Records of the bounds: the oracle, and the ceiling fitted on other splits."""

from specexit_jax.annotation.features import Extracted
from specexit_jax.annotation.joined import join_labels
from specexit_jax.annotation.replay import smoothed_at_boundaries, statistics_at_boundaries
from specexit_jax.engine.session import Session
from specexit_jax.evaluation.bounds import (
    Boundaries,
    bound_records,
    certify_threshold,
    choose_threshold,
    gather_boundaries,
    oracle_exits,
    threshold_exits,
)
from specexit_jax.evaluation.ceiling import fit_ceiling
from specexit_jax.evaluation.records import Record
from specexit_jax.exits.policy import Threshold
from specexit_jax.exits.risk import Certificate


def boundaries_of(session: Session, policy: Threshold, traces, labels, along: Extracted) -> Boundaries:
    """Annotated traces in the form that bounds use; if features were extracted, with the ceiling's inputs."""
    if not along.features:
        return gather_boundaries(traces, labels, None, None, len(session.end_think_ids))
    asked = traces, join_labels(traces, labels), along.signals
    smoothed = smoothed_at_boundaries(policy.smoother, *asked)
    statistics = statistics_at_boundaries(session.draft.signal_names, *asked)
    by_id = ({trace["id"]: rows for trace, rows in zip(traces, found, strict=True)} for found in (smoothed, statistics))
    known, past = by_id
    return gather_boundaries(traces, labels, along.features, known, len(session.end_think_ids), past)


def ceiling_records(
    train: Boundaries,
    development: Boundaries,
    calibration: Boundaries | None,
    test: Boundaries,
    bound: float,
    standard_errors: float,
    certificate: Certificate | None = None,
) -> tuple[list[Record], dict]:
    """The ceiling fitted on the draft's training split, thresholded as the policy was, applied to test: on development, or,
    where the policy has a certificate, by one of the same epsilon and delta on the calibration split."""
    ceiling = fit_ceiling(train)
    scores = ceiling.scores(development)
    if certificate is None:
        threshold = choose_threshold(development, scores, bound, standard_errors=standard_errors).thresholds[0]
    else:
        seen, goal = ceiling.scores(calibration), (certificate.epsilon, certificate.delta)
        threshold = certify_threshold(development, scores, calibration, seen, *goal)
    records = bound_records(test, threshold_exits(test, ceiling.scores(test), threshold), "ceiling")
    return records, {"held_out_auc": ceiling.held_out, "chosen": ceiling.chosen, "threshold": threshold}


def oracle_records(test: Boundaries) -> list[Record]:
    return bound_records(test, oracle_exits(test), "oracle")
