"""Rollouts: from problems to traces. Each trace is written soon after it ends, so that a killed run continues where it
stopped."""

import dataclasses
import itertools
import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from specexit_jax.data.grading.grader import Grader, Later
from specexit_jax.data.shares import DEFAULT, written
from specexit_jax.data.splits import Problem
from specexit_jax.data.world.tasks import final_answer
from specexit_jax.engine.generate import decode_prepared
from specexit_jax.engine.keys import noise_of
from specexit_jax.engine.methods import Method
from specexit_jax.engine.outcomes import Outcome
from specexit_jax.engine.placement import Auto, Clock, Placement, told_rows
from specexit_jax.engine.preparing import prepare_fitting
from specexit_jax.engine.requests import DecodeSettings, Request
from specexit_jax.engine.session import Session, chat_ids, is_thinking, text_of
from specexit_jax.monitoring.progress import Progress
from specexit_jax.notes import note
from specexit_jax.storage.shards import WHOLE, OwnRows, Shard, held, own_rows

_FLUSH = 1.0  # seconds of finished and graded traces that a kill may lose
_WAITING = 256  # traces that may wait for their grades; a long one takes half a megabyte


@dataclasses.dataclass(frozen=True)
class Rollout:
    """How traces are made of problems. samples: traces per problem; shard: this process's share of them; target,
    source: names recorded with the traces, so that others are not mixed in ("": not compared)."""

    seed: int
    batch_size: int | Auto
    max_new_tokens: int
    samples: int = 1
    shard: Shard = WHOLE
    target: str = ""
    source: str = ""

    def settings(self, session: Session) -> dict[str, Any]:
        """The settings that a trace's tokens depend on."""
        named = {"target": self.target, "source": self.source}
        sampling = session.sampling.settings()
        kept = {"seed": self.seed, "max_new_tokens": self.max_new_tokens, "sampling": sampling}
        kept |= noise_of(session.sampling)
        return kept | {name: value for name, value in named.items() if value}


def name_of(problem: Problem, sample: int) -> str:
    """The id of a trace: the problem's own for its first sample."""
    return f"{problem.id}/sample-{sample}" if sample else problem.id


def request_of(session: Session, problem: Problem, seed: int, sample: int = 0) -> Request:
    """The request of a problem's sample: its chat prompt with the thinking open, a seed and an id of its own."""
    return Request(name_of(problem, sample), tuple(chat_ids(session, problem.question)), seed + sample)


def trace_of(
    session: Session, problem: Problem, outcome: Outcome, sample: int = 0, grader: Grader | None = None
) -> dict:
    """One line of traces.jsonl; waits for its grade. cut: as in `Outcome`. draft: the digest of the draft whose acceptance it
    has, None where none speculated."""
    return trace_later(session, problem, outcome, sample, grader or Grader()).value()


def trace_later(session: Session, problem: Problem, outcome: Outcome, sample: int, grader: Grader) -> Later[dict]:
    """`trace_of`, once its answer is graded."""
    text = text_of(session, outcome.ids)
    # if the prompt closed the thinking, everything generated is the answer
    closed = "" if is_thinking(session, outcome.prompt_ids) else "</think>"
    answer = final_answer(closed + text) if outcome.finished else None
    grade = grader.accepts(problem.checker, problem.task, answer, problem.answer)
    trace = {
        "id": outcome.id,
        "problem": problem.id,
        "sample": sample,
        "task": problem.task,
        "split": problem.split,
        "checker": problem.checker,
        "prompt": problem.question,
        "reference": problem.answer,
        "prompt_ids": list(outcome.prompt_ids),
        "ids": list(outcome.ids),
        "text": text,
        "think_end": outcome.think_end,
        "thinking_tokens": outcome.thinking_tokens,
        "answer": answer,
        "correct": None,
        "finish": "stop" if outcome.finished else "length",
        "cut": outcome.cut,
        "seed": outcome.seed,
        "steps": outcome.steps,
        "accepted": list(outcome.accepted),
        "draft": session.draft_digest if len(outcome.accepted) > 1 else None,
        "exit": outcome.exit,
        "trial_tokens": outcome.trial_tokens,
    }
    return Later([grade], lambda grades: trace | {"correct": grades[0]})


