"""Annotation: the answer forced at every boundary of every trace, whether it agrees, whether it is right, and where T*
is.

A forced answer agrees if the task's checker accepts it with the model's own final answer as the reference. Neither the
ground truth nor equality of strings is used for that (docs/method.md §1).
"""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from specexit_jax.annotation.forcing import Forcing, force_batch, make_forcer, room_of
from specexit_jax.annotation.joined import thinking_tokens
from specexit_jax.annotation.schedule import ALL, Schedule
from specexit_jax.annotation.searches import label_searched
from specexit_jax.annotation.unfinished import count_unfinished
from specexit_jax.data.grading.grader import Grade, Grader, Later, together
from specexit_jax.data.world.tasks import final_answer
from specexit_jax.decoding.forced.one_at_a_time import Forced
from specexit_jax.decoding.forced.queue import ForceCost, Forcer
from specexit_jax.decoding.verify import exits_below
from specexit_jax.engine.keys import noise_of
from specexit_jax.engine.session import Session, text_of
from specexit_jax.exits.boundaries import Boundaries, boundary_positions
from specexit_jax.exits.labels import sufficient_boundary
from specexit_jax.monitoring.progress import Progress
from specexit_jax.storage.rows import brief_rows, taken
from specexit_jax.storage.shards import WHOLE, Shard, held, own_rows, read_shards, require_settings

_WAITING = 64  # traces whose labels may wait for grades; a long one takes some megabytes


def label_of(
    session: Session, trace: dict, places: list[int], forced: Forced, row: int, grader: Grader | None = None
) -> dict:
    """One line of labels.jsonl; waits for its grades. Answers are those under the trace's own key, which an exit would
    give. With several keys, `agree_share` is the share of them under which the answer agrees. An answer that did not end
    within max_answer or the buffer is not `finished`: it is not graded and does not agree."""
    return label_later(session, trace, places, forced, row, grader or Grader()).value()


def label_later(
    session: Session, trace: dict, places: list[int], forced: Forced, row: int, grader: Grader
) -> Later[dict]:
    """`label_of`, once its answers are graded. Its grades begin with whether the answer at each place agrees."""
    judged_by = trace.get("checker", "world"), trace["task"]

    def answer(place: int, key: int) -> str | None:
        if not forced.finished[row, place, key]:
            return None
        return final_answer("</think>" + text_of(session, ids(place, key)))

    def ids(place: int, key: int) -> list[int]:
        return forced.ids[row, place, key, : forced.length[row, place, key]].tolist()

    def stands(answer: str | None) -> Grade:
        return grader.agrees(*judged_by, answer, trace["answer"], trace["reference"])

    keys, number = forced.length.shape[2], len(places)
    answers = [answer(place, 0) for place in range(number)]
    grades = [stands(found) for found in answers]
    grades += [grader.accepts(*judged_by, found, trace["reference"]) for found in answers]
    grades += [stands(answer(place, key)) for place in range(number) for key in range(1, keys)]
    label = {
        "id": trace["id"],
        "boundaries": places,
        "forced_ids": [ids(place, 0) for place in range(number)],
        "forced": answers,
        "finished": [bool(value) for value in forced.finished[row, :number, 0]],
        "agree": None,
        "correct": None,
        "logprob": [round(float(value), 6) for value in forced.log_probability[row, :number, 0]],
    }

    def graded(found: list[bool]) -> dict:
        agree, more = found[:number], found[2 * number :]
        told = label | {"agree": agree, "correct": found[number : 2 * number]}
        told |= {kind: sufficient_boundary(agree, kind) for kind in ("first", "stable")}
        if keys > 1:
            others = np.reshape(more, (number, keys - 1))
            told["agree_share"] = [float(np.mean([own, *row])) for own, row in zip(agree, others, strict=True)]
        return told

    return Later(grades, graded)


