"""Requests in, outcomes out: through slots that are refilled, or in closed batches of a few padded shapes."""

import dataclasses
import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from specexit_jax.backend import on_mesh
from specexit_jax.decoding.loop.speculative import decode, make_loop
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.decoding.spec import DecodeSpec
from specexit_jax.decoding.state import DecodeResult
from specexit_jax.engine.methods import Method
from specexit_jax.engine.requests import Outcome, Request, outcome_of, prepare, request_keys, spec_for
from specexit_jax.engine.scheduler import serve
from specexit_jax.engine.session import Session, is_thinking
from specexit_jax.engine.slots import Ask, Slots

SHORTEST = 128  # the least padded prompt of a closed batch; longer ones are padded to the next power of two


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Requests of one padded shape, ready for the loop; rows beyond the requests are padding."""

    spec: DecodeSpec
    method: Method
    requests: tuple[Request, ...]
    prompts: np.ndarray  # int32 [B, P]
    prompt_length: np.ndarray  # int32 [B]
    keys: jax.Array  # typed keys [B]
    thinking: np.ndarray  # bool [B]
    max_length: np.ndarray  # int32 [B]


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
    warm: set[int] = set()
    pieces = [[request] for request in requests] if batch_size == 1 else [requests]
    prepare(session, requests, method, settings.get("max_new_tokens"))
    for piece in pieces:
        for batch in plan(session, piece, method, batch_size=batch_size, **settings):
            if batch.prompts.shape[1] not in warm:
                warm_up(session, batch)
                warm.add(batch.prompts.shape[1])
            start = time.perf_counter()
            result = jax.block_until_ready(execute(session, batch))
            taken = time.perf_counter() - start
            clock.seconds += taken
            yield from outcomes(batch, result, taken)


def slots_for(
    session: Session,
    method: Method,
    size: int,
    length: int,
    sampling: Sampling | None = None,
    record_signals: bool = False,
) -> Slots:
    """Free slots for requests of up to `length` tokens, prompt included (cut to the target's context)."""
    spec = spec_for(session, method, sampling or session.sampling, length, record_signals)
    with on_mesh(session.mesh):
        loop = make_loop(spec, session.params, method.policy, method.boundaries)
    return Slots(loop, size, session.mesh)


def ask_of(session: Session, request: Request, max_length: int) -> Ask:
    """What a slot is asked for a request; max_length: tokens in all."""
    (key,) = request_keys([request.id], [request.seed])
    return Ask(request.prompt_ids, key, is_thinking(session, request.prompt_ids), max_length)


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
    wanted = max_new_tokens or session.max_new_tokens
    longest = max(len(request.prompt_ids) for request in requests)
    slots = slots_for(session, method, batch_size, _bucket(longest) + wanted, sampling, record_signals)
    limit, began = slots.loop.spec.buffer_length, time.perf_counter() - slots.compile_seconds
    asks = (
        ((place, request), ask_of(session, request, min(len(request.prompt_ids) + wanted, limit)))
        for place, request in enumerate(requests)
    )
    for (place, request), result, seconds in serve(slots, asks):
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
    wanted = max_new_tokens or session.max_new_tokens
    batches = []
    for width, members in sorted(buckets.items()):
        width = min(width, session.target.max_position)
        spec = spec_for(session, method, sampling or session.sampling, width + wanted, record_signals)
        for start in range(0, len(members), batch_size):
            chunk = tuple(members[start : start + batch_size])
            batches.append(_batch(session, spec, method, chunk, width, wanted, batch_size))
    return batches


def execute(session: Session, batch: Batch, max_length: np.ndarray | None = None) -> DecodeResult:
    """Starts the loop on one batch; the result may still be on its way (jax.block_until_ready)."""
    with on_mesh(session.mesh):
        return decode(
            batch.spec,
            session.params,
            batch.prompts,
            batch.prompt_length,
            batch.keys,
            batch.thinking,
            batch.max_length if max_length is None else max_length,
            batch.method.policy,
            batch.method.boundaries,
        )


def warm_up(session: Session, batch: Batch) -> None:
    """Compiles for this batch's shape: the same call with no token to generate."""
    jax.block_until_ready(execute(session, batch, np.zeros_like(batch.max_length)))


def outcomes(batch: Batch, result: DecodeResult, seconds: float = 0.0) -> list[Outcome]:
    """One outcome for each request of the batch."""
    result = jax.tree.map(np.asarray, result)
    return [
        outcome_of(
            request, batch.method, bool(batch.thinking[row]), result, row, seconds, batch.spec.target.max_position
        )
        for row, request in enumerate(batch.requests)
    ]


def _batch(session, spec: DecodeSpec, method: Method, chunk: tuple[Request, ...], width: int, wanted: int, size: int):
    prompts = np.zeros((size, width), np.int32)
    length, limit = np.ones((size,), np.int32), np.zeros((size,), np.int32)
    thinking = np.zeros((size,), bool)
    for row, request in enumerate(chunk):
        length[row] = len(request.prompt_ids)
        prompts[row, : length[row]] = request.prompt_ids
        limit[row] = min(length[row] + wanted, spec.buffer_length)
        thinking[row] = is_thinking(session, request.prompt_ids)
    padding = size - len(chunk)
    names = [request.id for request in chunk] + [""] * padding
    keys = request_keys(names, [request.seed for request in chunk] + [0] * padding)
    return Batch(spec, method, chunk, prompts, length, keys, thinking, limit)


def _bucket(length: int) -> int:
    return max(SHORTEST, 1 << (length - 1).bit_length())
