"""Some traces of a large annotated split, without reading all of them into memory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from specexit_jax.annotation.joined import join_labels
from specexit_jax.annotation.kinds import labels_at, require_kinds
from specexit_jax.data.jsonl_index import JsonlIndex
from specexit_jax.engine.session import Session
from specexit_jax.exits.units import problem_of
from specexit_jax.storage.shards import shard_files


def some_traces(
    session: Session, folder: Path, kinds: Sequence[str], boundaries: int, seed: int = 0
) -> tuple[list[dict], list[dict]]:
    """(traces that closed their thinking, the label of each at boundaries of these kinds), of whole problems in random order
    until they have about `boundaries` boundaries; of one problem at least.

    Raises ValueError if a kind was not annotated or a trace has no label, FileNotFoundError if the split was not annotated.
    """
    require_kinds(folder, kinds)
    traces, labels = (
        JsonlIndex(shard_files(folder, stem) or [folder / f"{stem}.jsonl"]) for stem in ("traces", "labels")
    )
    places: dict[str, tuple[int, int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label["id"], (place, len(label["boundaries"])))
    problems: dict[str, dict[str, int]] = {}  # the place of each closed trace, by its id
    for place, trace in enumerate(traces):
        if trace["id"] not in places:
            raise ValueError(f"{folder}: the trace {trace['id']} has no label: run launch.annotate to the end")
        if trace["think_end"] is not None:
            problems.setdefault(problem_of(trace), {}).setdefault(trace["id"], place)
    names, chosen, count = sorted(problems), [], 0
    for number in np.random.default_rng(seed).permutation(len(names)):
        own = problems[names[number]]
        count += sum(places[name][1] for name in own)
        if chosen and count > boundaries:
            break
        chosen += own.items()
    kept = [traces[place] for _, place in chosen]
    found = join_labels(kept, [labels[places[name][0]] for name, _ in chosen])
    return kept, labels_at(kept, found, session.boundaries(kinds))
