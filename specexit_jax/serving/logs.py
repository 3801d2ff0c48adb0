"""Log-probabilities as OpenAI's objects. They are the target's own: of the softmax at temperature 1, without filters and penalties.

Every generated token has one, thinking and forced tokens included, as usage counts them.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from specexit_jax.decoding.state import TokenLogs
from specexit_jax.engine.session import Session

_LEAST = -9999.0  # for what cannot be: JSON has no infinity


@dataclasses.dataclass(frozen=True)
class Logged:
    """One token. best: the most likely ones in its place, with their log-probabilities."""

    token: int
    log: float
    best: tuple[tuple[int, float], ...]


def logged(ids: Sequence[int], logs: TokenLogs, most: int) -> list[Logged]:
    """Tokens with their log-probabilities (numpy arrays), and those of the `most` most likely ones."""
    chosen, best, best_logs = (np.asarray(part) for part in (logs.chosen, logs.best, logs.best_logs))
    return [
        Logged(token, _finite(chosen[place]), tuple(_pairs(best[place, :most], best_logs[place, :most])))
        for place, token in enumerate(ids)
    ]


def of_chat(session: Session, tokens: Sequence[Logged]) -> dict[str, Any]:
    """As `logprobs` of a chat's choice."""

    def one(token: int, log: float) -> dict[str, Any]:
        said = text(session, token)
        return {"token": said, "logprob": log, "bytes": None if "\ufffd" in said else list(said.encode())}

    content = [
        one(each.token, each.log) | {"top_logprobs": [one(token, log) for token, log in each.best]} for each in tokens
    ]
    return {"content": content, "refusal": None}


def of_text(session: Session, tokens: Sequence[Logged], offset: int) -> dict[str, Any]:
    """As `logprobs` of a raw completion's choice. offset: characters of the tokens before these."""
    said = [text(session, each.token) for each in tokens]
    ends = np.cumsum([offset, *map(len, said)]).tolist()
    return {
        "tokens": said,
        "token_logprobs": [each.log for each in tokens],
        "top_logprobs": [{text(session, token): log for token, log in each.best} for each in tokens],
        "text_offset": ends[:-1],
    }


def text(session: Session, token: int) -> str:
    """What a token is called: its text, or its name where it is special."""
    return session.token_texts[token] or str(
        session.tokenizer.convert_ids_to_tokens(token) if session.tokenizer else token
    )


def _pairs(ids: np.ndarray, logs: np.ndarray) -> Iterator[tuple[int, float]]:
    return zip(ids.tolist(), map(_finite, logs), strict=True)


def _finite(log: float) -> float:
    return max(float(log), _LEAST)
