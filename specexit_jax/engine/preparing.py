"""Step 2 of a request's way: what the later steps need is resolved, once for each request."""

import dataclasses
from collections.abc import Sequence

from specexit_jax.engine.checking import check_requests, parted
from specexit_jax.engine.keys import key_words
from specexit_jax.engine.methods import Method
from specexit_jax.engine.outcomes import Outcome, unanswered
from specexit_jax.engine.requests import DecodeSettings, PreparedRequest, PreparedRequests, Request
from specexit_jax.engine.session import Session, close_thinking, is_thinking


def prepare(
    session: Session, requests: Sequence[Request], method: Method, settings: DecodeSettings = DecodeSettings()
) -> PreparedRequests:
    """Checks the requests of one call and prepares them. Raises ValueError, one sentence, on the first that is wrong."""
    return _prepared(session, [_as_decoded(session, request, method) for request in requests], method, settings)


def prepare_fitting(
    session: Session, requests: Sequence[Request], method: Method, settings: DecodeSettings = DecodeSettings()
) -> tuple[PreparedRequests, list[Outcome]]:
    """As `prepare`, but prompts that fill the target's context are no error. Each is left out, and gets an outcome without a
    token."""
    fitting, full = parted(session, [_as_decoded(session, request, method) for request in requests])
    return _prepared(session, fitting, method, settings), [unanswered(request, method) for request in full]


def _as_decoded(session: Session, request: Request, method: Method) -> Request:
    """The request with the prompt that the method decodes."""
    if not method.closes_thinking:
        return request
    return dataclasses.replace(request, prompt_ids=tuple(close_thinking(session, request.prompt_ids)))


def _prepared(
    session: Session, requests: Sequence[Request], method: Method, settings: DecodeSettings
) -> PreparedRequests:
    check_requests(session, requests, settings.max_new_tokens)
    keys = key_words([request.id for request in requests], [request.seed for request in requests])
    prepared = [
        PreparedRequest(
            id=request.id,
            seed=request.seed,
            prompt_ids=request.prompt_ids,
            thinking=is_thinking(session, request.prompt_ids),
            key=key,
            sampling=request.sampling or settings.sampling or session.sampling,
            max_new_tokens=request.max_new_tokens or settings.max_new_tokens or session.max_new_tokens,
            may_exit=settings.may_exit,
            thinking_budget=settings.thinking_budget,
        )
        for request, key in zip(requests, keys, strict=True)
    ]
    return PreparedRequests(session, method, tuple(prepared), settings.record_signals, settings.logprobs)
