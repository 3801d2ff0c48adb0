"""The labels of some kinds of boundaries among those that were annotated."""

from collections.abc import Sequence

from specexit_jax.annotation.annotate import thinking_tokens
from specexit_jax.exits.boundaries import Boundaries, boundary_positions
from specexit_jax.exits.labels import sufficient_boundary

_EACH = ("boundaries", "forced_ids", "forced", "agree", "correct", "logprob", "agree_share")


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
                f"label {label['id']} has no boundary at token {absent[0]}: annotate with all the kinds that are compared"
            )
        own = {key: [label[key][places[place]] for place in wanted] for key in _EACH if key in label}
        ends = {kind: sufficient_boundary(own["agree"], kind) for kind in ("first", "stable")}
        found.append(label | own | ends)
    return found
