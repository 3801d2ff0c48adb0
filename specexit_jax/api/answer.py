"""What the API hands out: answers, pieces of one that is being written, and what a request will be decoded by."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from specexit_jax.decoding.sampling import Sampling


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What a certified policy.json says of its exits: P(risk <= epsilon) >= 1 - delta over the draw of the calibration split.

    The risk is the share of problems that full thinking gets right and the exit gets wrong. risk_upper: the risk is below it
    with probability 1 - delta. harmed, problems: counts on `split`. tasks: problems of each task on it, scope: in words
    what the bound holds for; both None in files that do not say. sampling, max_new_tokens: what the policy was certified with;
    None in files that do not say.
    """

    epsilon: float
    delta: float
    risk_upper: float
    harmed: int
    problems: int
    split: str
    tasks: Mapping[str, int] | None
    scope: str | None
    sampling: Mapping[str, float] | None
    max_new_tokens: int | None


@dataclasses.dataclass(frozen=True)
class ExitPolicy:
    """The rule that may end the thinking.

    path: of its policy.json; None for the released rule, whose thresholds are its own. rule: "default" or "released".
    smoothing: of the signals before they are compared. boundaries: kinds of token at which an exit is allowed. thresholds:
    by the signal's name. budget: thinking tokens from which on any boundary is an exit, None without one. certificate: None
    where the policy is not certified. uncovered: a sentence that says how this request differs from what the policy was made
    for, so that the certificate does not hold for it; None where nothing differs.
    """

    path: str | None
    rule: str
    smoothing: str | None
    boundaries: tuple[str, ...]
    thresholds: Mapping[str, float]
    budget: int | None
    certificate: Certificate | None
    uncovered: str | None


@dataclasses.dataclass(frozen=True)
class Exit:
    """An exit that was taken.

    token: index into `Answer.ids` of the `</think>` that the policy put there, which is the number of thinking tokens before
    it. boundary: at which boundary of the thinking, counted from 1. signals: by name, as the policy saw them: confidence and
    progress are shares, remain is in tokens; {} for methods that read none. certificate: what the exit was certified for;
    None where the policy has no certificate, or one that does not cover this request (`ExitPolicy.uncovered` says why).
    """

    token: int
    boundary: int
    signals: Mapping[str, float]
    certificate: Certificate | None


@dataclasses.dataclass(frozen=True)
class Usage:
    """Tokens and time of one request.

    prompt_tokens, thinking_tokens; answer_tokens: all others that were generated, `</think>` and the stop token among
    them. steps: passes of the target after the prompt's. tokens_per_step: accepted drafts and the bonus token, on average
    (τ); None where no whole step was counted. drafts: tokens drafted a step, 0 without a draft. seconds: wall time from
    admission to the last token, compilation left out. trials, trial_tokens: exits that were tried and taken back, and the
    tokens written in them (of `deer` alone).
    """

    prompt_tokens: int
    thinking_tokens: int
    answer_tokens: int
    steps: int
    tokens_per_step: float | None
    drafts: int
    seconds: float
    trials: int = 0
    trial_tokens: int = 0

    @property
    def generated_tokens(self) -> int:
        return self.thinking_tokens + self.answer_tokens


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answered request.

    text: the answer, without the thinking; thinking: what stands before `</think>`; both without white space around them.
    written: all text as the model wrote it, `</think>` included; the three are "" for a target without a tokenizer. exit:
    None where no exit was taken. finish_reason: "stop" (the model ended), "length" (max_new_tokens were written) or
    "context" (the target's context is full). method: the one that decoded; policy: what it may exit by, None where it reads
    no policy. id, seed: what the request's noise is made of. ids: the generated tokens, prompt_ids: those before them.
    closed: whether the thinking ended, by whomever. signals: where `generate` recorded them, by name, float32 [tokens]: what the
    draft's head said at each token of `ids`; None otherwise.
    """

    text: str
    thinking: str
    exit: Exit | None
    usage: Usage
    finish_reason: str
    method: str
    id: str
    seed: int
    closed: bool
    policy: ExitPolicy | None = dataclasses.field(repr=False)
    written: str = dataclasses.field(repr=False)
    ids: tuple[int, ...] = dataclasses.field(repr=False)
    prompt_ids: tuple[int, ...] = dataclasses.field(repr=False)
    signals: Mapping[str, np.ndarray] | None = dataclasses.field(default=None, repr=False, compare=False)


@dataclasses.dataclass(frozen=True)
class Piece:
    """What was written since the last piece.

    text: as the model wrote it; joined, the pieces of a request are `Answer.written`. thinking: whether it belongs to the
    thinking, which ends with `</think>`. signals: by name, what the policy saw last; {} where it reads none or has seen none.
    answer: the whole, of the last piece alone.
    """

    text: str
    thinking: bool
    signals: Mapping[str, float]
    answer: Answer | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a request will be decoded by. why: how the method was chosen, in words; drafts: tokens drafted a step, 0 without."""

    method: str
    why: str
    policy: ExitPolicy | None
    drafts: int
    sampling: Sampling
    max_new_tokens: int
    prompt_ids: tuple[int, ...]
