"""An evaluation from problems to records: decode, annotate, replay, bound, and time at batch 1.

Files in WORKDIR/SPLIT are appended to or written once, so a killed run continues where it stopped.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from specexit_jax.annotation.annotate import annotate
from specexit_jax.annotation.annotate import require_alike as require_alike_labels
from specexit_jax.annotation.features import Extracted, extract, load_signals, save_signals
from specexit_jax.annotation.forcing import Forcing
from specexit_jax.annotation.joined import join_labels
from specexit_jax.annotation.kinds import kinds_to_annotate, labels_at
from specexit_jax.annotation.replay import replay, smoothed_at_boundaries
from specexit_jax.annotation.rollout import Rollout, name_of, report_of, request_of, roll_out, trace_of
from specexit_jax.data.splits import Problem
from specexit_jax.engine.batches import Batch, execute, outcomes, plan
from specexit_jax.engine.methods import DECODED, Method, make_method, policy_of
from specexit_jax.engine.preparing import prepare
from specexit_jax.engine.requests import DecodeSettings
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
from specexit_jax.evaluation.loop.latency import measure_latency
from specexit_jax.evaluation.records import Record, record_of_replay, record_of_trace
from specexit_jax.exits.policy import Policy, Threshold
from specexit_jax.exits.risk import Certificate
from specexit_jax.monitoring.progress import Progress
from specexit_jax.storage.identity import same
from specexit_jax.storage.shards import read_shards, require_settings

BOUNDS = ("oracle", "ceiling")
REPLAYED = ("first_answer", "deer", "deer_eagle3", "specexit", "probe")


@dataclasses.dataclass(frozen=True)
class Setting:
    """The settings of an evaluation beside the models. target, source: see `annotation.rollout.Rollout`; seeds: their
    number, from `seed` on; loop_parts: whether timed requests are also reported by part and by position."""

    split: str
    methods: tuple[str, ...]
    seed: int
    batch_size: int
    forcing: Forcing
    draft_tokens: int
    latency_per_task: int
    latency_rounds: int
    loop_parts: bool
    target: str = ""
    source: str = ""
    seeds: int = 1

    @property
    def max_new_tokens(self) -> int:
        return self.forcing.max_new_tokens

    @property
    def max_answer(self) -> int:
        return self.forcing.max_answer


def require_methods(names: Sequence[str]) -> None:
    """Raises ValueError for an unknown method."""
    known = (*DECODED, *BOUNDS)
    for name in names:
        if name not in known:
            raise ValueError(f"unknown method {name!r}: choose among {', '.join(known)}")


def decoded_traces(
    session: Session, problems: Sequence[Problem], name: str, setting: Setting, folder: Path
) -> list[dict]:
    """Traces of a method that exits nowhere (`think`, `nothink`, `eagle3`) for exactly these problems, every seed of each."""
    stem = "traces" if name == "eagle3" else name
    return decoded_by(
        session, problems, make_method(session, name, draft_tokens=setting.draft_tokens), setting, folder, stem
    )


def require_alike(session: Session, setting: Setting, folder: Path, kinds: Sequence[str] | None) -> None:
    """Raises ValueError, before anything is decoded, if the folder holds traces or labels of other settings. kinds: of
    the boundaries to annotate, None for no annotation."""
    settings = _rollout(setting).settings(session)
    for stem in ("traces", *(name for name in ("think", "nothink") if name in setting.methods)):
        require_settings(folder, report_of(stem), settings)
    if kinds is not None:
        require_alike_labels(session, folder, kinds, setting.forcing, setting.target, setting.source)


def _rollout(setting: Setting) -> Rollout:
    names = {"target": setting.target, "source": setting.source}
    return Rollout(setting.seed, setting.batch_size, setting.max_new_tokens, setting.seeds, **names)


def decoded_by(
    session: Session, problems: Sequence[Problem], method: Method, setting: Setting, folder: Path, stem: str
) -> list[dict]:
    """The method's traces, kept in FOLDER/STEM.jsonl."""
    roll_out(session, problems, method, folder, _rollout(setting), stem)
    by_id = {trace["id"]: trace for trace in read_shards(folder, stem)}
    wanted = [name_of(problem, sample) for problem in problems for sample in range(setting.seeds)]
    return [_without_others_steps(session, method, by_id[name]) for name in wanted]


def _without_others_steps(session: Session, method: Method, trace: dict) -> dict:
    """The trace without acceptance counts unless they are this draft's; its tokens are the same under any draft."""
    own = session.draft_digest if method.draft_tokens else None
    return trace if same(own, trace.get("draft")) else trace | {"accepted": []}


def annotated(
    session: Session, traces: Sequence[dict], kinds: Sequence[str], setting: Setting, folder: Path
) -> list[dict]:
    """Labels of these traces at boundaries of these kinds, annotating what is missing; a folder that was annotated at more
    kinds goes on with all of them."""
    annotate(session, folder, kinds_to_annotate(folder, kinds), setting.forcing, target=setting.target)
    return labels_at(traces, join_labels(traces, read_shards(folder, "labels")), session.boundaries(kinds))


