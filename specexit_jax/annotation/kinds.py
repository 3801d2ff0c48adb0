"""Selection of some kinds of boundaries from labels that were annotated at more kinds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from specexit_jax.annotation.joined import join_labels, thinking_tokens
from specexit_jax.annotation.schedule import ALL
from specexit_jax.annotation.sparse import filled, require_whole
from specexit_jax.engine.session import Session
from specexit_jax.exits.boundaries import Boundaries, boundary_positions
from specexit_jax.exits.labels import sufficient_boundary
from specexit_jax.storage.rows import Rows, by_id, whole_rows
from specexit_jax.storage.shards import read_shards, settings_of, shard_files

_EACH = ("boundaries", "forced_ids", "forced", "finished", "agree", "correct", "logprob", "agree_share", "known")
# Every boundary of the first kind is also one of the others.
_WITHIN = {"released": ("paragraph", "sentence"), "paragraph": ("sentence",)}


def labels_at(traces: Sequence[dict], labels: Sequence[dict], boundaries: Boundaries) -> Sequence[dict]:
    """The labels (one per trace, in order) reduced to the boundaries `boundaries`, with T* computed again among them.

    Labels with every boundary, or those that `sparse.filled` made so; among the latter T* is the next one at or after it. Raises
    ValueError if one of the boundaries was not annotated; where rows are on disk, when the label is read.
    """
    if not isinstance(labels, Rows):
        pairs = zip(traces, labels, strict=True)
        return [
            _at(label, boundary_positions(boundaries, trace["ids"], thinking_tokens(trace))) for trace, label in pairs
        ]
    there, known = by_id(whole_rows(traces)), {}

    def reduced(label: dict) -> dict:
        name = label["id"]
        if name not in known:  # a few bytes a boundary, instead of the trace's ids read each time
            trace = there[name]
            known[name] = np.asarray(boundary_positions(boundaries, trace["ids"], thinking_tokens(trace)), np.int32)
        return _at(label, known[name].tolist())

    return labels.mapped(reduced)


def _at(label: dict, wanted: list[int]) -> dict:
    """A label at these of its boundaries."""
    require_whole([label])
    places = {place: number for number, place in enumerate(label["boundaries"])}
    if absent := [place for place in wanted if place not in places]:
        raise ValueError(
            f"label {label['id']} has no boundary at token {absent[0]}: annotate with all the kinds that are used"
        )
    own = {key: [label[key][places[place]] for place in wanted] for key in _EACH if key in label}
    if "known" in label:
        ends = {kind: _next(wanted, label, kind) for kind in ("first", "stable")}
    else:
        ends = {kind: sufficient_boundary(own["agree"], kind) for kind in ("first", "stable")}
    return label | own | ends


def _next(wanted: Sequence[int], label: dict, kind: str) -> int | None:
    """The number of the first of these boundaries at or after T*; None where there is none."""
    if label[kind] is None:
        return None
    end = label["boundaries"][label[kind]]
    return next((number for number, place in enumerate(wanted) if place >= end), None)


def annotated_split(session: Session, folder: Path, kinds: Sequence[str], whole: bool = True) -> tuple[Rows, Rows]:
    """The traces of an annotated split and the label of each, reduced to boundaries of these kinds; brief rows (`storage.rows`).

    whole: refuse a split that was annotated at some of its boundaries; else its labels are `sparse.filled`. Raises ValueError if
    a kind was not annotated, FileNotFoundError if the split was not annotated.
    """
    require_kinds(folder, kinds)
    if whole:
        require_every_boundary(folder)
    traces = read_shards(folder, "traces").brief()
    labels = join_labels(traces, read_shards(folder, "labels").brief(), whole)
    labels = labels if whole else labels.mapped(filled)
    return traces, labels_at(traces, labels, session.boundaries(kinds))


def require_every_boundary(folder: Path) -> None:
    """Raises ValueError if a split was annotated at some of its boundaries (annotate.every, most or search)."""
    if (schedule := annotate_settings(folder).get("schedule", ALL.text())) != ALL.text():
        raise ValueError(
            f"{folder} was annotated at some of its boundaries ({schedule}), but this needs the answer at every one: annotate it "
            f"in a new workdir, with a config.annotate.sparse_splits that does not name {folder.name}"
        )


def require_searched_for(folder: Path, kind: str) -> None:
    """Raises ValueError where a split was annotated by a search, which finds the T* of kind `stable`, and `kind` is another."""
    schedule = annotate_settings(folder).get("schedule", ALL.text())
    if kind != "stable" and "search" in schedule:
        raise ValueError(
            f"{folder} was annotated by a search for the T* of kind stable ({schedule}), but config.annotate.kind is {kind}: "
            "annotate it in a new workdir with this kind, which forces answers without a search"
        )


def annotated_kinds(folder: Path) -> tuple[str, ...] | None:
    """The kinds at which a split was annotated, as its annotate.json records them; None if it records none."""
    settings = annotate_settings(folder)
    return tuple(settings["kinds"]) if "kinds" in settings else None


def annotate_settings(folder: Path) -> dict:
    """The settings of a split's annotate.json, of any process; {} if there is none, or no labels."""
    return settings_of(folder, "annotate") if shard_files(folder, "labels") else {}


def missing_kinds(folder: Path, kinds: Sequence[str]) -> list[str]:
    """The kinds at which the split was not annotated; empty if its kinds are not known."""
    there = annotated_kinds(folder)
    if there is None:
        return []
    return [kind for kind in kinds if not {kind, *_WITHIN.get(kind, ())} & set(there)]


def require_kinds(folder: Path, kinds: Sequence[str]) -> None:
    """Raises ValueError if a split was not annotated at one of the kinds."""
    if missing := missing_kinds(folder, kinds):
        raise ValueError(
            f"{folder} was annotated at {', '.join(annotated_kinds(folder))} boundaries, not at {', '.join(missing)} ones: "
            f"annotate with --config.annotate.kinds naming all of {', '.join(kinds)} in a new workdir, or take the kinds that "
            "are there"
        )


def kinds_to_annotate(folder: Path, kinds: Sequence[str]) -> tuple[str, ...]:
    """The kinds at which the rest of a split is annotated, so that `kinds` can be selected from it: the split's present
    kinds, if they include all of `kinds`."""
    there = annotated_kinds(folder)
    return tuple(kinds) if there is None or missing_kinds(folder, kinds) else there
