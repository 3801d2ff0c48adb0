"""Traces joined with their labels, and which of the forced answers are finished."""

import functools
from collections.abc import Collection, Sequence
from itertools import pairwise

from specexit_jax.annotation.sparse import require_whole
from specexit_jax.decoding.verify import exits_below
from specexit_jax.storage.rows import Rows, brief_rows, by_id, ids_in, whole_rows


def thinking_tokens(trace: dict) -> int:
    """Tokens before `</think>`; all tokens if the thinking never closed."""
    return len(trace["ids"]) if trace["think_end"] is None else trace["think_end"]


def leavable_tokens(trace: dict, label: dict, end_length: int = 1) -> int:
    """The number of leading tokens after which an exit is possible: thinking tokens that leave room for the ids of
    `</think>`.

    A label records it as `exits_before`. In older labels without it, a trace that never closed its thinking counts as
    cut off by the buffer.
    """
    thinking = thinking_tokens(trace)
    unclosed = exits_below(thinking, end_length) if trace["think_end"] is None else thinking
    return max(min(label.get("exits_before", unclosed), thinking), 0)


def ended(trace: dict) -> bool:
    """Whether a trace closed its thinking and finished its answer."""
    return trace["think_end"] is not None and trace.get("finish", "stop") == "stop"


def join_labels(traces: Sequence[dict], labels: Sequence[dict], whole: bool = True) -> Sequence[dict]:
    """The label of each trace, in the order of the traces, each with `finished` (see `finished_of`).

    whole: every boundary must have been forced, as where the answer of any exit is asked for. Raises ValueError if they do not
    fit together; where rows are on disk, when the label is read.
    """
    names, there = ids_in(traces), by_id(labels)
    if isinstance(labels, Rows) and labels.joined and labels.ids == names:
        return labels
    absent = [name for name in names if name not in there]
    if absent:
        raise ValueError(f"{len(absent)} traces have no labels (first: {absent[0]}): run launch.annotate to the end")
    full, of = by_id(whole_rows(labels)), by_id(brief_rows(traces))
    stops = functools.cache(lambda: stop_ids_in(whole_rows(traces)))

    def checked(label: dict) -> dict:
        _check_label(of[label["id"]], label)
        if whole:
            require_whole([label])
        if "finished" in label:
            return label
        return label | {"finished": finished_of(full[label["id"]], stops())}

    if isinstance(labels, Rows):
        return labels.of(names).mapped(checked, joined=True)
    return [checked(there[name]) for name in names]


def stop_ids_in(traces: Sequence[dict]) -> set[int]:
    """The stop tokens that ended any of these traces."""
    return {trace["ids"][-1] for trace in traces if trace.get("finish") == "stop" and trace["ids"]}


def finished_of(label: dict, stop_ids: Collection[int] = ()) -> list[bool]:
    """Whether the answer forced at each boundary is finished.

    Labels of earlier versions do not record it. There an answer was graded only if it was finished, and a finished one
    ends with a stop token; an answer with neither counts as cut.
    """
    if "finished" in label:
        return list(label["finished"])
    pairs = zip(label["forced"], label["forced_ids"], strict=True)
    return [answer is not None or (bool(ids) and ids[-1] in stop_ids) for answer, ids in pairs]


def _check_label(trace: dict, label: dict) -> None:
    boundaries = label["boundaries"]
    each = ("forced_ids", "forced", "correct", *(("finished",) if "finished" in label else ()))
    counts = {key: len(label[key]) for key in each}
    if set(counts.values()) != {len(boundaries)}:
        raise ValueError(f"label {trace['id']} has {len(boundaries)} boundaries but {counts}: annotate it again")
    if any(b <= a for a, b in pairwise([-1, *boundaries])) or (boundaries and boundaries[-1] >= thinking_tokens(trace)):
        raise ValueError(f"label {trace['id']}: boundaries must ascend inside the thinking: annotate it again")
