"""Converts the engine's outcomes and pieces to those of the API."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from specexit_jax.api.answer import Answer, Certificate, Exit, ExitPolicy, LogProbs, Piece, Usage
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine import streaming
from specexit_jax.engine.binding import uncovered
from specexit_jax.engine.methods import Method
from specexit_jax.engine.outcomes import Outcome
from specexit_jax.engine.session import Session, text_of
from specexit_jax.engine.thinking import END_THINK
from specexit_jax.exits.boundaries import boundary_positions
from specexit_jax.exits.policy import POLICIES
from specexit_jax.exits.policy_file import PolicyFile
from specexit_jax.exits.score import recorded
from specexit_jax.exits.signals import named


def answer_of(session: Session, outcome: Outcome, method: Method, policy: ExitPolicy | None) -> Answer:
    """The answer of an outcome. method, policy: what it was decoded by."""
    thinking, text = thinking_and_answer(session, outcome)
    return Answer(
        text=text.strip(),
        thinking=thinking.strip(),
        exit=_exit_of(outcome, method, policy),
        usage=_usage_of(outcome),
        finish_reason="stop" if outcome.finished else "context" if outcome.cut else "length",
        method=method.name,
        policy=policy,
        id=outcome.id,
        seed=outcome.seed,
        written=text_of(session, outcome.ids),
        ids=outcome.ids,
        prompt_ids=outcome.prompt_ids,
        closed=outcome.think_end is not None,
        signals=_signals_of(session, outcome, method),
        logprobs=outcome.logs and LogProbs(*map(np.asarray, jax.tree.leaves(outcome.logs))),
    )


def _signals_of(session: Session, outcome: Outcome, method: Method) -> dict[str, np.ndarray] | None:
    if outcome.signals is None:
        return None
    names = recorded(session.draft.signal_names, method.policy.signals)
    return dict(zip(names, np.asarray(outcome.signals).T, strict=True))


def pieces_of(
    session: Session, pieces: Iterator[streaming.Piece], thinking: bool, method: Method, policy: ExitPolicy | None
) -> Iterator[Piece]:
    """The engine's pieces as the API's. The piece in which the thinking ends is cut in two after `</think>`.

    thinking: whether the prompt leaves the thinking open.
    """
    before = ""
    for piece in pieces:
        answer = None if piece.outcome is None else answer_of(session, piece.outcome, method, policy)
        signals, text, before = named(piece.signals, method.policy.signals), piece.text, before + piece.text
        # The engine reports an exit before `</think>` is in the text.
        if thinking and not piece.thinking and END_THINK in before:
            thinking = False
            if thought := text[: before.index(END_THINK) + len(END_THINK) - len(before) + len(text)]:
                yield Piece(thought, True, signals)
                text = text[len(thought) :]
        if text or answer:
            yield Piece(text, thinking, signals, answer)


def policy_of(
    file: PolicyFile | None,
    session: Session,
    path: Path | None,
    sampling: Sampling,
    max_new_tokens: int,
    smoothing: str,
    rule: str | None,
) -> ExitPolicy:
    """A policy.json, and whether it covers a call. file: None for a rule that reads no file."""
    if file is None:
        return ExitPolicy(None, rule, smoothing, POLICIES[rule].own_kinds, {}, None, None, None)
    return ExitPolicy(
        path=str(path),
        rule=file.rule,
        smoothing=file.smoothing,
        boundaries=tuple(file.boundary_kinds),
        thresholds=named(file.thresholds, file.signals),
        budget=file.budget,
        certificate=_certificate_of(file),
        uncovered=uncovered(file, session, path, sampling, max_new_tokens),
    )


def thinking_and_answer(session: Session, outcome: Outcome) -> tuple[str, str]:
    """The text before and after `</think>`. All of it is thinking if the thinking never closed."""
    if outcome.think_end is None:
        whole = text_of(session, outcome.ids)
        return (whole, "") if outcome.thinking_tokens else ("", whole)
    thought = text_of(session, outcome.ids[: outcome.think_end])
    rest = text_of(session, outcome.ids[outcome.think_end :])
    # The first id of `</think>` may begin with text before it, and the last may end with text after it.
    before, _, after = rest.partition(END_THINK)
    return thought + before, after


def _exit_of(outcome: Outcome, method: Method, policy: ExitPolicy | None) -> Exit | None:
    if outcome.exit is None:
        return None
    covered = policy is not None and policy.uncovered is None and not outcome.spent
    return Exit(
        outcome.exit,
        _boundary_of(outcome, method),
        named(outcome.exit_signals, method.policy.signals),
        policy.certificate if covered else None,
        by="budget" if outcome.spent else "policy",
    )


def _boundary_of(outcome: Outcome, method: Method) -> int | None:
    if outcome.spent:
        return None
    # The token before the exit is a boundary, whatever the model would have written after it: it is counted apart.
    return len(boundary_positions(method.boundaries, outcome.ids, outcome.exit - 1)) + 1


def _usage_of(outcome: Outcome) -> Usage:
    return Usage(
        prompt_tokens=len(outcome.prompt_ids),
        thinking_tokens=outcome.thinking_tokens,
        answer_tokens=len(outcome.ids) - outcome.thinking_tokens,
        steps=outcome.steps,
        tokens_per_step=outcome.tau,
        drafts=len(outcome.accepted) - 1,
        seconds=outcome.seconds,
        trials=outcome.trials,
        trial_tokens=outcome.trial_tokens,
    )


def _certificate_of(file: PolicyFile) -> Certificate | None:
    found, made = file.certificate, file.made_for
    if found is None:
        return None
    return Certificate(
        epsilon=found.epsilon,
        delta=found.delta,
        risk_upper=found.risk_upper,
        harmed=found.harmed,
        problems=found.problems,
        split=found.split,
        tasks=found.tasks,
        scope=found.scope,
        sampling=None if made is None else dataclasses.asdict(made.sampling),
        max_new_tokens=None if made is None else made.max_new_tokens,
    )
