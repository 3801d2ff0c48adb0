"""Labels of traces at the boundaries that searches for T* ask for, many traces side by side."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from specexit_jax.annotation import search
from specexit_jax.annotation.forcing import Forcing, force_asked
from specexit_jax.annotation.schedule import Schedule
from specexit_jax.data.grading.grader import Grader, Later, together
from specexit_jax.decoding.forced.one_at_a_time import Forced
from specexit_jax.decoding.forced.queue import Forcer
from specexit_jax.engine.session import Session
from specexit_jax.exits.labels import sufficient_boundary

# of a trace, forced boundaries, their answers, the row of these; grades as those of `annotate.label_later`
LabelOf = Callable[[dict, list[int], Forced, int], Later[dict]]


def label_searched(
    session: Session,
    forcer: Forcer,
    forcing: Forcing,
    schedule: Schedule,
    traces: Iterable[dict],
    boundaries: Callable[[dict], list[int]],
    label: LabelOf,
    grader: Grader,
) -> Iterator[Later[dict]]:
    """A row of labels.jsonl for each trace, at the boundaries that the search for T* asks for; `unforced` has the others.

    Traces are searched side by side. Each goes on as soon as its own answers are there and graded, and makes place for the next
    once it is done. Nothing is asked of a trace without a final answer, with which none agrees.
    """
    left, current, done = iter(traces), {}, []
    nothing = Forced(*[np.zeros((1, 0, forcing.keys, *more)) for more in ((0,), (), (), ())], None)

    def following(row: int) -> tuple[dict, list[int]] | None:
        for trace in left:
            own = boundaries(trace)
            if trace["answer"] is not None and own:
                current[row] = _Search(session, schedule, trace, own)
                return trace, own
            done.append(_joined([label(trace, [], nothing, 0)], own))
        return None

    def ask(row: int, forced: Forced | None) -> list[int] | None:
        own = current[row]
        if forced is not None:
            own.take(label(own.trace, own.asked, forced, row))
        if (places := own.next()) == []:
            done.append(_joined(own.parts, own.boundaries))
            del current[row]
        return places

    def wait() -> None:
        grader.wait([own.turn for own in current.values() if own.turn is not None])

    for _ in force_asked(forcer, forcing, max(schedule.width, schedule.verify), following, ask, wait):
        yield from done
        done.clear()
    yield from done


class _Search:
    """The search for T* in a trace: the boundaries `asked` for last, the labels (`parts`) of all that were, and the grades
    (`turn`) that it awaits."""

    def __init__(self, session: Session, schedule: Schedule, trace: dict, boundaries: list[int]):
        self.trace, self.boundaries = trace, boundaries
        self.asked: list[int] = []
        self.parts: list[Later[dict]] = []
        self.turn: Later[list[bool]] | None = None
        self._schedule, self._places, self._known = schedule, schedule.of(boundaries), {}
        self._guess = search.guessed(session, trace, self._places)

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


def _joined(parts: Sequence[Later[dict]], boundaries: Sequence[int]) -> Later[dict]:
    return together(parts).then(lambda found: _row(found, boundaries))


def _row(parts: Sequence[dict], boundaries: Sequence[int]) -> dict:
    """One row of what was found of a trace."""
    places = [place for part in parts for place in part["boundaries"]]
    order = sorted(range(len(places)), key=places.__getitem__)
    lists = [name for name, value in parts[0].items() if isinstance(value, list)]
    flat = {name: [value for part in parts for value in part[name]] for name in lists}
    row = parts[0] | {name: [values[at] for at in order] for name, values in flat.items()}
    row |= {"first": sufficient_boundary(row["agree"], "first"), "stable": search.found(row["agree"])}
    return row | {"unforced": sorted({*boundaries} - {*places})}
