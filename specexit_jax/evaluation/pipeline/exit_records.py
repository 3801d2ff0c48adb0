"""Records of the methods that exit, by replay on annotated traces, and of the bounds."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from specexit_jax.annotation.kinds import annotated_split
from specexit_jax.annotation.unfinished import count_unfinished
from specexit_jax.engine.session import Session
from specexit_jax.evaluation.pipeline import bounding, harness
from specexit_jax.evaluation.pipeline.bounding import CeilingSetting, Side
from specexit_jax.evaluation.records import Record
from specexit_jax.evaluation.report.exit_sections import exit_sections
from specexit_jax.evaluation.report.shown import Shown, chosen_views, offsets_of, signal_sections, told_exits
from specexit_jax.exits.policy_file import PolicyFile
from specexit_jax.models.draft_layer import DraftBundle
from specexit_jax.notes import note


def exit_records(
    session: Session,
    file: PolicyFile,
    setting: harness.Setting,
    ceiling: CeilingSetting,
    traces: Sequence[dict],
    decoded: Sequence[Record],
    workdir: Path,
) -> tuple[list[Record], Shown]:
    """The records, and further data to show. traces: of `eagle3`; decoded: records of what was decoded."""
    methods, folder, policy = setting.methods, workdir / setting.split, file.policy()
    labels = harness.annotated(session, traces, file.boundary_kinds, setting, folder)
    draft = DraftBundle(session.draft, session.params.draft, session.params.d2t)
    along = harness.extracted(session, traces, draft, folder)
    names = [name for name in harness.REPLAYED if name in methods]
    records = harness.replayed_records(session, names, policy, traces, labels, along.signals, setting.max_answer)
    sections = signal_sections(policy, traces, labels, along.signals)
    file = dataclasses.replace(file, draft=session.draft_digest)  # which also matches older forms in policy files
    sections |= exit_sections(file, workdir, traces, labels, along.signals, len(session.end_think_ids))
    test = bounding.Side(traces, labels, along.signals)
    if "oracle" in methods:
        records += bounding.oracle_records(bounding.table_of(session, test))
    if "ceiling" in methods:
        try:
            made, sections["ceiling"] = _ceiling(session, file, draft, test, ceiling, workdir)
            records += made
        except ValueError as refusal:  # also CannotCertify: hours of decoding must give results even without this bound
            note(f"The method ceiling is left out: {refusal}")
    if (unfinished := count_unfinished(traces, labels, setting.max_answer)).any:
        sections["unfinished_answers"] = unfinished.to_json() | {"told": unfinished.summary()}
    sections["offsets"] = offsets_of([*decoded, *records], labels)
    views = chosen_views(session.tokenizer, policy, records, traces, labels, along.signals)
    worst = told_exits(session.tokenizer, policy, records, traces, labels, along.signals)
    return records, Shown(sections, views, worst)


def _ceiling(
    session: Session, file: PolicyFile, draft: DraftBundle, test: Side, ceiling: CeilingSetting, workdir: Path
) -> tuple[list[Record], dict]:
    """The ceiling from the training workdir's other splits."""

    def side(split: str) -> Side:
        folder = workdir / split
        traces, labels = annotated_split(session, folder, file.boundary_kinds)
        return Side(traces, labels, harness.extracted(session, traces, draft, folder).signals)

    reading = bounding.first_stage(session, workdir / "draft", file.boundary_kinds, ceiling.boundaries)
    sides = side(ceiling.split), side(ceiling.certify_on) if file.certificate else None
    return bounding.ceiling_records(session, file.policy(), reading, *sides, test, ceiling, file.certificate)
