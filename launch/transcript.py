"""What launch.generate shows of one decoded request."""

import dataclasses
import json

from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.requests import Outcome
from specexit_jax.engine.session import Session, text_of
from specexit_jax.engine.thinking import END_THINK
from specexit_jax.exits.signals import share_text

DIM, BOLD, PLAIN = "\033[2m", "\033[1m", "\033[0m"


def sampling(session: Session, **asked: float | None) -> Sampling:
    """The target's own sampling, save what is asked for by name (None asks for nothing)."""
    return dataclasses.replace(session.sampling, **{name: value for name, value in asked.items() if value is not None})


def as_json(session: Session, outcome: Outcome) -> str:
    """One line; `ids` holds the generated tokens, `position` is an index into them."""
    left = {"position": outcome.exit, "signals": outcome.exit_signals}
    return json.dumps(
        {
            "text": text_of(session, outcome.ids),
            "ids": outcome.ids,
            "thinking_tokens": outcome.thinking_tokens,
            "exit": None if outcome.exit is None else left,
            "tau": outcome.tau,
            "seconds": outcome.seconds,
        }
    )


def text(session: Session, outcome: Outcome, colours: bool) -> str:
    """Thinking (dimmed), the exit, the answer, and a line of numbers."""
    thinking, answer = split(session, outcome)
    parts = [styled(thinking.rstrip("\n"), DIM, colours)] if thinking.strip() else []
    if outcome.exit is not None:
        parts.append(styled(f"── {_moment(outcome)} ──", BOLD, colours))
    elif outcome.think_end is not None:
        parts.append(styled("── the model closed its thinking itself ──", BOLD, colours))
    parts.append(answer.strip("\n"))
    if not outcome.finished:
        where = ", where the context was full" if outcome.cut else ""
        parts.append(styled(f"[cut off after {len(outcome.ids)} tokens{where}]", BOLD, colours))
    return "\n\n".join([part for part in parts if part] + [numbers(outcome)])


def saved(session: Session, outcome: Outcome, longer: Outcome, method: str) -> str:
    """The same request without the exit, side by side; says so where nothing was saved."""
    ours, theirs = len(outcome.ids), len(longer.ids)
    faster = longer.seconds / outcome.seconds
    same = split(session, outcome)[1].strip() == split(session, longer)[1].strip()
    ending = "" if longer.finished else ", where it was cut off"
    verdict = (
        f"the exit saved {theirs - ours} tokens ({1 - ours / theirs:.0%})"
        if ours < theirs
        else "the exit saved no token"
    )
    pace = f"{faster:.1f}× faster" if faster >= 1 else f"{1 / faster:.1f}× slower"
    return (
        f"Without it ({method}, same seed): {theirs} tokens in {longer.seconds:.2f} s{ending}; {verdict}, {pace}; "
        f"{'the answer is the same' if same else 'the answer differs'}."
    )


def split(session: Session, outcome: Outcome) -> tuple[str, str]:
    """The text before and after `</think>`; all of it is thinking where the thinking never closed."""
    if outcome.think_end is None:
        whole = text_of(session, outcome.ids)
        return (whole, "") if outcome.thinking_tokens else ("", whole)
    thought, rest = (
        text_of(session, outcome.ids[: outcome.think_end]),
        text_of(session, outcome.ids[outcome.think_end :]),
    )
    before, _, after = rest.partition(END_THINK)  # its first id may hold what stands before it, its last what follows
    return thought + before, after


def _moment(outcome: Outcome) -> str:
    if outcome.exit_signals is None:
        return f"exit after {outcome.exit} thinking tokens"
    confidence, progress, remain = outcome.exit_signals
    return (
        f"exit after {outcome.exit} thinking tokens: confidence {share_text(confidence)}, progress {share_text(progress)}, "
        f"remain {remain:.0f} tokens"
    )


def numbers(outcome: Outcome) -> str:
    """Tokens, seconds and, where there were drafts, τ."""
    pace = f", τ {outcome.tau:.2f}" if outcome.tau is not None and len(outcome.accepted) > 1 else ""
    tried = f", {outcome.trial_tokens} more in trials that failed: {outcome.trials}" if outcome.trials else ""
    return f"{len(outcome.ids)} tokens ({outcome.thinking_tokens} of thinking{tried}) in {outcome.seconds:.2f} s{pace}"


def styled(words: str, style: str, colours: bool) -> str:
    """The words in a style, where colours are wanted."""
    return f"{style}{words}{PLAIN}" if colours else words
