"""Requests in, outcomes out: through slots that are refilled, or in closed batches of a few padded shapes."""

import dataclasses
import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from specexit_jax.backend import on_mesh
from specexit_jax.decoding.loop.speculative import decode, make_loop
from specexit_jax.decoding.rows import PromptRows
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.decoding.spec import DecodeSpec
from specexit_jax.decoding.state import DecodeResult
from specexit_jax.engine.methods import Method
from specexit_jax.engine.requests import (
    Outcome,
    Request,
    new_tokens,
    outcome_of,
    prepare,
    rule_of,
    slot_requests,
    spec_for,
)
from specexit_jax.engine.scheduler import serve
from specexit_jax.engine.session import Session, is_thinking
from specexit_jax.engine.slots import Slots

LEAST_BUFFER = 1024
SHORTEST = 128  # the least padded prompt of a closed batch; longer ones are padded to the next power of two


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Requests of one padded shape, ready for the loop; rows beyond the requests are padding."""

    spec: DecodeSpec
    method: Method
    requests: tuple[Request, ...]
    rows: PromptRows


@dataclasses.dataclass
class Clock:
    """How long decoding has taken so far: wall time in seconds, compilation left out."""

    seconds: float = 0.0


def run(session: Session, requests: Sequence[Request], method: Method, **settings) -> list[Outcome]:
    """Decodes every request; outcomes in the order of the requests. Settings as in `stream`."""
    found = {(outcome.id, outcome.seed): outcome for outcome in stream(session, requests, method, **settings)}
    return [found[request.id, request.seed] for request in requests]


def stream(
    session: Session,
    requests: Sequence[Request],
    method: Method,
    *,
    batch_size: int = 1,
    refill: bool = True,
    in_order: bool = True,
    clock: Clock | None = None,
    **settings,
) -> Iterator[Outcome]:
    """The same, one after the other, each as soon as it and those before it are done.

    refill: several rows are slots that take the next request when theirs is done; else batches are closed, and those of
    prompts of like length come together. in_order: of refilled slots; else each comes as soon as it is done itself, so
    that a long answer holds up none. clock: told the time at every outcome. Further settings: sampling, max_new_tokens,
    record_signals, as in `plan`.
    """
    clock = clock or Clock()
    if refill and batch_size > 1:
        found = _refilled(session, requests, method, batch_size, clock, **settings)
        yield from _in_order(found) if in_order else (outcome for _, outcome in found)
        return
    warm: set[tuple] = set()
    pieces = [[request] for request in requests] if batch_size == 1 else [requests]
    prepare(session, requests, method, settings.get("max_new_tokens"))
    for piece in pieces:
        for batch in plan(session, piece, method, batch_size=batch_size, **settings):
            shape = batch.spec, batch.rows.prompts.shape
            if shape not in warm:
                warm_up(session, batch)
                warm.add(shape)
            start = time.perf_counter()
            result = jax.block_until_ready(execute(session, batch))
            taken = time.perf_counter() - start
            clock.seconds += taken
            yield from outcomes(batch, result, taken)


def slots_for(
    session: Session, method: Method, size: int, length: int, rule: str = "keyed", record_signals: bool = False
) -> Slots:
    """Free slots for requests of up to `length` tokens, prompt included (cut to the target's context)."""
    spec = spec_for(session, method, length, rule, record_signals)
    with on_mesh(session.mesh):
        loop = make_loop(spec, session.params, method.policy, method.boundaries)
    return Slots(loop, size, session.mesh)


def _refilled(
    session: Session,
    requests: Sequence[Request],
    method: Method,
    batch_size: int,
    clock: Clock,
    sampling: Sampling | None = None,
    max_new_tokens: int | None = None,
    record_signals: bool = False,
) -> Iterator[tuple[int, Outcome]]:
    """(place among the requests, outcome), as they are done."""
    requests = prepare(session, requests, method, max_new_tokens)
    if not requests:
        return
    longest = max(len(request.prompt_ids) for request in requests)
    wanted = max(new_tokens(session, request, max_new_tokens) for request in requests)
    rule = rule_of(session, requests, sampling)
    slots = slots_for(session, method, batch_size, buffer_for(longest, wanted), rule, record_signals)
    limit, began = slots.loop.spec.buffer_length, time.perf_counter() - slots.compile_seconds
    asked = zip(enumerate(requests), slot_requests(session, requests, limit, sampling, max_new_tokens), strict=True)
    for (place, request), result, seconds in serve(slots, asked):
        clock.seconds = time.perf_counter() - slots.compile_seconds - began
        thinking = is_thinking(session, request.prompt_ids)
        yield place, outcome_of(request, method, thinking, result, 0, seconds, session.target.max_position)


def _in_order(found: Iterator[tuple[int, Outcome]]) -> Iterator[Outcome]:
    """Outcomes by their places, each as soon as it is its turn."""
    waiting, turn = {}, 0
    for place, outcome in found:
        waiting[place] = outcome
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1


def plan(
    session: Session,
    requests: Sequence[Request],
    method: Method,
    *,
    sampling: Sampling | None = None,
    max_new_tokens: int | None = None,
    batch_size: int = 1,
    record_signals: bool = False,
) -> list[Batch]:
    """The batches of the requests, shortest prompts first; checks every request before any work is done.

    sampling and max_new_tokens (a row) default to the target's own; a row's length gives way to the context's end.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, but it is {batch_size}.")
    buckets: dict[int, list[Request]] = {}
    for request in prepare(session, requests, method, max_new_tokens):
        buckets.setdefault(_bucket(len(request.prompt_ids)), []).append(request)
    rule = rule_of(session, requests, sampling)
    batches = []
    for width, members in sorted(buckets.items()):
        width = min(width, session.target.max_position)
        wanted = max(new_tokens(session, one, max_new_tokens) for one in members)
        spec = spec_for(session, method, buffer_for(width, wanted), rule, record_signals)
        for start in range(0, len(members), batch_size):
            chunk = members[start : start + batch_size]
            asked = slot_requests(session, chunk, spec.buffer_length, sampling, max_new_tokens)
            batches.append(Batch(spec, method, tuple(chunk), PromptRows.of(asked, batch_size, width)))
    return batches


def execute(session: Session, batch: Batch) -> DecodeResult:
    """Starts the loop on one batch; the result may still be on its way (jax.block_until_ready)."""
    with on_mesh(session.mesh):
        return decode(batch.spec, session.params, batch.rows, batch.method.policy, batch.method.boundaries)


def warm_up(session: Session, batch: Batch) -> None:
    """Compiles for this batch's shape: the same call with no token to generate."""
    nothing = batch.rows.replace(max_length=np.zeros_like(batch.rows.max_length))
    jax.block_until_ready(execute(session, dataclasses.replace(batch, rows=nothing)))


def outcomes(batch: Batch, result: DecodeResult, seconds: float = 0.0) -> list[Outcome]:
    """One outcome for each request of the batch."""
    result = jax.tree.map(np.asarray, result)
    return [
        outcome_of(
            request, batch.method, bool(batch.rows.thinking[row]), result, row, seconds, batch.spec.target.max_position
        )
        for row, request in enumerate(batch.requests)
    ]


def _bucket(length: int) -> int:
    return max(SHORTEST, 1 << (length - 1).bit_length())


def buffer_for(prompt: int, new_tokens: int) -> int:
    """The buffer of rows with so long a prompt and answer: rounded up, so that another length is seldom another program."""
    return max(LEAST_BUFFER, 1 << (_bucket(prompt) + new_tokens - 1).bit_length())
