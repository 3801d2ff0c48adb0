"""Rollouts: problems in, traces out, appended batch by batch, so that a killed run goes on where it stopped."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from specexit_jax.data.splits import Problem
from specexit_jax.data.tasks import check, final_answer
from specexit_jax.jsonl import append_jsonl, drop_torn_line, read_jsonl
from specexit_jax.methods import Method
from specexit_jax.progress import Progress
from specexit_jax.requests import Outcome, Request
from specexit_jax.run import stream
from specexit_jax.session import Session, chat_ids, is_thinking, text_of


def request_of(session: Session, problem: Problem, seed: int) -> Request:
    """The request of a problem: its chat prompt with the thinking open."""
    return Request(problem.id, tuple(chat_ids(session, problem.question)), seed)


def trace_of(session: Session, problem: Problem, outcome: Outcome) -> dict:
    """One line of traces.jsonl."""
    text = text_of(session, outcome.ids)
    # where the prompt closed the thinking, everything generated is the answer
    closed = "" if is_thinking(session, outcome.prompt_ids) else "</think>"
    answer = final_answer(closed + text) if outcome.finished else None
    return {
        "id": problem.id,
        "task": problem.task,
        "split": problem.split,
        "prompt": problem.question,
        "reference": problem.answer,
        "prompt_ids": list(outcome.prompt_ids),
        "ids": list(outcome.ids),
        "text": text,
        "think_end": outcome.think_end,
        "answer": answer,
        "correct": check(problem.task, answer, problem.answer),
        "finish": "stop" if outcome.finished else "length",
        "seed": outcome.seed,
        "steps": outcome.steps,
        "accepted": list(outcome.accepted),
        "exit": outcome.exit,
        "trial_tokens": outcome.trial_tokens,
    }


def traces(
    session: Session, problems: Sequence[Problem], method: Method, seed: int, batch_size: int, max_new_tokens: int
) -> Iterator[tuple[dict, Outcome]]:
    """(trace, outcome) of every problem, as batches finish."""
    by_id = {problem.id: problem for problem in problems}
    requests = [request_of(session, problem, seed) for problem in problems]
    for outcome in stream(session, requests, method, batch_size=batch_size, max_new_tokens=max_new_tokens):
        yield trace_of(session, by_id[outcome.id], outcome), outcome


def roll_out(
    session: Session,
    problems: Sequence[Problem],
    method: Method,
    path: Path,
    seed: int,
    batch_size: int,
    max_new_tokens: int,
) -> None:
    """Appends the traces that `path` does not hold yet, a batch at a time.

    Raises ValueError when the file was sampled under another seed.
    """
    drop_torn_line(path)
    held = list(read_jsonl(path)) if path.exists() else []
    if any(trace["seed"] != seed for trace in held):
        raise ValueError(f"{path} holds traces of another seed than {seed}: use another workdir")
    done = {trace["id"] for trace in held}
    missing = [problem for problem in problems if problem.id not in done]
    progress, tokens, finished = Progress(len(missing), f"rollout {path.parent.name} "), 0, []
    for count, (trace, _) in enumerate(
        traces(session, missing, method, seed, batch_size, max_new_tokens) if missing else (), start=1
    ):
        finished.append(trace)
        tokens += len(trace["ids"])
        if len(finished) == batch_size or count == len(missing):
            append_jsonl(path, finished)
            finished = []
            progress.update(count, f"{tokens} tokens")
