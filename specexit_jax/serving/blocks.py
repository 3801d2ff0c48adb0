"""The `specexit` blocks of answers and chunks (docs/serving.md): what is ours in them, as JSON."""

from collections.abc import Sequence
from typing import Any

from specexit_jax.api.answer import Answer, ExitPolicy
from specexit_jax.exits.signals import named
from specexit_jax.serving.engine_loop import Progress
from specexit_jax.serving.offer import Choice, limiting


def beginning(choice: Choice) -> dict[str, Any]:
    """Of the first chunk: by what the answer is decoded."""
    (request,) = choice.job.prepared.requests
    return {
        "method": choice.method,
        "seed": request.seed,
        "id": request.id,
        "thinking": request.thinking,
        "policy": _policy(choice.call.policy),
        "tokens": {"prompt": len(request.prompt_ids)},
    }


def live(choice: Choice, tokens: int, progress: Progress, boundaries: Sequence[int]) -> dict[str, Any]:
    """Of a chunk: the signals as the policy read them last. tokens: generated so far. boundaries: the new ones."""
    (request,) = choice.job.prepared.requests
    return {
        "tokens": tokens,
        "thinking": request.thinking and progress.think_end is None,
        "signals": signals_of(choice, progress.signals),
        "boundaries": list(boundaries),
    }


def signals_of(choice: Choice, values: Sequence[float] | None) -> dict[str, float] | None:
    return named(values, choice.job.prepared.method.policy.signals) or None if choice.call.policy else None


def ending(
    choice: Choice, answer: Answer, progress: Progress, tokens: int, seconds: dict[str, float]
) -> dict[str, Any]:
    """Of a whole answer, and of its last chunk. tokens: generated, as far as they count."""
    usage, left = answer.usage, answer.exit
    thinking = min(usage.thinking_tokens, tokens)
    by_prompt = not choice.job.prepared.requests[0].thinking
    return {
        "method": choice.method,
        "seed": answer.seed,
        "id": answer.id,
        "closed": "prompt" if by_prompt else left.by if left else "model" if answer.closed else None,
        "exit": left
        and {"token": left.token, "boundary": left.boundary, "signals": left.signals if choice.call.policy else {}},
        "signals": signals_of(choice, progress.signals),
        "policy": _policy(choice.call.policy),
        "tokens": {"thinking": thinking, "answer": tokens - thinking, "prompt": usage.prompt_tokens},
        "unstopped": _unstopped(choice, answer),
        "tau": usage.tokens_per_step,
        "steps": usage.steps,
        "drafts": usage.drafts,
        "seconds": seconds,
    }


def _unstopped(choice: Choice, answer: Answer) -> int | None:
    """Tokens that a run without the policy's exit is expected to take: these, divided by the share that exits leave on average."""
    risk = choice.call.risk
    if answer.exit is None or answer.exit.by != "policy" or risk is None or not risk.tokens_ratio:
        return None
    return round(len(answer.ids) / risk.tokens_ratio)


def _policy(policy: ExitPolicy | None) -> dict[str, Any] | None:
    if policy is None:
        return None
    held = policy.certificate
    names = ("epsilon", "delta", "risk_upper", "harmed", "problems", "split", "scope")
    return {name: None if held is None else getattr(held, name) for name in names} | {
        "thresholds": limiting(dict(policy.thresholds)),
        "smoothing": policy.smoothing,
        "boundaries": list(policy.boundaries),
        "budget": policy.budget,
        "covered": held is not None and policy.uncovered is None,
        "uncovered": policy.uncovered,
    }
