"""Annotation: the answer forced at every boundary of every trace, does it agree, is it right, and where is T*.

A forced answer agrees if the task's checker accepts it in place of the model's own final answer: never the ground
truth, never equality of strings (specexit.md section 1).
"""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from specexit_jax.data.tasks import check, final_answer
from specexit_jax.decoding.force import Forced, ForceSpec, force_answers
from specexit_jax.exits.boundaries import Boundaries, boundary_positions
from specexit_jax.exits.labels import sufficient_boundary
from specexit_jax.jsonl import append_jsonl, drop_torn_line, read_jsonl
from specexit_jax.progress import Progress
from specexit_jax.requests import request_keys
from specexit_jax.session import Session

_STEP, _BOUNDARY_STEP = 256, 16  # shapes are padded to multiples, so that few of them compile


def thinking_tokens(trace: dict) -> int:
    """Tokens before `</think>`; all of them where it never came."""
    return len(trace["ids"]) if trace["think_end"] is None else trace["think_end"]


def force_batch(
    session: Session,
    traces: Sequence[dict],
    places: Sequence[list[int]],
    rows: int,
    max_answer: int,
    max_new_tokens: int,
) -> Forced:
    """Forced answers of one batch (host arrays); `places` index into each trace's generated ids."""
    spec = ForceSpec(session.target, session.sampling, max_answer, session.stop_ids, session.end_think_ids)
    longest = max(len(trace["prompt_ids"]) + len(trace["ids"]) for trace in traces)
    most = max(max(map(len, places)), 1)
    tokens = np.zeros((rows, -(-longest // _STEP) * _STEP), np.int32)
    positions = np.full((rows, -(-most // _BOUNDARY_STEP) * _BOUNDARY_STEP), -1, np.int32)
    limit = np.zeros((rows,), np.int32)
    for row, (trace, own) in enumerate(zip(traces, places, strict=True)):
        prompt = len(trace["prompt_ids"])
        ids = [*trace["prompt_ids"], *trace["ids"]]
        tokens[row, : len(ids)] = ids
        positions[row, : len(own)] = np.asarray(own, np.int32) + prompt
        limit[row] = min(prompt + max_new_tokens, session.target.max_position)
    padding = rows - len(traces)
    keys = request_keys([t["id"] for t in traces] + [""] * padding, [t["seed"] for t in traces] + [0] * padding)
    return jax.tree.map(np.asarray, force_answers(spec, session.params.target, tokens, positions, keys, limit))


def label_of(session: Session, trace: dict, places: list[int], forced: Forced, row: int) -> dict:
    """One line of labels.jsonl."""
    ids = [forced.ids[row, place, : forced.length[row, place]].tolist() for place in range(len(places))]
    answers = [
        final_answer("</think>" + session.tokenizer.decode(answer)) if forced.finished[row, place] else None
        for place, answer in enumerate(ids)
    ]
    checks = functools.partial(check, trace["task"])
    agree = [trace["answer"] is not None and checks(answer, trace["answer"]) for answer in answers]
    return {
        "id": trace["id"],
        "boundaries": places,
        "forced_ids": ids,
        "forced": answers,
        "agree": agree,
        "correct": [checks(answer, trace["reference"]) for answer in answers],
        "logprob": [round(float(value), 6) for value in forced.log_probability[row, : len(places)]],
        "first": sufficient_boundary(agree, "first"),
        "stable": sufficient_boundary(agree, "stable"),
    }


def labels(
    session: Session, traces: Sequence[dict], boundaries: Boundaries, rows: int, max_answer: int, max_new_tokens: int
) -> Iterator[list[dict]]:
    """Labels batch by batch, shortest traces first."""
    ordered = sorted(traces, key=lambda trace: len(trace["prompt_ids"]) + len(trace["ids"]))
    for start in range(0, len(ordered), rows):
        chosen = ordered[start : start + rows]
        places = [boundary_positions(boundaries, trace["ids"], thinking_tokens(trace)) for trace in chosen]
        forced = force_batch(session, chosen, places, rows, max_answer, max_new_tokens)
        yield [
            label_of(session, trace, own, forced, row)
            for row, (trace, own) in enumerate(zip(chosen, places, strict=True))
        ]


def annotate(
    session: Session,
    traces_path: Path,
    path: Path,
    kinds: Sequence[str],
    rows: int,
    max_answer: int,
    max_new_tokens: int,
) -> None:
    """Appends the labels that `path` does not hold yet for the traces of `traces_path`.

    max_new_tokens: what the traces were sampled with, so that an answer ends where an exit's would.
    """
    traces = list(read_jsonl(traces_path))
    drop_torn_line(path)
    done = {label["id"] for label in read_jsonl(path)} if path.exists() else set()
    missing = [trace for trace in traces if trace["id"] not in done]
    progress, count = Progress(len(missing), f"annotate {path.parent.name} "), 0
    for batch in labels(session, missing, session.boundaries(kinds), rows, max_answer, max_new_tokens):
        append_jsonl(path, batch)
        count += len(batch)
        progress.update(count, f"{sum(len(label['boundaries']) for label in batch)} boundaries in the last batch")
