"""The numbers of decoding for every task, beside lm-eval's scores: tokens, exits and latency."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from specexit_jax.engine.outcomes import Outcome
from specexit_jax.evaluation.report.tables import markdown_table, number
from specexit_jax.evaluation.results import histogram, tau


def decoding_numbers(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Keys as in results.json; latency_s_mean is from a request's admission to its end, beside the others of its batch."""
    return {
        "n": len(outcomes),
        "tokens_mean": float(np.mean([len(one.ids) for one in outcomes])),
        "thinking_tokens_mean": float(np.mean([one.thinking_tokens for one in outcomes])),
        "trial_tokens_mean": float(np.mean([one.trial_tokens for one in outcomes])),
        "latency_s_mean": float(np.mean([one.seconds for one in outcomes])),
        "tau_mean": tau(histogram(outcomes)),
        "exit_rate": float(np.mean([one.exit is not None for one in outcomes])),
        "unfinished_rate": float(np.mean([not one.finished for one in outcomes])),
    }


def decoding_table(method: str, tasks: Mapping[str, dict[str, Any]]) -> str:
    """A row a task."""
    header = ["task", "method", "n", "tokens", "thinking", "latency s", "τ", "exits %", "cut off %"]
    rows = [
        [
            task,
            method,
            str(own["n"]),
            number(own["tokens_mean"], 1),
            number(own["thinking_tokens_mean"], 1),
            number(own["latency_s_mean"], 3),
            number(own["tau_mean"], 2),
            number(100 * own["exit_rate"], 0),
            number(100 * own["unfinished_rate"], 0),
        ]
        for task, own in tasks.items()
    ]
    return markdown_table(header, rows)
