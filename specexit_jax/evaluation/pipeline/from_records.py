"""Makes results and report again from the files of an evaluation: nothing is decoded and no model is loaded."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from specexit_jax.annotation.kinds import annotated_kinds, labels_at
from specexit_jax.annotation.signal_file import load_signals
from specexit_jax.annotation.sparse import require_whole
from specexit_jax.evaluation.records import read_records
from specexit_jax.evaluation.report.publish import PROVENANCE, provenance, publish, record_sections
from specexit_jax.evaluation.report.shown import Shown, chosen_views, offsets_of, told_exits
from specexit_jax.exits.boundaries import Boundaries
from specexit_jax.exits.policy import Threshold
from specexit_jax.exits.policy_file import PolicyFile
from specexit_jax.storage.rows import Rows
from specexit_jax.storage.shards import held


def recompute(
    workdir: Path,
    split: str,
    policy: PolicyFile | None,
    tokenizer: Any = None,
    boundaries: Boundaries | None = None,
) -> dict:
    """`publish` for WORKDIR/records.jsonl, with the traces, labels and signals of WORKDIR/SPLIT as far as they are there.

    Sections that do not follow from records are copied from the results.json in WORKDIR, and so are device, revision
    and versions; the report says so. Records of an unfinished evaluation give partial results. policy: the one that the
    traces exited by. tokenizer: without one, ids stand for texts. boundaries: at which the policy exits, of all that
    were annotated (None: all of them).
    """
    records = read_records(workdir / "records.jsonl")
    if not records:
        raise ValueError(f"{workdir / 'records.jsonl'} is empty: evaluate first")
    earlier = _earlier(workdir / "results.json")
    wanted = {record.id for record in records}
    there = held(workdir / split, "traces").brief()
    traces = there.of(name for name in there.ids if name in wanted)
    same = policy is not None and annotated_kinds(workdir / split) in (None, policy.boundary_kinds)
    labels = _labels(workdir / split, traces, None if same else boundaries)
    made = record_sections(records)
    if labels:
        made["offsets"] = offsets_of(records, labels)
    carried = {key: value for key, value in earlier.items() if key not in (*made, *PROVENANCE, "methods")}
    # In the order of the existing file, so that unchanged parts are written as they were.
    order = [*(key for key in earlier if key in made or key in carried), *made]
    sections = {key: made[key] if key in made else carried[key] for key in dict.fromkeys(order)}
    views, worst = [], []
    if known := traces.of(labels.ids):
        rule = None if policy is None else policy.policy()
        signals = _signals(workdir / split / "signals.npz", policy, known)
        if signals and isinstance(rule, Threshold):
            views = chosen_views(tokenizer, rule, records, known, labels, signals)
        worst = told_exits(tokenizer, rule, records, known, labels, signals)
    origin = {key: earlier[key] for key in PROVENANCE} if earlier else provenance()
    return publish(workdir, records, Shown(sections, views, worst), origin, [_note(list(carried))])


def _labels(folder: Path, traces: Rows, boundaries: Boundaries | None) -> Rows:
    """The existing labels of these traces, at `boundaries`."""
    there = held(folder, "labels").brief()
    own = traces.of(name for name in traces.ids if name in there.by_id)
    labels = there.of(own.ids)
    require_whole(labels)
    return labels if boundaries is None else labels_at(own, labels, boundaries)


def _earlier(path: Path) -> dict:
    """The existing results; {} if there are none."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): remove it, what records do not give is lost") from error
    if not isinstance(found, dict) or not set(PROVENANCE) <= set(found):
        raise ValueError(f"{path} is not of an evaluation: remove it, what records do not give is lost")
    return found


def _signals(path: Path, policy: PolicyFile | None, traces: Rows) -> Mapping[str, np.ndarray]:
    """The signals of the policy's draft; none if the file is absent, of another draft, or lacks a trace."""
    try:
        found = load_signals(path, policy.draft) if policy else {}
    except (FileNotFoundError, ValueError):
        return {}
    return found if all(name in found for name in traces.ids) else {}


def _note(carried: list[str]) -> str:
    said = "Made again from records.jsonl, with nothing decoded."
    if not carried:
        return said
    return f"{said} Carried over from the results.json of the run: {', '.join(f'`{name}`' for name in carried)}."
