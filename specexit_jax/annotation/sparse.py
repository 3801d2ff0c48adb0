"""Labels at some of a trace's boundaries. `unforced` of such a row lists the boundaries that were not forced.

What an exit at one of these answers is not known. Whether its answer agrees is taken from the forced boundaries around it where
both agree or both disagree. (On the bundled model that is right for 99.4 % of them. An exit score that is fitted to forced
boundaries alone is far worse, since a search forces the most doubtful ones: docs/scale.md.)
"""

from collections.abc import Iterable

from specexit_jax.exits.labels import KINDS


def require_whole(labels: Iterable[dict]) -> None:
    """Raises ValueError where a label lacks the answer at some boundary."""
    label = next((label for label in labels if label.get("unforced")), None)
    if label is not None:
        raise ValueError(
            f"label {label['id']} has answers at {len(label['boundaries'])} of "
            f"{len(label['boundaries']) + len(label['unforced'])} boundaries, but what an exit at any boundary gives is asked for: "
            "annotate this split at all of them in a new workdir, with a config.annotate.sparse_splits that does not name it"
        )


def filled(label: dict) -> dict:
    """A row of labels.jsonl with every boundary, for training.

    `agree` is inferred where it was not forced, `known` says where it is known or inferred, `agree_share`, `logprob` and
    `forced_ids` are None where not forced, and the other columns are left out. T* stays at its token. A row without `unforced`
    comes back as it is.
    """
    if not label.get("unforced"):
        return label
    forced = {place: number for number, place in enumerate(label["boundaries"])}
    places = sorted([*forced, *label["unforced"]])
    seen = [label["agree"][forced[place]] if place in forced else None for place in places]
    before, after = _carried(seen, False), _carried(seen[::-1], bool(forced))[::-1]
    known = [one == other for one, other in zip(before, after, strict=True)]
    columns = {
        key: [label[key][forced[place]] if place in forced else None for place in places]
        for key in ("agree_share", "logprob", "forced_ids")
        if key in label
    }
    made = {
        "boundaries": places,
        "agree": [one and sure for one, sure in zip(before, known, strict=True)],
        "known": known,
    }
    kept = {key: label[key] for key in ("id", "exits_before") if key in label}
    ends = {kind: None if label[kind] is None else label["boundaries"][label[kind]] for kind in KINDS}
    return kept | columns | made | {kind: None if end is None else places.index(end) for kind, end in ends.items()}


def _carried(seen: list[bool | None], value: bool) -> list[bool]:
    """Each value, or the last one before it; `value` before the first."""
    found = []
    for one in seen:
        value = value if one is None else one
        found.append(value)
    return found
