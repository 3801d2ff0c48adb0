"""One record per problem and method: the rows of `records.jsonl`, from which every table is computed."""

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from specexit_jax.exits.units import problem_of
from specexit_jax.storage.jsonl import read_jsonl

SOURCES = ("decode", "replay")
FINISHES = ("stop", "length")
CLOSED = "nothink"  # the method whose prompts close the thinking: everything generated is the answer


@dataclasses.dataclass(frozen=True)
class Record:
    """The outcome of one method on one problem under one seed.

    method, task, id, split: what was run on what.
    correct: the checker's verdict against the ground truth.
    tokens: all generated tokens (thinking, `</think>`, answer, stop token), as generated.
    thinking_tokens: generated tokens before `</think>`.
    exit_index: index in the generated ids of the forced `</think>`, None when the model closed its thinking itself.
    exited: whether the policy forced the exit (== exit_index is not None).
    steps: verify steps of the loop; 0 where nothing was decoded.
    accepted: accepted[n] = verify steps that accepted n drafts, exit-truncated steps left out; () without a decode.
    answer: the extracted answer, None when there is none.
    finish: 'stop' or 'length' (ran into the buffer's end, or was replayed with an answer that annotation cut).
    source: 'decode' (run for real) or 'replay' (a policy replayed on annotated traces).
    latency_s: batch-1 wall time in seconds, None where it was not measured.
    trial_tokens: tokens of failed trials, generated in addition to `tokens`. problem: the id that the traces of several
    seeds share; "" if it is `id`.
    """

    method: str
    task: str
    id: str
    split: str
    correct: bool
    tokens: int
    thinking_tokens: int
    exit_index: int | None
    exited: bool
    steps: int
    accepted: tuple[int, ...]
    answer: str | None
    finish: str
    source: str
    latency_s: float | None = None
    seed: int = 0
    trial_tokens: int = 0
    problem: str = ""

    def __post_init__(self):
        if not self.problem:
            object.__setattr__(self, "problem", self.id)
        if self.source not in SOURCES:
            raise ValueError(f"record {self.id!r}: source is {self.source!r}, expected one of {', '.join(SOURCES)}")
        if self.finish not in FINISHES:
            raise ValueError(f"record {self.id!r}: finish is {self.finish!r}, expected one of {', '.join(FINISHES)}")
        if self.exited != (self.exit_index is not None):
            raise ValueError(f"record {self.id!r}: exited is {self.exited} but exit_index is {self.exit_index}")

    @property
    def key(self) -> tuple[str, str, int]:
        """The key by which records of two methods are paired: problem and seed."""
        return self.task, self.problem, self.seed

    def to_json(self) -> dict:
        return {**dataclasses.asdict(self), "accepted": list(self.accepted)}


def record_of_replay(method: str, trace: dict, replayed: Any) -> Record:
    """The record of a policy replayed on a trace (a row of traces.jsonl); replayed: `annotation.replay.Replayed`."""
    exited = replayed.exit_index is not None
    return Record(
        method=method,
        task=trace["task"],
        id=trace["id"],
        problem=problem_of(trace),
        split=trace["split"],
        correct=bool(replayed.correct),
        tokens=len(replayed.ids),
        thinking_tokens=replayed.thinking_tokens,
        exit_index=replayed.exit_index,
        exited=exited,
        steps=0,
        accepted=(),
        answer=replayed.answer,
        finish=("stop" if replayed.finished else "length") if exited else trace["finish"],
        source="replay",
        seed=trace.get("seed", 0),
        trial_tokens=replayed.trial_tokens,
    )


def record_of_trace(method: str, trace: dict, latency_s: float | None = None) -> Record:
    """The record of a decoded trace (a row of traces.jsonl)."""
    return Record(
        method=method,
        task=trace["task"],
        id=trace["id"],
        problem=problem_of(trace),
        split=trace["split"],
        correct=bool(trace["correct"]),
        tokens=len(trace["ids"]),
        thinking_tokens=_thinking(method, trace),
        exit_index=trace["exit"],
        exited=trace["exit"] is not None,
        steps=trace["steps"],
        accepted=tuple(trace["accepted"]),
        answer=trace["answer"],
        finish=trace["finish"],
        source="decode",
        latency_s=latency_s,
        seed=trace["seed"],
        trial_tokens=trace.get("trial_tokens", 0),
    )


def _thinking(method: str, trace: dict) -> int:
    """Thinking tokens of a trace: all tokens if the thinking never closes, none if the prompt had closed it."""
    if trace["think_end"] is not None:
        return trace["think_end"]
    return 0 if method == CLOSED else trace.get("thinking_tokens", len(trace["ids"]))


def read_records(path: str | Path) -> list[Record]:
    """The records of a file; raises FileNotFoundError, or ValueError naming the first line that holds none."""
    names = {field.name: field.default for field in dataclasses.fields(Record)}
    required = {name for name, default in names.items() if default is dataclasses.MISSING}
    records = []
    for number, row in enumerate(read_jsonl(path), start=1):
        if not required <= set(row) <= set(names):
            wrong = sorted(required - set(row) or set(row) - set(names))
            raise ValueError(f"{path}: record {number} lacks or does not know {', '.join(wrong)}: evaluate again")
        if row["method"] == CLOSED:
            row = row | {"thinking_tokens": 0}  # earlier files count its answers there
        records.append(Record(**{**row, "accepted": tuple(row["accepted"])}))
    return records


def write_records(path: str | Path, records: Iterable[Record]) -> None:
    write_atomically(path, "".join(json.dumps(record.to_json(), ensure_ascii=False) + "\n" for record in records))


def write_json(path: str | Path, tree: dict) -> None:
    """Refuses NaN and infinity (not JSON): what was not measured is null."""
    write_atomically(path, json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Written to a temporary name beside `path` and renamed, so a killed run leaves the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _worth(record: Record) -> tuple[bool, bool]:
    return record.source == "decode", record.latency_s is not None


def one_per_problem(records: Iterable[Record]) -> list[Record]:
    """At most one record per method, problem and seed: a decoded record is preferred to a replayed one, a timed one to
    others.

    Latencies are decoded on a subset of what is replayed; the tests hold replay equal to decoding, so a decoded
    record stands for both. Order of first appearance is kept.
    """
    chosen: dict[tuple, Record] = {}
    for record in records:
        key = (record.method, *record.key)
        if key not in chosen or _worth(record) > _worth(chosen[key]):
            chosen[key] = record
    return list(chosen.values())
