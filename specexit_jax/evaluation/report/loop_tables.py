"""Tables of the frontier, of acceptance against position and of a request's seconds by part."""

from collections.abc import Mapping, Sequence

from specexit_jax.evaluation.loop.latency_split import PARTS
from specexit_jax.evaluation.report.tables import MISSING, markdown_table, number
from specexit_jax.evaluation.results import in_order


def frontier_table(rows: Sequence[Mapping[str, float]]) -> str:
    """rows: {epsilon, tokens, tokens_ratio, risk_bound, accuracy}; null where no policy was certified."""
    header = ["ε %", "bound of the risk %", "tokens", "of full thinking %", "accuracy %"]
    keys = ("epsilon", "risk_bound", "tokens", "tokens_ratio", "accuracy")
    shown = [[number(_scaled(row.get(key), key), 2 if key != "tokens" else 1) for key in keys] for row in rows]
    return markdown_table(header, shown)


def position_table(rows: Sequence[Mapping]) -> str:
    """rows: of `acceptance_position.acceptance_by_position`."""
    shown = [
        [
            f"{row['from']} to {row['to'] - 1}",
            f"{row['tokens_per_step']:.2f} ({row['ci95'][0]:.2f} to {row['ci95'][1]:.2f})",
            number(row["steps"], 0),
            number(row["problems"], 0),
        ]
        for row in rows
    ]
    return markdown_table(["tokens of thinking before the step", "tokens a step (95 %)", "steps", "problems"], shown)


def split_table(split: Mapping) -> str:
    """split: of `latency_split.latency_split`; ms a request and the share of the whole."""
    rows = []
    for name in in_order(split["methods"]):
        own = split["methods"][name]
        parts = [f"{1e3 * own[part]:.1f} ({100 * own[part] / own['whole']:.0f} %)" for part in PARTS]
        rows.append(
            [name, *(part.replace("-", "−") for part in parts), f"{1e3 * own['whole']:.1f}", f"{own['steps']:.0f}"]
        )
    table = markdown_table(["ms a request", *PARTS, "whole", "verify steps"], rows)
    return f"{table}\n\n{_reading(split)}"


def _reading(split: Mapping) -> str:
    share = split["exit_share"]
    cost = MISSING
    if share is not None:
        value, low, high = (f"{100 * number:+.1f}".replace("-", "−") for number in (share["value"], *share["ci95"]))
        cost = f"{value} % of an iteration (95 % {low} to {high})"
    steps = "; ".join(
        f"{prefix} positions: verify {cost['verify']:.2f}, draft {cost['draft']:.2f}, whole {cost['whole']:.2f}"
        for prefix, cost in split["step_ms"].items()
    )
    return (
        f"Means over {split['problems']} problems at batch 1, each the median of {split['rounds']} rounds. Prefill is a call that "
        "generates nothing. Verify and draft were timed alone on the device, at each live length of the cache, and counted as "
        f"often as the requests stepped there (ms of an iteration: {steps}). Exit is what reading the signals and deciding add: "
        f"{cost}. Host is what is left of the whole: planning, dispatch, reading the result, and the loop's own bookkeeping; "
        "below zero it is the error of what was timed alone."
    )


def _scaled(value: float | None, key: str) -> float | None:
    return value if value is None or key == "tokens" else 100 * value
