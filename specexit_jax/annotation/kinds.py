"""The labels of some kinds of boundaries among those that were annotated."""

import json
from collections.abc import Sequence
from pathlib import Path

from specexit_jax.annotation.joined import join_labels, thinking_tokens
from specexit_jax.engine.session import Session
from specexit_jax.exits.boundaries import Boundaries, boundary_positions
from specexit_jax.exits.labels import sufficient_boundary
from specexit_jax.storage.shards import read_shards, shard_files

_EACH = ("boundaries", "forced_ids", "forced", "finished", "agree", "correct", "logprob", "agree_share")
_WITHIN = {"released": "paragraph"}  # every boundary of the first kind is one of the second


def labels_at(traces: Sequence[dict], labels: Sequence[dict], boundaries: Boundaries) -> list[dict]:
    """The labels (one a trace, in order) with the boundaries of `boundaries` alone, T* anew among them.

    Raises ValueError where one of them was not annotated.
    """
    found = []
    for trace, label in zip(traces, labels, strict=True):
        places = {place: number for number, place in enumerate(label["boundaries"])}
        wanted = boundary_positions(boundaries, trace["ids"], thinking_tokens(trace))
        if absent := [place for place in wanted if place not in places]:
            raise ValueError(
                f"label {label['id']} has no boundary at token {absent[0]}: annotate with all the kinds that are used"
            )
        own = {key: [label[key][places[place]] for place in wanted] for key in _EACH if key in label}
        ends = {kind: sufficient_boundary(own["agree"], kind) for kind in ("first", "stable")}
        found.append(label | own | ends)
    return found


def annotated_split(session: Session, folder: Path, kinds: Sequence[str]) -> tuple[list[dict], list[dict]]:
    """The traces of an annotated split and the label of each, at boundaries of these kinds alone.

    Raises ValueError where it was not annotated at all of them, FileNotFoundError where it was not annotated.
    """
    require_kinds(folder, kinds)
    traces = read_shards(folder, "traces")
    labels = join_labels(traces, read_shards(folder, "labels"))
    return traces, labels_at(traces, labels, session.boundaries(kinds))


def annotated_kinds(folder: Path) -> tuple[str, ...] | None:
    """The kinds at which a split was annotated, as its annotate.json keeps them; None where it keeps none."""
    settings = annotate_settings(folder)
    return tuple(settings["kinds"]) if "kinds" in settings else None


def annotate_settings(folder: Path) -> dict:
    """The settings of a split's annotate.json, of whichever process; {} without one, or without labels."""
    for path in shard_files(folder, "annotate", ".json") if shard_files(folder, "labels") else ():
        try:
            return dict(json.loads(path.read_text())["settings"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a report of this stage ({error}): mend or remove it.") from error
    return {}


def missing_kinds(folder: Path, kinds: Sequence[str]) -> list[str]:
    """Those of the kinds that the split was not annotated at; none where it is not known at which it was."""
    there = annotated_kinds(folder)
    if there is None:
        return []
    return [kind for kind in kinds if kind not in there and _WITHIN.get(kind) not in there]


def require_kinds(folder: Path, kinds: Sequence[str]) -> None:
    """Raises ValueError where a split was not annotated at all of the kinds."""
    if missing := missing_kinds(folder, kinds):
        raise ValueError(
            f"{folder} was annotated at {', '.join(annotated_kinds(folder))} boundaries, not at {', '.join(missing)} ones: "
            f"annotate with --config.annotate.kinds naming all of {', '.join(kinds)} in a new workdir, or take the kinds that "
            "are there"
        )


def kinds_to_annotate(folder: Path, kinds: Sequence[str]) -> tuple[str, ...]:
    """The kinds at which the rest of a split is annotated so that `kinds` can be taken from it: those that it has already,
    where they hold all of them."""
    there = annotated_kinds(folder)
    return tuple(kinds) if there is None or missing_kinds(folder, kinds) else there
