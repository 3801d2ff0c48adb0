"""An evaluation from problems to report: decode, replay, bound, time, publish."""

from collections.abc import Sequence
from pathlib import Path

from specexit_jax.data.splits import Problem
from specexit_jax.engine.binding import uncovered
from specexit_jax.engine.session import Session
from specexit_jax.evaluation.pipeline import harness
from specexit_jax.evaluation.pipeline.exit_records import CeilingSetting, exit_records
from specexit_jax.evaluation.pipeline.loop_sections import loop_sections
from specexit_jax.evaluation.pipeline.sharing import WITHOUT_EXIT
from specexit_jax.evaluation.pipeline.timed import timed_records
from specexit_jax.evaluation.records import record_of_trace, write_records
from specexit_jax.evaluation.report.publish import publish
from specexit_jax.evaluation.report.shown import Shown
from specexit_jax.exits.policy_file import PolicyFile


def evaluate(
    session: Session,
    problems: Sequence[Problem],
    file: PolicyFile | None,
    setting: harness.Setting,
    ceiling: CeilingSetting,
    workdir: Path,
) -> dict:
    """The results, as `publish` writes them. file: the policy's, None if no method exits.

    What shares (`sharing.decode_share`) have decoded is read. records.jsonl is written as it grows, so that a killed evaluation
    leaves the records so far.
    """
    folder, records, shown = workdir / setting.split, [], Shown()
    policy, kinds = (None, ("paragraph",)) if file is None else (file.policy(), file.boundary_kinds)
    notes = [f"split {setting.split}, {len(problems)} problems, sampled at temperature {session.sampling.temperature}"]
    harness.require_alike(session, setting, folder, None if file is None else kinds)
    traces = harness.decoded_traces(session, problems, "eagle3", setting, folder)
    if cut := sum(trace.get("cut", False) for trace in traces):
        notes.append(f"{cut} of {len(traces)} traces of eagle3 ended at the target's context, counted as unfinished")
    for name in (name for name in WITHOUT_EXIT if name in setting.methods):
        rows = traces if name == "eagle3" else harness.decoded_traces(session, problems, name, setting, folder)
        records += [record_of_trace(name, trace) for trace in rows]
        write_records(workdir / "records.jsonl", records)
    if file is not None:
        made, shown = exit_records(session, file, setting, ceiling, traces, records, workdir)
        records += made
        write_records(workdir / "records.jsonl", records)
        if sentence := uncovered(file, session, "the policy", max_new_tokens=setting.max_new_tokens):
            notes.append(sentence)
        notes.append("exits are replayed on annotated traces of eagle3; what was timed was decoded for real at batch 1")
        if unfinished := shown.sections.get("unfinished_answers"):
            notes.append(f"of the forced answers: {unfinished['told']}; an exit there is recorded as cut, and as wrong")
    timed = harness.decodable(session, problems, traces)
    records += timed_records(session, timed, policy, kinds, setting)
    sections = dict(shown.sections) | loop_sections(session, timed, policy, kinds, setting, traces)
    sections |= {"target": setting.target, "notes": notes}
    return publish(workdir, records, Shown(sections, shown.views, shown.worst))
