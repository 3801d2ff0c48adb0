"""Step 5 of a request's way: its outcome, read from the row that decoded it."""

import dataclasses

import jax
import numpy as np

from specexit_jax.decoding.state import DecodeResult, TokenLogs
from specexit_jax.engine.methods import Method
from specexit_jax.engine.requests import PreparedRequest, PreparedRequests, Request


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One decoded request. Every index is into `ids`, the generated tokens (stop token included); None: there is none.

    finished: whether it ended with a stop token. think_end: index of `</think>`, written by the model or the policy. exit: the
    same index where the policy wrote it. exit_signals: the signals that the policy saw then, in the order of
    `Policy.signals`; None where it reads none. cut: not finished, because the target's context is full. steps: iterations
    of the loop. accepted[n]: verify steps that accepted n drafts. seconds: wall time from its admission to its end (of a
    closed batch: of the whole batch), without compilation. signals: float32 [tokens, S], the draft's signals where they
    were recorded. trials, trial_tokens: exits that were taken back, and the tokens written in them, which are not in `ids`.
    spent: whether the exit was that of the request's thinking budget, not of the policy. logs: log-probabilities of `ids` [tokens],
    and of the most likely tokens there [tokens, N], where they were kept.
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
    spent: bool = False
    logs: TokenLogs | None = None

    @property
    def tau(self) -> float | None:
        """Tokens that a verify step yields on average, bonus token included; None where no whole step was counted."""
        steps = sum(self.accepted)
        return sum((n + 1) * count for n, count in enumerate(self.accepted)) / steps if steps else None


def outcome_of(
    prepared: PreparedRequests, request: PreparedRequest, result: DecodeResult, row: int, seconds: float
) -> Outcome:
    """The outcome of one of the requests, from its row of a result (numpy arrays)."""
    start, stop = int(result.prompt_length[row]), int(result.length[row])
    end, exits = int(result.think_end[row]), int(result.exit_position[row])
    unclosed, reads = stop - start if request.thinking else 0, prepared.method.policy.signals
    return Outcome(
        id=request.id,
        seed=request.seed,
        prompt_ids=request.prompt_ids,
        ids=tuple(result.tokens[row, start:stop].tolist()),
        finished=bool(result.finished[row]),
        cut=not result.finished[row] and stop >= prepared.session.target.max_position,
        think_end=max(end - start, 0) if end >= 0 else None,  # its ids may begin in the prompt
        thinking_tokens=max(end - start, 0) if end >= 0 else unclosed,
        exit=exits - start if exits >= 0 else None,
        exit_signals=tuple(result.exit_signals[row].tolist()) if exits >= 0 and reads else None,
        steps=int(result.steps[row]),
        accepted=tuple(result.accept_histogram[row].tolist()),
        seconds=seconds,
        signals=None if result.signals is None else result.signals[row, start:stop],
        trials=0 if result.trials is None else int(result.trials[row]),
        trial_tokens=0 if result.trial_tokens is None else int(result.trial_tokens[row]),
        spent=result.spent is not None and bool(result.spent[row]),
        logs=result.logs and jax.tree.map(lambda leaf: leaf[row, start:stop], result.logs),
    )


def unanswered(request: Request, method: Method) -> Outcome:
    """The outcome of a request whose prompt fills the target's context: no token, not finished, cut."""
    nowhere = {"think_end": None, "thinking_tokens": 0, "exit": None, "exit_signals": None}
    return Outcome(
        id=request.id,
        seed=request.seed,
        prompt_ids=request.prompt_ids,
        ids=(),
        finished=False,
        cut=True,
        steps=0,
        accepted=(0,) * (method.draft_tokens + 1),
        seconds=0.0,
        **nowhere,
    )
