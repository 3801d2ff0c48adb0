"""A request and its outcome, and what the loop needs to know of either."""

import dataclasses
import hashlib
import operator
from collections.abc import Sequence

import jax
import numpy as np

from specexit_jax.decoding.rows import SlotRequest
from specexit_jax.decoding.sampling import PRNG, Sampling
from specexit_jax.decoding.spec import DecodeSpec
from specexit_jax.decoding.state import DecodeResult
from specexit_jax.engine.methods import Method
from specexit_jax.engine.session import Session, close_thinking, is_thinking
from specexit_jax.notes import note

NOISE = "blake2b-64"  # how keys are made, as reports of sampled rows record it; "crc32" before that was recorded


@dataclasses.dataclass(frozen=True)
class Request:
    """One prompt. Its noise depends on (seed, id, position) alone: not on the method, the batch or the padding.

    sampling, max_new_tokens: its own; None: those of the call that decodes it, or else the target's.
    """

    id: str
    prompt_ids: tuple[int, ...]
    seed: int = 0
    sampling: Sampling | None = None
    max_new_tokens: int | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One decoded request; every index is into `ids`, the generated tokens (stop token included), None = there is none.

    think_end: of `</think>`, whoever wrote it; exit: the same, where the policy forced it; exit_signals: what the policy saw
    then, in the order of `Policy.signals`, where it reads any; cut: not finished, since the target's context was full;
    accepted[n]: verify steps that accepted n drafts; seconds: wall time from its admission (of a closed batch: of the whole),
    compilation left out; signals: float32 [tokens, S] of the draft's signals where recorded; trials, trial_tokens: exits
    taken back, and the tokens answered in them, which `ids` does not hold.
    """

    id: str
    seed: int
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    finished: bool
    think_end: int | None
    thinking_tokens: int
    exit: int | None
    exit_signals: tuple[float, ...] | None
    steps: int
    accepted: tuple[int, ...]
    seconds: float
    signals: np.ndarray | None = None
    trials: int = 0
    trial_tokens: int = 0
    cut: bool = False

    @property
    def tau(self) -> float | None:
        """Tokens a verify step yields on average, the bonus token counted; None where no whole step was counted."""
        steps = sum(self.accepted)
        return sum((n + 1) * count for n, count in enumerate(self.accepted)) / steps if steps else None


def prepare(
    session: Session, requests: Sequence[Request], method: Method, max_new_tokens: int | None = None
) -> list[Request]:
    """The requests as the method decodes them, checked before any work is done. Raises ValueError, one sentence."""
    twice = len(requests) - len({(request.id, request.seed) for request in requests})
    if twice:
        raise ValueError(f"{twice} requests share their id and seed with another: ids must be unique.")
    requests = [as_decoded(session, request, method) for request in requests]
    for request in requests:
        check(session, request, max_new_tokens)
    return requests


def as_decoded(session: Session, request: Request, method: Method) -> Request:
    """The request with the prompt that the method decodes."""
    if not method.closes_thinking:
        return request
    return dataclasses.replace(request, prompt_ids=tuple(close_thinking(session, request.prompt_ids)))


def parted(session: Session, requests: Sequence[Request], method: Method) -> tuple[list[Request], list[Outcome]]:
    """The requests that can be decoded, and an outcome without a token of each whose prompt fills the target's context: for
    whoever has many, and would rather count such a one as unanswered than do without the others. Names the first of them."""
    context, fitting, left = session.target.max_position, [], []
    for request in requests:
        prompt = as_decoded(session, request, method).prompt_ids
        if len(prompt) < context:
            fitting.append(request)
        else:
            left.append(_unanswered(request, prompt, method))
    if left:
        note(
            f"{len(left)} of {len(requests)} prompts fill the target's context of {context} tokens (the first: "
            f"{left[0].id!r}, {len(left[0].prompt_ids)} tokens): they count as unanswered."
        )
    return fitting, left


def check(session: Session, request: Request, max_new_tokens: int | None) -> None:
    """Raises ValueError on a prompt that the session cannot decode: one with room for no token at all, among others. What does
    not fit of max_new_tokens is cut (`Outcome.cut`)."""
    length, context = len(request.prompt_ids), session.target.max_position
    if not length:
        raise ValueError(f"The prompt of request {request.id!r} is empty: give at least one token.")
    outside = [token for token in request.prompt_ids if not 0 <= token < session.target.vocab_size]
    if outside:
        raise ValueError(
            f"The prompt of request {request.id!r} holds token {outside[0]}, but the vocabulary has ids from 0 to "
            f"{session.target.vocab_size - 1}."
        )
    for asked in (request.max_new_tokens, max_new_tokens):
        if asked is not None and asked < 1:
            raise ValueError(f"max_new_tokens must be at least 1, but it is {asked}.")
    if length >= context:
        raise ValueError(
            f"The prompt of request {request.id!r} has {length} tokens, which leave no room in the target's context of "
            f"{context}: shorten it."
        )


def spec_for(
    session: Session, method: Method, length: int, rule: str = "keyed", record_signals: bool = False
) -> DecodeSpec:
    """What the loop is compiled for, where rows may have `length` tokens, prompt included (cut to the target's context)."""
    drafts = method.draft_tokens or method.policy.signals or record_signals
    return DecodeSpec(
        target=session.target,
        draft=session.draft if drafts else None,
        draft_tokens=method.draft_tokens,
        rule=rule,
        buffer_length=min(length, session.target.max_position),
        stop_ids=session.stop_ids,
        end_think_ids=session.end_think_ids,
        record_signals=record_signals,
        tree=method.tree,
    )


def slot_requests(
    session: Session,
    requests: Sequence[Request],
    limit: int,
    sampling: Sampling | None = None,
    max_new_tokens: int | None = None,
) -> list[SlotRequest]:
    """What the loop is asked for each of the requests, in at most `limit` tokens, prompt included."""
    keys = key_words([request.id for request in requests], [request.seed for request in requests])
    return [
        SlotRequest(
            prompt=request.prompt_ids,
            key=key,
            thinking=is_thinking(session, request.prompt_ids),
            max_length=min(len(request.prompt_ids) + new_tokens(session, request, max_new_tokens), limit),
            sampling=request.sampling or sampling or session.sampling,
        )
        for request, key in zip(requests, keys, strict=True)
    ]


def new_tokens(session: Session, request: Request, max_new_tokens: int | None = None) -> int:
    """The most tokens that a request may generate: its own limit, else the call's, else the target's."""
    return request.max_new_tokens or max_new_tokens or session.max_new_tokens


def rule_of(session: Session, requests: Sequence[Request], sampling: Sampling | None = None) -> str:
    """The rule by which the drafts of all requests are accepted: greedy ones, of which both rules make the same, follow the
    others. Raises ValueError where two rules are asked for."""
    asked = {request.sampling or sampling or session.sampling for request in requests}
    rules = sorted({one.rule for one in asked if not one.greedy})
    if len(rules) > 1:
        raise ValueError(f"Requests of one call accept drafts by one rule, but these ask for {' and '.join(rules)}.")
    return rules[0] if rules else "keyed"


def noise_of(sampling: Sampling) -> dict[str, str]:
    """What a report records of the noise that its rows were sampled with: rows of two kinds are not mixed."""
    return {} if sampling.greedy else {"noise": NOISE}


def request_keys(ids: Sequence[str], seeds: Sequence[int]) -> jax.Array:
    """Typed keys [B] of `key_words`."""
    return jax.random.wrap_key_data(key_words(ids, seeds), impl=PRNG)


def key_words(ids: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
    """The words uint32 [B, 2] of the requests' keys: 64 bits of (seed, id), by BLAKE2b; a seed is any integer.

    32 bits would not do: of 200,000 ids about five pairs would share all their noise.
    """
    digests = [hashlib.blake2b(_named(*pair), digest_size=8).digest() for pair in zip(ids, seeds, strict=True)]
    return np.frombuffer(b"".join(digests), "<u4").astype(np.uint32).reshape(-1, 2)


def _named(name: str, seed: int) -> bytes:
    try:
        return f"{operator.index(seed)}/{name}".encode(errors="surrogatepass")
    except TypeError as error:
        raise ValueError(f"The seed of request {name!r} must be an integer, but it is {seed!r}.") from error


def _unanswered(request: Request, prompt: Sequence[int], method: Method) -> Outcome:
    empty = {"steps": 0, "accepted": (0,) * (method.draft_tokens + 1), "seconds": 0.0, "cut": True, "finished": False}
    nowhere = {"think_end": None, "thinking_tokens": 0, "exit": None, "exit_signals": None}
    return Outcome(request.id, request.seed, tuple(prompt), (), **empty, **nowhere)


def outcome_of(
    request: Request, method: Method, thinking: bool, result: DecodeResult, row: int, seconds: float, context: int
) -> Outcome:
    """What one row of a result (numpy arrays) says of its request; thinking: whether its prompt left `<think>` open; context:
    the target's."""
    start, stop = int(result.prompt_length[row]), int(result.length[row])
    end, exits = int(result.think_end[row]), int(result.exit_position[row])
    unclosed, reads = stop - start if thinking else 0, method.policy.signals
    return Outcome(
        id=request.id,
        seed=request.seed,
        prompt_ids=request.prompt_ids,
        ids=tuple(result.tokens[row, start:stop].tolist()),
        finished=bool(result.finished[row]),
        cut=not result.finished[row] and stop >= context,
        think_end=max(end - start, 0) if end >= 0 else None,  # what the prompt ends in may begin it
        thinking_tokens=max(end - start, 0) if end >= 0 else unclosed,
        exit=exits - start if exits >= 0 else None,
        exit_signals=tuple(result.exit_signals[row].tolist()) if exits >= 0 and reads else None,
        steps=int(result.steps[row]),
        accepted=tuple(result.accept_histogram[row].tolist()),
        seconds=seconds,
        signals=None if result.signals is None else result.signals[row, start:stop],
        trials=0 if result.trials is None else int(result.trials[row]),
        trial_tokens=0 if result.trial_tokens is None else int(result.trial_tokens[row]),
    )
