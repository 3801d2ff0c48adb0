"""The results of the API: answers, pieces of an answer while it is decoded, and plans of what a request is decoded by."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from specexit_jax.decoding.sampling import Sampling


@dataclasses.dataclass(frozen=True)
class Certificate:
    """The certificate of a policy.json: P(risk <= epsilon) >= 1 - delta over the draw of the calibration split.

    The risk is the share of problems that full thinking gets right and the exit gets wrong. risk_upper: the risk is below it
    with probability 1 - delta. harmed, problems: counts on `split`. tasks: problems of each task on it; scope: what the
    bound holds for, in words. sampling, max_new_tokens: what the policy was certified with. The last four are None in files
    without them.
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

    path: of its policy.json; None for the released rule, which has thresholds of its own. rule: "default" or "released".
    smoothing: how the signals are smoothed before they are compared. boundaries: kinds of token after which an exit is
    allowed. thresholds: by the signal's name. budget: thinking tokens from which on any boundary is an exit; None without
    one. certificate: None if the policy is not certified. uncovered: a sentence if this request differs from what the policy
    was made for, so that its certificate does not hold; None if nothing differs.
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

    token: index into `Answer.ids` of the policy's `</think>`, which is also the number of thinking tokens before it. by: "policy",
    or "budget" where the request's thinking_budget was spent. boundary: number of the boundary in the thinking, counted from 1;
    None for an exit of the budget, which needs none. signals: by name, as the policy read them: confidence and progress are
    shares, remain is in tokens; {} for methods that read none. certificate: of the policy; None if it has none or it does not
    cover this request (`ExitPolicy.uncovered` says why), and for an exit of the budget.
    """

    token: int
    boundary: int | None
    signals: Mapping[str, float]
    certificate: Certificate | None
    by: str = "policy"


@dataclasses.dataclass(frozen=True)
class Usage:
    """Tokens and time of one request.

    thinking_tokens: generated before `</think>`. answer_tokens: all other generated tokens, with `</think>` and the stop
    token. steps: iterations of the loop, one pass of the target each. tokens_per_step: accepted drafts and the bonus token,
    on average (τ); None if no whole step was counted. drafts: tokens drafted in each step, 0 without a draft. seconds: wall
    time from admission to the last token, without compilation. trials, trial_tokens: exits that were tried and taken back,
    and the tokens written in them (`deer` only).
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
class LogProbs:
    """Log-probabilities under the target's softmax at temperature 1, without filters and penalties.

    tokens: float32 [tokens], of the written ones, forced ones included. best: int32 [tokens, N], the ids of the N most likely ones
    in the place of each; best_logs: float32 [tokens, N], theirs.
    """

    tokens: np.ndarray
    best: np.ndarray
    best_logs: np.ndarray


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answered request.

    text: the answer, without the thinking; thinking: the text before `</think>`; both without surrounding white space.
    written: all generated text, with `</think>`. The three are "" for a target without a tokenizer. exit: None if no exit
    was taken. finish_reason: "stop" (the model ended), "length" (max_new_tokens were generated) or "context" (the target's
    context is full). method: its name. policy: the method's exit policy; None if it reads none, and with exits=False.
    id, seed: the request's, which its noise depends on. closed: whether the thinking ended, by the model or the policy. ids:
    the generated tokens. prompt_ids: the tokens before them. signals: by name, float32 [tokens]: the draft's signals at each
    token of `ids`; None unless `generate` recorded them. logprobs: likewise of the tokens and the most likely ones.
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
    logprobs: LogProbs | None = dataclasses.field(default=None, repr=False, compare=False)


@dataclasses.dataclass(frozen=True)
class Piece:
    """What was generated since the piece before.

    text: as the model wrote it; the joined pieces of a request are `Answer.written`. thinking: whether it belongs to the
    thinking, which ends with `</think>`. signals: by name, what the policy read last; {} if it has read none. answer: the
    whole answer, in the last piece only.
    """

    text: str
    thinking: bool
    signals: Mapping[str, float]
    answer: Answer | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a request will be decoded by.

    method: its name; why: how it was chosen, in words. policy: the method's exit policy; None if it reads none, and with
    exits=False. drafts: tokens drafted in each step, 0 without a draft. prompt_ids: as the method decodes them.
    """

    method: str
    why: str
    policy: ExitPolicy | None
    drafts: int
    sampling: Sampling
    max_new_tokens: int
    prompt_ids: tuple[int, ...]
