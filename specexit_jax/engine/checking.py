"""Step 1 of a request's way: the checks. They are of the prompt that the method decodes (`nothink` closes the thinking)."""

import collections
from collections.abc import Sequence

from specexit_jax.engine.requests import Request
from specexit_jax.engine.session import Session
from specexit_jax.notes import note


def check_requests(session: Session, requests: Sequence[Request], max_new_tokens: int | None = None) -> None:
    """Checks all requests of one call. Raises ValueError, one sentence, as `check` and where two share their id and seed."""
    names = collections.Counter((request.id, request.seed) for request in requests)
    twice = next((name for name, number in names.items() if number > 1), None)
    if twice is not None:
        raise ValueError(
            f"{names[twice]} requests have the id {twice[0]!r} and the seed {twice[1]}: a request's noise depends on them, so they "
            "must differ."
        )
    for request in requests:
        check(session, request, max_new_tokens)


def check(session: Session, request: Request, max_new_tokens: int | None = None) -> None:
    """Raises ValueError on a request that the session cannot decode. max_new_tokens: the call's.

    A prompt needs room for one more token in the target's context. Tokens beyond the context are not an error: they are cut
    (`Outcome.cut`).
    """
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


def parted(session: Session, requests: Sequence[Request]) -> tuple[list[Request], list[Request]]:
    """The requests whose prompt leaves room in the target's context, and those whose prompt fills it.

    Reports the number of the latter in one line on standard error, with the first of them.
    """
    context = session.target.max_position
    fitting = [request for request in requests if len(request.prompt_ids) < context]
    full = [request for request in requests if len(request.prompt_ids) >= context]
    if full:
        note(
            f"{len(full)} of {len(requests)} prompts fill the target's context of {context} tokens (the first: "
            f"{full[0].id!r}, {len(full[0].prompt_ids)} tokens): they count as unanswered."
        )
    return fitting, full
