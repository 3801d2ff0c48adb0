"""Records of the bounds: the oracle, and the ceiling fitted on other splits."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from specexit_jax.annotation.features import Extracted, extract
from specexit_jax.annotation.joined import join_labels
from specexit_jax.annotation.replay import smoothed_at_boundaries, statistics_at_boundaries
from specexit_jax.annotation.some_traces import some_traces
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
from specexit_jax.evaluation.ceiling import Reading, fit_ceiling, fit_reading
from specexit_jax.evaluation.records import Record
from specexit_jax.exits.policy import Threshold
from specexit_jax.exits.risk import Certificate

FEATURE_BYTES = 2**31  # of the features that the first stage is fitted on, at most
CHUNK_BYTES = 2**28  # of the features in memory at a time where boundaries are scored


@dataclasses.dataclass(frozen=True)
class CeilingSetting:
    """The split that the ceiling's threshold is chosen on, and the accuracy that may be lost there
    (`bounds.choose_threshold`); if the policy has a certificate, also the split that certifies the ceiling. boundaries: the most
    that a stage of the ceiling is fitted on; the first takes no more than fit into FEATURE_BYTES."""

    split: str
    bound: float
    standard_errors: float
    certify_on: str = "calibration"
    boundaries: int = 100_000


@dataclasses.dataclass(frozen=True)
class Side:
    """Annotated traces of a split, and the draft's signals along them by id."""

    traces: Sequence[dict]
    labels: Sequence[dict]
    signals: Mapping[str, np.ndarray]


def table_of(session: Session, side: Side) -> Boundaries:
    """Without features."""
    return gather_boundaries(side.traces, side.labels, None, None, len(session.end_think_ids))


def boundaries_of(session: Session, policy: Threshold, traces, labels, along: Extracted) -> Boundaries:
    """Annotated traces in the form that bounds use, with the ceiling's inputs."""
    asked = traces, join_labels(traces, labels), along.signals
    smoothed = smoothed_at_boundaries(policy.smoother, *asked)
    statistics = statistics_at_boundaries(session.draft.signal_names, *asked)
    by_id = ({trace["id"]: rows for trace, rows in zip(traces, found, strict=True)} for found in (smoothed, statistics))
    known, past = by_id
    return gather_boundaries(traces, labels, along.features, known, len(session.end_think_ids), past)


def ceiling_records(
    session: Session,
    policy: Threshold,
    reading: Reading,
    development: Side,
    calibration: Side | None,
    test: Side,
    setting: CeilingSetting,
    certificate: Certificate | None = None,
) -> tuple[list[Record], dict]:
    """The ceiling, thresholded as the policy was, applied to test: on development, or, where the policy has a certificate, by
    one of the same epsilon and delta on the calibration split."""
    known = table_of(session, development)
    ceiling = fit_ceiling(columns_of(session, policy, reading, development), known, setting.boundaries)

    def scores(side: Side) -> np.ndarray:
        return ceiling.scores(columns_of(session, policy, reading, side))

    if certificate is None:
        chosen = choose_threshold(known, ceiling.left_out, setting.bound, standard_errors=setting.standard_errors)
        threshold = chosen.thresholds[0]
    else:
        seen, goal = scores(calibration), (certificate.epsilon, certificate.delta)
        threshold = certify_threshold(known, ceiling.left_out, table_of(session, calibration), seen, *goal)
    table = table_of(session, test)
    records = bound_records(table, threshold_exits(table, scores(test), threshold), "ceiling")
    return records, {"held_out_auc": ceiling.held_out, "chosen": ceiling.chosen, "threshold": threshold}


def first_stage(session: Session, folder: Path, kinds: Sequence[str], most: int, seed: int = 0) -> Reading:
    """The ceiling's first stage, on some traces of an annotated split: of problems drawn at random until they have `most`
    boundaries, or features of FEATURE_BYTES."""
    most = min(most, max(FEATURE_BYTES // _boundary_bytes(session), 1))
    traces, labels = some_traces(session, folder, kinds, most, seed)
    features = extract(session.target, session.params.target, session.end_think_ids, traces, None, labels).features
    return fit_reading(gather_boundaries(traces, labels, features, None, len(session.end_think_ids)), seed)


def columns_of(session: Session, policy: Threshold, reading: Reading, side: Side) -> np.ndarray:
    """float32 [n, F]: the inputs of the ceiling's second stage at the boundaries of `table_of`. Features of CHUNK_BYTES are in
    memory at a time."""
    parts = []
    for start, stop in _chunks(side.labels, max(CHUNK_BYTES // _boundary_bytes(session), 1)):
        traces, labels = side.traces[start:stop], side.labels[start:stop]
        seen = extract(session.target, session.params.target, session.end_think_ids, traces, None, labels)
        along = Extracted(side.signals, seen.features)
        parts.append(reading.columns(boundaries_of(session, policy, traces, labels, along)))
    return np.concatenate(parts)


def _boundary_bytes(session: Session) -> int:
    return 4 * session.target.feature_size


def _chunks(labels: Sequence[dict], most: int) -> Iterator[tuple[int, int]]:
    """Ranges of labels with at most `most` boundaries together, or of one label."""
    start = count = 0
    for place, label in enumerate(labels):
        own = len(label["boundaries"])
        if place > start and count + own > most:
            yield start, place
            start, count = place, 0
        count += own
    if start < len(labels):
        yield start, len(labels)


def oracle_records(test: Boundaries) -> list[Record]:
    return bound_records(test, oracle_exits(test), "oracle")
