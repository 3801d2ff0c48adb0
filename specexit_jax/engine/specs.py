"""What the loop is compiled for: buffer length, acceptance rule, drafts. Requests that agree in it share a program."""

from collections.abc import Iterable

import numpy as np

from specexit_jax.decoding.sampling import Sampling
from specexit_jax.decoding.spec import DecodeSpec
from specexit_jax.engine.methods import Method
from specexit_jax.engine.requests import PreparedRequests
from specexit_jax.engine.session import Session
from specexit_jax.exits.policy import Policy

LEAST_BUFFER = 1024
SHORTEST = 128  # the least padded prompt of a closed batch


def spec_for(
    session: Session,
    method: Method,
    length: int,
    rule: str = "keyed",
    record_signals: bool = False,
    own_rules: bool = False,
    logprobs: int = 0,
) -> DecodeSpec:
    """For rows of up to `length` tokens, prompt included; cut to the target's context. own_rules: see `DecodeSpec`."""
    drafts = method.draft_tokens or method.policy.reads or record_signals
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
        own_rules=own_rules,
        logprobs=logprobs,
    )


def spec_of(prepared: PreparedRequests, rule: str | None = None) -> DecodeSpec:
    """For rows that can hold every one of the requests. rule: how drafts are accepted; None: as the requests ask."""
    requests = prepared.requests
    length = buffer_for(
        max(len(request.prompt_ids) for request in requests), max(request.max_new_tokens for request in requests)
    )
    rule = rule or rule_of(request.sampling for request in requests)
    own = any(request.thinking_budget is not None for request in requests)
    return spec_for(prepared.session, prepared.method, length, rule, prepared.record_signals, own, prepared.logprobs)


def limits_of(spec: DecodeSpec, policy: Policy) -> np.ndarray | None:
    """The policy's thresholds as `PromptRows.of` takes them: None where rows have no rules of their own."""
    return np.asarray(policy.limits, np.float32) if spec.own_rules else None


def rule_of(samplings: Iterable[Sampling]) -> str:
    """The rule by which drafts are accepted. Greedy requests, which decode alike under either rule, take that of the others.

    Raises ValueError where sampled requests ask for two rules.
    """
    rules = sorted({one.rule for one in samplings if not one.greedy})
    if len(rules) > 1:
        raise ValueError(f"Requests of one call accept drafts by one rule, but these ask for {' and '.join(rules)}.")
    return rules[0] if rules else "keyed"


def padded(length: int) -> int:
    """The padded length of a prompt: the next power of two, and at least SHORTEST."""
    return max(SHORTEST, 1 << (length - 1).bit_length())


def buffer_for(prompt: int, new_tokens: int) -> int:
    """The buffer length of a row with a prompt and an answer of so many tokens.

    It is a power of two, so that most requests share a program.
    """
    return max(LEAST_BUFFER, 1 << (padded(prompt) + new_tokens - 1).bit_length())
