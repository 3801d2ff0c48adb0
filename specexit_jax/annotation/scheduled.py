"""Labels of a batch of traces at the boundaries that a schedule forces, on prefixes that are read once."""

from collections.abc import Callable, Sequence

import numpy as np

from specexit_jax.annotation import search
from specexit_jax.annotation.forcing import Forcing, force_asked, force_batch
from specexit_jax.annotation.schedule import Schedule
from specexit_jax.data.grading.grader import Grader, Later, together
from specexit_jax.decoding.forced.one_at_a_time import Forced
from specexit_jax.decoding.forced.queue import Forcer
from specexit_jax.engine.session import Session
from specexit_jax.exits.labels import KINDS, sufficient_boundary

# of a trace, forced boundaries, their answers, the row of these; grades as those of `annotate.label_later`
LabelOf = Callable[[dict, list[int], Forced, int], Later[dict]]


def label_some(
    session: Session,
    forcer: Forcer,
    forcing: Forcing,
    schedule: Schedule,
    traces: Sequence[dict],
    boundaries: Sequence[list[int]],
    label: LabelOf,
    grader: Grader,
) -> list[Later[dict]]:
    """A row of labels.jsonl for each trace, at the boundaries that the schedule forces; `unforced` has the others.

    With a search, the rows are decoded together, and each goes on as soon as its own answers are there and graded. It asks
    nothing of a trace without a final answer, with which none agrees. label: see `LabelOf`.
    """
    places = [schedule.of(own) for own in boundaries]
    if schedule.search:
        places = [own if trace["answer"] is not None else [] for trace, own in zip(traces, places, strict=True)]
        searches = [_Search(session, schedule, *pair) for pair in zip(traces, places, strict=True)]

        def ask(row: int, forced: Forced | None) -> list[int] | None:
            own = searches[row]
            if forced is not None:
                own.take(label(traces[row], own.asked, forced, row))
            return own.next()

        def wait() -> None:
            grader.wait([own.turn for own in searches if own.turn is not None])

        force_asked(forcer, forcing, traces, places, max(schedule.width, schedule.verify), ask, wait)
        found = [own.parts for own in searches]
    else:
        forced = force_batch(forcer, forcing, traces, places)
        found = [[label(*pair, forced, row)] for row, pair in enumerate(zip(traces, places, strict=True))]
    nothing = Forced(*[np.zeros((1, 0, forcing.keys, *more)) for more in ((0,), (), (), ())], None)
    parts = [own or [label(trace, [], nothing, 0)] for own, trace in zip(found, traces, strict=True)]
    return [_joined(*row, schedule.search) for row in zip(parts, boundaries, strict=True)]


class _Search:
    """The search for T* in a trace: the boundaries `asked` for last, the labels (`parts`) of all that were, and the grades
    (`turn`) that it awaits."""

    def __init__(self, session: Session, schedule: Schedule, trace: dict, places: list[int]):
        self.asked: list[int] = []
        self.parts: list[Later[dict]] = []
        self.turn: Later[list[bool]] | None = None
        self._schedule, self._places, self._known = schedule, places, {}
        self._guess = search.guessed(session, trace, places)

    def take(self, label: Later[dict]) -> None:
        """Takes the label of the boundaries `asked`."""
        self.parts.append(label)
        self.turn = Later(label.grades[: len(self.asked)], list)

    def next(self) -> list[int] | None:
        """The boundaries to force next; none where T* is found, None while grades are awaited."""
        if self.turn is not None:
            if self.turn.pending():
                return None
            self._known |= zip(self._numbers, self.turn.value(), strict=True)
            self.turn = None
        how = self._schedule
        self._numbers = search.asked(self._known, len(self._places), self._guess, how.verify, how.width)
        self.asked = [self._places[number] for number in self._numbers]
        return self.asked


def _joined(parts: Sequence[Later[dict]], boundaries: Sequence[int], searched: bool) -> Later[dict]:
    return together(parts).then(lambda found: _row(found, boundaries, searched))


def _row(parts: Sequence[dict], boundaries: Sequence[int], searched: bool) -> dict:
    """One row of what was found of a trace."""
    places = [place for part in parts for place in part["boundaries"]]
    order = sorted(range(len(places)), key=places.__getitem__)
    lists = [name for name, value in parts[0].items() if isinstance(value, list)]
    flat = {name: [value for part in parts for value in part[name]] for name in lists}
    row = parts[0] | {name: [values[at] for at in order] for name, values in flat.items()}
    row |= {kind: sufficient_boundary(row["agree"], kind) for kind in KINDS}
    if searched:
        row["stable"] = search.found(row["agree"])
    return row | {"unforced": sorted({*boundaries} - {*places})}
