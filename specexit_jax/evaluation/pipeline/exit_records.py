"""Records of the methods that exit, by replay on annotated traces, and of the bounds."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from specexit_jax.annotation.kinds import annotated_split
from specexit_jax.annotation.unfinished import count_unfinished
from specexit_jax.engine.session import Session
from specexit_jax.evaluation.bounds import Boundaries
from specexit_jax.evaluation.pipeline import bounding, harness
from specexit_jax.evaluation.records import Record
from specexit_jax.evaluation.report.exit_sections import exit_sections
from specexit_jax.evaluation.report.shown import Shown, chosen_views, offsets_of, signal_sections, told_exits
from specexit_jax.exits.policy_file import PolicyFile
from specexit_jax.models.draft import DraftBundle
from specexit_jax.notes import note


@dataclasses.dataclass(frozen=True)
class CeilingSetting:
    """The split that the ceiling's threshold is chosen on, and the accuracy that may be lost there
    (`bounds.choose_threshold`); if the policy has a certificate, also the split that certifies the ceiling."""

    split: str
    bound: float
    standard_errors: float
    certify_on: str = "calibration"


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
    along = harness.extracted(session, traces, draft, folder, labels if "ceiling" in methods else ())
    names = [name for name in harness.REPLAYED if name in methods]
    records = harness.replayed_records(session, names, policy, traces, labels, along.signals, setting.max_answer)
    sections = signal_sections(policy, traces, labels, along.signals)
    file = dataclasses.replace(file, draft=session.draft_digest)  # which also matches older forms in policy files
    sections |= exit_sections(file, workdir, traces, labels, along.signals, len(session.end_think_ids))
    test = bounding.boundaries_of(session, policy, traces, labels, along)
    if "oracle" in methods:
        records += bounding.oracle_records(test)
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


def _ceiling(session: Session, file: PolicyFile, draft: DraftBundle, test, ceiling: CeilingSetting, workdir: Path):
    """The ceiling from the training workdir's other splits."""

    def side(split: str) -> Boundaries:
        folder = workdir / split
        traces, labels = annotated_split(session, folder, file.boundary_kinds)
        along = harness.extracted(session, traces, draft, folder, labels)
        return bounding.boundaries_of(session, file.policy(), traces, labels, along)

    sides = side("draft"), side(ceiling.split), side(ceiling.certify_on) if file.certificate else None
    return bounding.ceiling_records(*sides, test, ceiling.bound, ceiling.standard_errors, file.certificate)