def traces(
    session: Session,
    problems: Sequence[tuple[Problem, int]],
    method: Method,
    rollout: Rollout,
    clock: Clock | None = None,
    grader: Grader | None = None,
) -> Iterator[dict]:
    """The trace of every (problem, sample), as each is done and graded; decoding goes on while grades are awaited. Requests
    whose prompt fills the context come first, without an answer."""
    requests = [request_of(session, problem, rollout.seed, sample) for problem, sample in problems]
    asked = {request.id: pair for request, pair in zip(requests, problems, strict=True)}
    settings = DecodeSettings(max_new_tokens=rollout.max_new_tokens)
    prepared, unanswered = prepare_fitting(session, requests, method, settings)
    found = decode_prepared(prepared, Placement(rollout.batch_size, in_order=False), clock)
    grader = grader or Grader()

    def ungraded() -> Iterator[Later[dict]]:
        for outcome in itertools.chain(unanswered, found):
            problem, sample = asked[outcome.id]
            yield trace_later(session, problem, outcome, sample, grader)

    return grader.arrived(ungraded(), _WAITING)


def require_same_shares(folder: Path, source: str) -> None:
    """Raises ValueError if another split beside `folder` divided the same data set by other shares: a question could
    then be in both splits. source: `Rollout.source`."""
    own, shares = _apart(source)
    for path in sorted(folder.parent.glob("*/rollout*.json")):
        try:
            earlier = json.loads(path.read_text())["settings"].get("source", "")
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # `require_settings` reports it when that split is worked on
        other, theirs = _apart(earlier)
        if earlier and other == own and theirs != shares:
            raise ValueError(
                f"{path} was made with source.shares={theirs}, this run has {shares}: a question could stand in two splits; "
                "use another workdir."
            )


def _apart(source: str) -> tuple[str, str]:
    """A source's label without its shares, and the shares."""
    found = re.search(r", shares=(\S*?)(?=, |$)", source)
    return (source.replace(found[0], ""), found[1]) if found else (source, written(DEFAULT))


def roll_out(
    session: Session,
    problems: Sequence[Problem],
    method: Method,
    folder: Path,
    rollout: Rollout,
    stem: str = "traces",
    grader: Grader | None = None,
) -> dict[str, Any]:
    """Appends the shard's traces that are missing in the folder. Returns what this run measured, which the report also
    records. grader: judges the answers, by default in this process.

    Raises ValueError if the folder holds traces that were sampled under other settings.
    """
    require_same_shares(folder, rollout.source)
    with own_rows(folder, stem, report_of(stem), rollout.settings(session), rollout.shard) as rows:
        before = held(folder, stem)
        seeds = zip(before.column("seed"), before.column("sample", 0), strict=True)
        if any(seed - sample != rollout.seed for seed, sample in seeds):
            raise ValueError(f"{rows.path} holds traces of another seed than {rollout.seed}: use another workdir")
        done = set(before.ids)
        every = [(problem, sample) for problem in problems for sample in range(rollout.samples)]
        wanted = [pair for pair in rollout.shard.own(every) if name_of(*pair) not in done]
        measured = _write(session, wanted, method, rollout, rows, f"rollout {folder.name} ", grader or Grader())
        if wanted:
            rows.report(measured)
    return measured


def report_of(stem: str) -> str:
    """The stem of the report of a file of traces."""
    return "rollout" if stem == "traces" else stem


def _write(
    session: Session,
    wanted: Sequence[tuple[Problem, int]],
    method: Method,
    rollout: Rollout,
    rows: OwnRows,
    title: str,
    grader: Grader,
) -> dict[str, Any]:
    """Appends the traces as they are done; returns time and counts."""
    clock, written, tokens, cut, before = Clock(), [], 0, 0, grader.tally()
    progress, flushed = Progress(len(wanted), title), time.monotonic()
    try:
        found = traces(session, wanted, method, rollout, clock, grader)
        for count, trace in enumerate(found, start=1):
            written.append(trace)
            tokens, cut = tokens + len(trace["ids"]), cut + trace["cut"]
            if time.monotonic() - flushed > _FLUSH:
                rows.append(written)
                written, flushed = [], time.monotonic()
            progress.update(count, f"{tokens} tokens, {tokens / max(clock.seconds, 1e-9):.0f} a second")
    finally:
        if written:
            rows.append(written)
    if cut:
        note(f"{cut} of {len(wanted)} traces ended at the target's context of {session.target.max_position} tokens.")
    return {
        "traces": len(wanted),
        "cut": cut,
        "tokens": tokens,
        "seconds": clock.seconds,
        "tokens_per_second": tokens / clock.seconds if clock.seconds else None,
        "method": method.name,
        "batch_size": told_rows(rollout.batch_size),
    } | grader.measured(before)
