"""The progress line of a training step, with the numbers that matter for an EAGLE draft."""

from collections.abc import Mapping

_LENGTH, _AUC = "trace_accept_length", "held_out_confidence_auc"


def step_line(
    metrics: Mapping[str, float],
    rates: Mapping[str, float],
    speed: Mapping[str, float],
    look: tuple[int, Mapping[str, float]] | None = None,
) -> str:
    """The loss, the acceptance rate at each step of the chain, tokens per verify step, learning rates and tokens per
    second, as far as known; and the AUC of confidence at the last evaluation on held-out rows, with its step. metrics:
    of the step; speed: from `Speed.read`; look: (step, metrics `held_out_…`)."""
    parts = [f"loss {metrics['loss']:.4f}"]
    if "accuracy" in metrics:
        parts.append(f"accuracy {metrics['accuracy']:.3f}")
    accepted = [metrics[name] for name in (f"accept_{step}" for step in range(len(metrics))) if name in metrics]
    if accepted:
        parts.append("accept " + " ".join(f"{share:.2f}" for share in accepted))
    if _LENGTH in metrics:
        parts.append(f"{metrics[_LENGTH]:.2f} tokens a step")
    if look is not None and _AUC in look[1]:
        parts.append(f"AUC {look[1][_AUC]:.3f} (held out, step {look[0]})")
    parts += [f"{name.replace('learning_rate', 'lr').replace('_', ' ')} {rate:.2e}" for name, rate in rates.items()]
    if "tokens_per_second" in speed:
        parts.append(f"{speed['tokens_per_second']:,.0f} tokens/s")
    return ", ".join(parts)
