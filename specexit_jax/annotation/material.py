"""What remains of traces to train a draft on after they are cut to rows. Reported, or refused if nothing remains,
before any work."""

import numpy as np

from specexit_jax.annotation.documents import Traces
from specexit_jax.exits.signals import draft_signals

_CHAIN = 2  # generated tokens that the shortest chain needs: its root, and the draft's token after it


def summary(traces: Traces) -> str:
    """A sentence: how many traces and tokens there are, how many are cut, how many to nothing, and which signals lack
    labels.

    Raises ValueError if the rows hold no token that a draft could learn or, for labelled traces, no boundary with a
    label.
    """
    shown = f"{len(traces)} traces, {traces.lengths.sum()} tokens, {traces.cut} cut to a row of {traces.longest}"
    nothing, whole = int(np.sum(traces.lengths - traces.prompts < _CHAIN)), f"train.row_length={traces.whole.max()}"
    if nothing == len(traces):
        raise ValueError(
            f"train.row_length is {traces.longest}: it leaves of all {nothing} traces nothing but prompts (of up to "
            f"{traces.prompts.max()} tokens), and so nothing to train on; for whole traces give {whole}."
        )
    if traces.cut:
        shown += f" (the longest has {traces.whole.max()})"
    if nothing:
        shown += f", {nothing} of them to nothing to train on"
    missing = _unlabelled(traces) if traces.labelled else []
    if len(missing) == len(draft_signals()):
        raise ValueError(
            f"no boundary within train.row_length={traces.longest} has a label, which the signals need: for whole traces give "
            f"{whole}, or train without signals (train.signals=none)."
            if traces.cut
            else f"none of the {len(traces)} traces has a boundary with a label, which the signals need: annotate other kinds "
            "(annotate.kinds), or train without signals (train.signals=none)."
        )
    if missing:
        shown += f"; no boundary has a label of {' or '.join(missing)}, which stays untrained: no trace closes its thinking there"
    return shown


def _unlabelled(traces: Traces) -> list[str]:
    """The signals for which no boundary has a label; stops reading as soon as each has one."""
    names = draft_signals()
    seen = np.zeros(len(names), bool)
    for number in range(len(traces)):
        columns = traces[number]
        seen |= (columns["label_mask"][columns["boundary"]] > 0).any(axis=0)
        if seen.all():
            break
    return [name for name, known in zip(names, seen, strict=True) if not known]