def extracted(
    session: Session,
    traces: Sequence[dict],
    draft,
    folder: Path,
    labels: Sequence[dict] = (),
    name: str = "signals.npz",
) -> Extracted:
    """The signals of the session's draft along these traces, cached in FOLDER/NAME; with `labels` also the features at
    their boundaries, which are too large to cache."""
    path = folder / name
    kept = _kept_signals(path, session.draft_digest)
    missing = [trace for trace in traces if trace["id"] not in kept]
    if not missing and not labels:
        return Extracted(kept, {})
    wanted = traces if labels else missing
    found = extract(session.target, session.params.target, wanted, draft if missing else None, labels)
    if missing:
        kept = kept | found.signals
        save_signals(path, kept, session.draft_digest)
    return Extracted(kept, found.features)


def _kept_signals(path: Path, digest: str) -> dict[str, np.ndarray]:
    """The file's signals; none if it is absent or of another draft."""
    try:
        return load_signals(path, digest)
    except (FileNotFoundError, ValueError):
        return {}


def replayed_records(
    session: Session,
    names: Sequence[str],
    policy: Policy,
    traces: Sequence[dict],
    labels: Sequence[dict],
    signals,
    max_answer: int,
) -> list[Record]:
    """Records of the exiting methods by replay; `probe` exits where `specexit` does. max_answer: of the labels."""
    records = []
    for name in names:
        rule = policy_of(session, name, policy, max_answer)
        shown = replay(rule, traces, labels, signals, session.end_think_ids)
        records += [record_of_replay(name, trace, one) for trace, one in zip(traces, shown, strict=True)]
    return records


def boundaries_of(session: Session, policy: Threshold, traces, labels, along: Extracted) -> Boundaries:
    """Annotated traces in the form that bounds use; if features were extracted, with the ceiling's inputs."""
    if not along.features:
        return gather_boundaries(traces, labels, None, None, len(session.end_think_ids))
    seen = smoothed_at_boundaries(policy.smoother, traces, join_labels(traces, labels), along.signals)
    smoothed = {trace["id"]: rows for trace, rows in zip(traces, seen, strict=True)}
    return gather_boundaries(traces, labels, along.features, smoothed, len(session.end_think_ids))


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


def decodable(session: Session, problems: Sequence[Problem], traces: Sequence[dict]) -> list[Problem]:
    """The problems whose prompts leave room in the target's context, with their thinking open or closed; traces: of them all."""
    thinking = session.thinking
    closing = len(thinking.closed_suffix) + len(thinking.end) if thinking else 0
    room = session.target.max_position - closing
    full = {trace.get("problem", trace["id"]) for trace in traces if len(trace["prompt_ids"]) >= room}
    return [problem for problem in problems if problem.id not in full]


def timed_records(
    session: Session, problems: Sequence[Problem], policy: Policy | None, kinds: Sequence[str], setting: Setting
) -> list[Record]:
    """Every decoding method on the first problems of each task at batch 1, decoded for real under the clock; none where
    latency_per_task is 0."""
    subset = first_of_each_task(problems, setting.latency_per_task)
    names = [name for name in setting.methods if name in DECODED]
    if not subset or not names:
        return []
    methods = {
        name: make_method(session, name, policy, kinds, setting.draft_tokens, max_answer=setting.max_answer)
        for name in names
    }
    batches = {(name, p.id): _batch(session, methods[name], p, setting) for name in names for p in subset}
    calls: dict[str, Callable] = {
        name: (lambda problem, name=name: execute(batches[name, problem.id])) for name in names
    }
    shapes: set[tuple] = set()

    def unseen(name: str, problem: Problem) -> bool:
        shape = (name, batches[name, problem.id].rows.prompts.shape)
        fresh = shape not in shapes
        shapes.add(shape)
        return fresh

    bar = Progress(setting.latency_rounds * len(subset), "latency ")
    seconds = measure_latency(calls, subset, setting.latency_rounds, unseen, progress=lambda done, _: bar.update(done))
    records = []
    for name in names:
        for row, problem in enumerate(subset):
            batch = batches[name, problem.id]
            (outcome,) = outcomes(batch, jax.block_until_ready(execute(batch)))
            latency = float(np.median(seconds[name][row]))
            records.append(record_of_trace(name, trace_of(session, problem, outcome), latency))
    return records


def _batch(session: Session, method: Method, problem: Problem, setting: Setting) -> Batch:
    request, settings = (
        request_of(session, problem, setting.seed),
        DecodeSettings(max_new_tokens=setting.max_new_tokens),
    )
    (batch,) = plan(prepare(session, [request], method, settings))
    return batch


def first_of_each_task(problems: Sequence[Problem], count: int) -> list[Problem]:
    """At most `count` problems of each task, in their order."""
    taken: dict[str, list[Problem]] = {}
    for problem in problems:
        chosen = taken.setdefault(problem.task, [])
        if len(chosen) < count:
            chosen.append(problem)
    return [problem for chosen in taken.values() for problem in chosen]
