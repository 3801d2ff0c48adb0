"""Where a policy's exits fall relative to T*, the sufficient boundary of each trace."""

from collections.abc import Iterable, Mapping

from specexit_jax.evaluation.records import Record, one_per_problem
from specexit_jax.evaluation.results import in_order

BINS = ("before T*", "at T*", "+1", "+2", "+3 or more", "no exit", "no T*, exit", "no T*, no exit")


def exit_offsets(
    records: Iterable[Record], labels: Iterable[dict], kind: str = "stable"
) -> dict[str, dict[str, float]]:
    """{method: {bin: share of its traces}} for the methods that exit at all, over the problems that have labels.

    kind: which T*, 'stable' or 'first'. An offset is counted in boundaries. Raises ValueError for an exit that is not
    at a boundary of its label: records and labels are then not of the same traces.
    """
    if kind not in ("stable", "first"):
        raise ValueError(f"T* of kind {kind!r}: choose 'stable' or 'first'")
    there = {label["id"]: label for label in labels}
    records = [r for r in one_per_problem(records) if r.id in there and r.method != "nothink"]
    tables = {}
    for method in in_order({r.method for r in records if r.exited}):
        own = [r for r in records if r.method == method]
        counts = dict.fromkeys(BINS, 0)
        for record in own:
            counts[_bin(record, there[record.id], kind)] += 1
        tables[method] = {name: count / len(own) for name, count in counts.items()}
    return tables


def _bin(record: Record, label: Mapping, kind: str) -> str:
    sufficient = label[kind]
    if record.exit_index is None:
        return "no T*, no exit" if sufficient is None else "no exit"
    if record.exit_index - 1 not in label["boundaries"]:
        raise ValueError(
            f"{record.method} exits {record.id} after token {record.exit_index - 1}, not a boundary of its label: "
            "annotate the same traces with the policy's boundary kinds"
        )
    if sufficient is None:
        return "no T*, exit"
    offset = label["boundaries"].index(record.exit_index - 1) - sufficient
    return BINS[0] if offset < 0 else BINS[1 + min(offset, 3)]
