"""Some traces of a large annotated split, without reading all of them into memory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from specexit_jax.annotation.joined import join_labels
from specexit_jax.annotation.kinds import labels_at, require_kinds
from specexit_jax.engine.session import Session
from specexit_jax.exits.units import problem_of
from specexit_jax.storage.shards import read_shards


def some_traces(
    session: Session, folder: Path, kinds: Sequence[str], boundaries: int, seed: int = 0
) -> tuple[Sequence[dict], Sequence[dict]]:
    """(traces that closed their thinking, the label of each at boundaries of these kinds), of whole problems in random order
    until they have about `boundaries` boundaries; of one problem at least.

    Raises ValueError if a kind was not annotated or a trace has no label, FileNotFoundError if the split was not annotated.
    """
    require_kinds(folder, kinds)
    traces, labels = read_shards(folder, "traces"), read_shards(folder, "labels")
    counts = dict(zip(labels.ids, labels.column("boundaries"), strict=True))
    problems: dict[str, list[str]] = {}  # the closed traces of each
    told = zip(traces.ids, traces.column("problem"), traces.column("think_end"), strict=True)
    for name, problem, think_end in told:
        if name not in counts:
            raise ValueError(f"{folder}: the trace {name} has no label: run launch.annotate to the end")
        if think_end is not None:
            problems.setdefault(problem_of({"id": name, "problem": problem}), []).append(name)
    names, chosen, count = sorted(problems), [], 0
    for number in np.random.default_rng(seed).permutation(len(names)):
        own = problems[names[number]]
        count += sum(counts[name] for name in own)
        if chosen and count > boundaries:
            break
        chosen += own
    kept = traces.brief().of(chosen)
    found = join_labels(kept, labels.brief())
    return kept, labels_at(kept, found, session.boundaries(kinds))
