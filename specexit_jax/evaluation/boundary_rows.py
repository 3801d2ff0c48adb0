"""What bounds need of annotated traces, row by row: small arrays instead of rows."""

import sys
from collections.abc import Mapping, Sequence

import numpy as np

from specexit_jax.exits.units import problem_of


def told_of(trace: dict) -> dict:
    """What bounds need of a trace."""
    end = trace["think_end"]
    return {name: trace[name] for name in ("id", "task", "split", "correct", "answer", "finish")} | {
        "problem": problem_of(trace),
        "seed": trace.get("seed", 0),
        "tokens": len(trace["ids"]),
        "thinking": len(trace["ids"]) if end is None else end,
        "closed": end is not None,
    }


def row_of(label: dict, last: int, end_think_length: int) -> dict:
    """What bounds need of a label, as small arrays; equal answers are one string."""
    places = np.asarray(label["boundaries"], np.int32)
    lengths = np.asarray([len(forced) for forced in label["forced_ids"]], np.int32)
    return {name: np.asarray(label[name], bool) for name in ("agree", "correct", "finished")} | {
        "index": places,
        "tokens": places + 1 + end_think_length + lengths,
        "answers": [answer if answer is None else sys.intern(answer) for answer in label["forced"]],
        "first": label["first"],
        "last": last,
    }


def flat(rows: Sequence[dict], key: str, dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *(row[key] for row in rows)]).astype(dtype)


def joined(traces: Sequence[dict], counts: np.ndarray, table: Mapping[str, np.ndarray] | None, name: str) -> np.ndarray:
    if table is None:
        return np.zeros((int(counts.sum()), 0), np.float32)
    rows = [np.asarray(table[trace["id"]], np.float32) for trace in traces if trace["id"] in table]
    if len(rows) != len(traces) or any(len(row) != count for row, count in zip(rows, counts, strict=True)):
        raise ValueError(f"the {name} do not match the labels' boundaries; extract them again from the same traces")
    return np.concatenate([row for row in rows if len(row)] or [np.zeros((0, 0), np.float32)])
