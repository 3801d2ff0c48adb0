"""Requests in, outcomes out: prompts in a few padded shapes through the decoding loop, so that little is compiled."""

import dataclasses
import time
import zlib
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from specexit_jax.decoding.sampling import Sampling
from specexit_jax.decoding.spec import DecodeSpec
from specexit_jax.decoding.speculative import decode
from specexit_jax.decoding.state import DecodeResult
from specexit_jax.methods import Method
from specexit_jax.session import Session, close_thinking, is_thinking

SHORTEST = 128  # the least padded prompt; longer ones are padded to the next power of two


@dataclasses.dataclass(frozen=True)
class Request:
    """One prompt. Its noise depends on (seed, id, position) alone: not on the method, the batch or the padding."""

    id: str
    prompt_ids: tuple[int, ...]
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One decoded request; every index is into `ids`, the generated tokens (stop token included), None = there is none.

    think_end: of `</think>`, whoever wrote it; exit: the same, where the policy forced it; exit_signals: what the
    policy saw then (confidence, progress, remain), where it reads any; accepted[n]: verify steps that accepted n
    drafts; seconds: wall time of the whole batch, compilation left out; signals: float32 [tokens, 3] where recorded;
    trials, trial_tokens: exits taken back, and the tokens answered in them, which `ids` does not hold.
    """

    id: str
    seed: int
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    finished: bool
    think_end: int | None
    thinking_tokens: int
    exit: int | None
    exit_signals: tuple[float, float, float] | None
    steps: int
    accepted: tuple[int, ...]
    seconds: float
    signals: np.ndarray | None = None
    trials: int = 0
    trial_tokens: int = 0

    @property
    def tau(self) -> float | None:
        """Tokens a verify step yields on average, the bonus token counted; None where no whole step was counted."""
        steps = sum(self.accepted)
        return sum((n + 1) * count for n, count in enumerate(self.accepted)) / steps if steps else None


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


def run(session: Session, requests: Sequence[Request], method: Method, **settings) -> list[Outcome]:
    """Decodes every request; outcomes in the order of the requests. Settings as in `plan`."""
    found = {(outcome.id, outcome.seed): outcome for outcome in stream(session, requests, method, **settings)}
    return [found[request.id, request.seed] for request in requests]


def stream(session: Session, requests: Sequence[Request], method: Method, **settings) -> Iterator[Outcome]:
    """The same, each outcome as soon as its batch is done (requests of like length come together)."""
    warm: set[int] = set()
    for batch in plan(session, requests, method, **settings):
        if batch.prompts.shape[1] not in warm:
            warm_up(session, batch)
            warm.add(batch.prompts.shape[1])
        start = time.perf_counter()
        result = jax.block_until_ready(execute(session, batch))
        yield from outcomes(batch, result, time.perf_counter() - start)


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

    sampling and max_new_tokens (a row) default to the target's own; the default length gives way to the context's end.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, but it is {batch_size}.")
    twice = len(requests) - len({(request.id, request.seed) for request in requests})
    if twice:
        raise ValueError(f"{twice} requests share their id and seed with another: ids must be unique.")
    if method.closes_thinking:
        requests = [
            dataclasses.replace(request, prompt_ids=tuple(close_thinking(session, request.prompt_ids)))
            for request in requests
        ]
    buckets: dict[int, list[Request]] = {}
    for request in requests:
        _check(session, request, max_new_tokens)
        buckets.setdefault(_bucket(len(request.prompt_ids)), []).append(request)
    wanted = max_new_tokens or session.max_new_tokens
    batches = []
    for width, members in sorted(buckets.items()):
        width = min(width, session.target.max_position)
        spec = _spec(session, method, sampling or session.sampling, width + wanted, record_signals)
        for start in range(0, len(members), batch_size):
            chunk = tuple(members[start : start + batch_size])
            batches.append(_batch(session, spec, method, chunk, width, wanted, batch_size))
    return batches


def execute(session: Session, batch: Batch, max_length: np.ndarray | None = None) -> DecodeResult:
    """Starts the loop on one batch; the result may still be on its way (jax.block_until_ready)."""
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
    return [_outcome(batch, result, row, seconds) for row in range(len(batch.requests))]


def request_keys(ids: Sequence[str], seeds: Sequence[int]) -> jax.Array:
    """Typed keys [B]: fold_in(key(seed), crc32(id)) of every request."""
    names = np.array([zlib.crc32(name.encode()) for name in ids], np.uint32)
    return _fold(jnp.asarray(np.asarray(seeds, np.uint32)), jnp.asarray(names))


@jax.jit
def _fold(seeds, names):
    return jax.vmap(lambda seed, name: jax.random.fold_in(jax.random.key(seed), name))(seeds, names)


def _check(session: Session, request: Request, max_new_tokens: int | None) -> None:
    length, context = len(request.prompt_ids), session.target.max_position
    if not length:
        raise ValueError(f"The prompt of request {request.id!r} is empty: give at least one token.")
    outside = [token for token in request.prompt_ids if not 0 <= token < session.target.vocab_size]
    if outside:
        raise ValueError(
            f"The prompt of request {request.id!r} holds token {outside[0]}, but the vocabulary has ids from 0 to "
            f"{session.target.vocab_size - 1}."
        )
    if max_new_tokens is not None and max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, but it is {max_new_tokens}.")
    if length + (max_new_tokens or 1) > context:
        raise ValueError(
            f"The prompt of request {request.id!r} has {length} tokens, which with {max_new_tokens or 1} new ones do "
            f"not fit the target's context of {context}: shorten the prompt or lower max_new_tokens."
        )


def _spec(session: Session, method: Method, sampling: Sampling, length: int, record_signals: bool) -> DecodeSpec:
    drafts = method.draft_tokens or method.policy.needs_signals or record_signals
    return DecodeSpec(
        target=session.target,
        draft=session.draft if drafts else None,
        draft_tokens=method.draft_tokens,
        sampling=sampling,
        buffer_length=min(length, session.target.max_position),
        stop_ids=session.stop_ids,
        end_think_ids=session.end_think_ids,
        record_signals=record_signals,
    )


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


def _outcome(batch: Batch, result: DecodeResult, row: int, seconds: float) -> Outcome:
    request = batch.requests[row]
    start, stop = int(result.prompt_length[row]), int(result.length[row])
    end, exits = int(result.think_end[row]), int(result.exit_position[row])
    unclosed, reads = stop - start if batch.thinking[row] else 0, batch.method.policy.needs_signals
    return Outcome(
        id=request.id,
        seed=request.seed,
        prompt_ids=request.prompt_ids,
        ids=tuple(result.tokens[row, start:stop].tolist()),
        finished=bool(result.finished[row]),
        think_end=end - start if end >= 0 else None,
        thinking_tokens=end - start if end >= 0 else unclosed,
        exit=exits - start if exits >= 0 else None,
        exit_signals=tuple(result.exit_signals[row].tolist()) if exits >= 0 and reads else None,
        steps=int(result.steps[row]),
        accepted=tuple(result.accept_histogram[row].tolist()),
        seconds=seconds,
        signals=None if result.signals is None else result.signals[row, start:stop],
        trials=0 if result.trials is None else int(result.trials[row]),
        trial_tokens=0 if result.trial_tokens is None else int(result.trial_tokens[row]),
    )


def _bucket(length: int) -> int:
    return max(SHORTEST, 1 << (length - 1).bit_length())
