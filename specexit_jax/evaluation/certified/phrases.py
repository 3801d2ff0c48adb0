"""Harm as text: what a test saw, and a warning if there are few problems."""

from collections.abc import Mapping

import numpy as np

from specexit_jax.evaluation import statistics

FEW = 300  # problems below which a policy chosen by grid gets a warning


def harm_text(row: Mapping) -> str:
    """row: of a certificate or of frontier.json: harmed, problems and, if known, traces, test and risk."""
    harmed, problems, traces = row["harmed"], row["problems"], row.get("traces")
    if row.get("test") == "betting":
        return f"{100 * row['risk']:.2f} % of a problem's traces harmed ({harmed} of {traces} traces of {problems} problems)"
    first = "" if traces in (None, problems) else f" (each by the first of its samples; {traces} traces)"
    return f"{harmed} of {problems} problems harmed{first}"


def little_known(split: str, harm: np.ndarray) -> str:
    """The harm of a policy chosen by grid on its own split, with an interval; harm: [P], of each problem."""
    problems, estimate = len(harm), statistics.share(harm)
    text = (
        f"{split}: a harm of {100 * estimate.value:.2f} % a problem (95 %: {100 * estimate.low:.2f} to {100 * estimate.high:.2f} "
        f"%) on the {problems} problems that the thresholds were chosen on, likely more on others: --epsilon=0.01 certifies a bound"
    )
    if problems < FEW:
        text += f"; warning: {problems} problems say next to nothing about so rare a harm, roll out {FEW} or more"
    return text
