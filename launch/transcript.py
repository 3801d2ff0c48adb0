"""What launch.generate shows of one answer."""

import dataclasses
import json

from specexit_jax.api.answer import Answer
from specexit_jax.exits.signals import SIGNALS

DIM, BOLD, PLAIN = "\033[2m", "\033[1m", "\033[0m"
KEYS = (
    "text", "ids", "thinking_tokens", "exit", "tau", "seconds",
    "id", "answer", "thinking", "finish_reason", "method", "policy", "usage",
)  # fmt: skip


def as_json(answer: Answer) -> str:
    """One line with KEYS; `ids` holds the generated tokens, `exit.position` is an index into them, `text` is all that was
    written. The signals at the exit stand there by name, and as the list `signals` in the order of the names."""
    left, usage = answer.exit, answer.usage
    values = (
        answer.written,
        answer.ids,
        usage.thinking_tokens,
        left
        and {
            "position": left.token,
            "boundary": left.boundary,
            **left.signals,
            "signals": [*left.signals.values()] or None,
        },
        usage.tokens_per_step,
        usage.seconds,
        answer.id,
        answer.text,
        answer.thinking,
        answer.finish_reason,
        answer.method,
        answer.policy and dataclasses.asdict(answer.policy),
        dataclasses.asdict(usage),
    )
    return json.dumps(dict(zip(KEYS, values, strict=True)))


def text(answer: Answer, colours: bool) -> str:
    """Thinking (dimmed), the exit, the answer, and a line of numbers."""
    parts = [styled(answer.thinking, DIM, colours)] if answer.thinking else []
    if answer.exit is not None:
        parts.append(styled(f"── {_moment(answer)} ──", BOLD, colours))
    elif answer.closed:
        parts.append(styled("── the model closed its thinking itself ──", BOLD, colours))
    parts.append(answer.text)
    if answer.finish_reason != "stop":
        where = ", where the context was full" if answer.finish_reason == "context" else ""
        parts.append(styled(f"[cut off after {len(answer.ids)} tokens{where}]", BOLD, colours))
    return "\n\n".join([part for part in parts if part] + [numbers(answer)])


def saved(answer: Answer, longer: Answer) -> str:
    """The same request without the exit, side by side; says so where nothing was saved."""
    ours, theirs = len(answer.ids), len(longer.ids)
    faster = longer.usage.seconds / answer.usage.seconds
    ending = "" if longer.finish_reason == "stop" else ", where it was cut off"
    verdict = (
        f"the exit saved {theirs - ours} tokens ({1 - ours / theirs:.0%})"
        if ours < theirs
        else "the exit saved no token"
    )
    pace = f"{faster:.1f}× faster" if faster >= 1 else f"{1 / faster:.1f}× slower"
    return (
        f"Without it (same program, same seed): {theirs} tokens in {longer.usage.seconds:.2f} s{ending}; {verdict}, {pace}; "
        f"{'the answer is the same' if answer.text == longer.text else 'the answer differs'}."
    )


def _moment(answer: Answer) -> str:
    told = ", ".join(
        f"{name} {SIGNALS[name].scale.text_with_unit(value)}" for name, value in answer.exit.signals.items()
    )
    return f"exit after {answer.exit.token} thinking tokens{': ' if told else ''}{told}"


def numbers(answer: Answer) -> str:
    """Tokens, seconds and, where there were drafts, τ."""
    usage = answer.usage
    pace = f", τ {usage.tokens_per_step:.2f}" if usage.tokens_per_step is not None and usage.drafts else ""
    tried = f", {usage.trial_tokens} more in trials that failed: {usage.trials}" if usage.trials else ""
    return f"{len(answer.ids)} tokens ({usage.thinking_tokens} of thinking{tried}) in {usage.seconds:.2f} s{pace}"


def styled(words: str, style: str, colours: bool) -> str:
    """The words in a style, where colours are wanted."""
    return f"{style}{words}{PLAIN}" if colours else words