def labels(
    session: Session,
    traces: Sequence[dict],
    boundaries: Boundaries,
    forcer: Forcer,
    forcing: Forcing,
    grader: Grader | None = None,
    schedule: Schedule = ALL,
) -> Iterator[list[dict]]:
    """Labels batch by batch as their grades arrive, shortest traces first; forcing goes on while grades are awaited.
    `exits_before` of each: the number of leading tokens after which an exit fits."""
    grader = grader or Grader()

    def room(trace: dict) -> int:
        most = room_of(trace, forcing, session.target.max_position)
        return min(exits_below(most, len(session.end_think_ids)), thinking_tokens(trace))

    def one(trace: dict, places: list[int], forced: Forced, row: int) -> Later[dict]:
        exits_before = room(trace)
        label = label_later(session, trace, places, forced, row, grader)
        return label.then(lambda found: found | {"exits_before": exits_before})

    def places(trace: dict) -> list[int]:
        return boundary_positions(boundaries, trace["ids"], thinking_tokens(trace))

    def ungraded() -> Iterator[Later[list[dict]]]:
        for start in range(0, len(ordered), forcing.rows):
            chosen = list(ordered[start : start + forcing.rows])
            every = [places(trace) for trace in chosen]
            own = [schedule.of(each) for each in every]
            forced = force_batch(forcer, forcing, chosen, own)
            made = [one(*pair, forced, row) for row, pair in enumerate(zip(chosen, own, strict=True))]
            yield together(made if schedule.whole else list(map(_with_unforced, made, every)))

    lengths = [len(trace["prompt_ids"]) + len(trace["ids"]) for trace in brief_rows(traces)]
    ordered = taken(traces, np.argsort(lengths, kind="stable"))
    if schedule.search:
        found = label_searched(session, forcer, forcing, schedule, ordered, places, one, grader)
        return ([row] for row in grader.arrived(found, max(forcing.rows, _WAITING)))
    return grader.arrived(ungraded(), max(1, _WAITING // forcing.rows))


def _with_unforced(label: Later[dict], boundaries: list[int]) -> Later[dict]:
    return label.then(lambda found: found | {"unforced": sorted({*boundaries} - {*found["boundaries"]})})


def require_alike(
    session: Session,
    folder: Path,
    kinds: Sequence[str],
    forcing: Forcing,
    target: str = "",
    source: str = "",
    schedule: Schedule = ALL,
) -> dict[str, Any]:
    """The settings that labels of a folder depend on, as annotate.json records them; target, source: see
    `annotation.rollout.Rollout`.

    Raises ValueError if the folder holds labels or traces that were made under other settings.
    """
    named = {name: value for name, value in {"target": target, "source": source}.items() if value}
    sampled = {"max_new_tokens": forcing.max_new_tokens, "sampling": session.sampling.settings()}
    sampled |= noise_of(session.sampling)  # answers are sampled with the noise of their trace
    require_settings(folder, "rollout", sampled | named)
    settings = {"kinds": list(kinds), "max_answer": forcing.max_answer, "keys": forcing.keys} | sampled
    settings |= {"schedule": schedule.text()}
    settings |= {"target": target} if target else {}
    require_settings(folder, "annotate", settings)
    return settings


def annotate(
    session: Session,
    folder: Path,
    kinds: Sequence[str],
    forcing: Forcing,
    shard: Shard = WHOLE,
    target: str = "",
    source: str = "",
    grader: Grader | None = None,
    names: Collection[str] | None = None,
    schedule: Schedule = ALL,
) -> dict[str, Any]:
    """Appends the labels that are missing for the shard's traces. Returns what this run took, which annotate.json also
    records, and how many of all answers are `unfinished`. target, source: names recorded with the labels ("": not
    compared). grader: judges the answers, by default in this process; names: the traces to label instead of the
    shard's; schedule: which boundaries are forced.

    Raises ValueError as `require_alike`.
    """
    settings = require_alike(session, folder, kinds, forcing, target, source, schedule)
    with own_rows(folder, "labels", "annotate", settings, shard) as rows:
        traces, before = read_shards(folder, "traces"), held(folder, "labels")  # of all processes
        mine, done = shard.has if names is None else names.__contains__, set(before.ids)
        missing = traces.of(sorted(name for name in traces.ids if mine(name) and name not in done))
        if schedule.search:  # which asks for few boundaries of a trace at a time: more branches would idle
            forcing = dataclasses.replace(forcing, branches=min(forcing.branches, max(schedule.width, schedule.verify)))
        forcer = make_forcer(session, forcing)
        unfinished = count_unfinished(traces, before, forcing.max_answer)
        progress, count, unforced = Progress(len(missing), f"annotate {folder.name} "), 0, 0
        grader = grader or Grader()
        graded = grader.tally()
        for batch in labels(session, missing, session.boundaries(kinds), forcer, forcing, grader, schedule):
            rows.append(batch)
            count += len(batch)
            unforced += sum(len(label.get("unforced", ())) for label in batch)
            own = traces.brief().of(label["id"] for label in batch)
            unfinished += count_unfinished(own, batch, forcing.max_answer)
            progress.update(count, f"{forcer.cost.boundaries} boundaries, {_pace(forcer.cost)}")
        measured = {"traces": count, "rows": forcing.rows, "branches": forcing.branches, "unforced": unforced}
        measured |= dataclasses.asdict(forcer.cost) | grader.measured(graded)
        measured["seconds_a_boundary"] = forcer.cost.seconds / max(forcer.cost.boundaries, 1)
        if missing:
            rows.report(measured | {"unfinished": unfinished.to_json()})
    return measured | {"unfinished": unfinished}


def _pace(cost: ForceCost) -> str:
    return f"{1e3 * cost.seconds / max(cost.boundaries, 1):.1f} ms each"
