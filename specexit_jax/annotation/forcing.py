"""Answers forced at the boundaries of batches of traces, under the trace's own key and others."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from specexit_jax.decoding.forced.one_at_a_time import Forced, ForceSpec
from specexit_jax.decoding.forced.queue import Ask, Forcer, Read
from specexit_jax.engine.keys import request_keys
from specexit_jax.engine.session import Session


@dataclasses.dataclass(frozen=True)
class Forcing:
    """rows: traces per batch; branches: boundaries of each that are decoded at a time; max_answer: most tokens after
    `</think>`; max_new_tokens: as the traces were sampled, so that an answer ends where an exit's would; keys: answers
    per boundary, the first of them under the trace's own key."""

    rows: int
    branches: int
    max_answer: int
    max_new_tokens: int
    keys: int = 1

    def __post_init__(self):
        for name, least in (("rows", 1), ("branches", 1), ("max_answer", 1), ("keys", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"Annotation needs {name} of at least {least}, not {getattr(self, name)}.")


def make_forcer(session: Session, forcing: Forcing) -> Forcer:
    """A compiled forcer. Raises ValueError for a model without `</think>`."""
    if not session.end_think_ids:
        raise ValueError("This model has no </think>, so no answer can be forced: give one that thinks.")
    spec = ForceSpec(session.target, session.sampling, forcing.max_answer, session.stop_ids, session.end_think_ids)
    return Forcer(spec, session.params.target, forcing.branches, session.mesh)


def room_of(trace: dict, forcing: Forcing, context: int) -> int:
    """Tokens that a trace's request may generate: max_new_tokens, or fewer if the context ends before."""
    return min(forcing.max_new_tokens, context - len(trace["prompt_ids"]))


def force_batch(forcer: Forcer, forcing: Forcing, traces: Sequence[dict], places: Sequence[list[int]]) -> Forced:
    """Forced answers of up to `rows` traces, [rows, N, keys, ...]; `places` index into each trace's generated ids."""
    batch = _Batch(forcer, forcing, traces)
    return forcer.force(batch.tokens, batch.positions(places), batch.keys, batch.limit)


def force_asked(
    forcer: Forcer,
    forcing: Forcing,
    most: int,
    following: Callable[[int], tuple[dict, list[int]] | None],
    ask: Ask,
    wait: Callable[[], None],
) -> Iterator[None]:
    """Forces what ask(row, its new answers [rows, `most`, keys, ...]) names next, places in the ids of the row's trace, until it
    names none; then following(row) gives the row another trace and the places that may be asked for, of which there is one.

    Each trace is read once, and goes on as soon as its own answers are there. The rest: as of `Forcer.force_asked`.
    """
    prompts = [0] * forcing.rows

    def read(row: int) -> Read | None:
        if (found := following(row)) is None:
            return None
        trace, places = found
        batch, prompts[row] = _Batch(forcer, forcing, [trace]), len(trace["prompt_ids"])
        return Read(batch.tokens[0], batch.keys[0], int(batch.limit[0]), prompts[row] + max(places) + 1)

    def asked(row: int, forced: Forced | None) -> list[int] | None:
        own = ask(row, forced)
        return None if own is None else [prompts[row] + place for place in own]

    return forcer.force_asked(forcing.rows, most, read, asked, wait)


class _Batch:
    """The arrays of up to `rows` traces: tokens, keys and the limit of their lengths."""

    def __init__(self, forcer: Forcer, forcing: Forcing, traces: Sequence[dict]):
        self.prompts, self.keys = [len(trace["prompt_ids"]) for trace in traces], _keys(traces, forcing)
        longest = max(len(trace["prompt_ids"]) + len(trace["ids"]) for trace in traces)
        self.tokens, self.limit = np.zeros((forcing.rows, longest), np.int32), np.zeros((forcing.rows,), np.int32)
        for row, trace in enumerate(traces):
            ids = [*trace["prompt_ids"], *trace["ids"]]
            self.tokens[row, : len(ids)] = ids
            self.limit[row] = self.prompts[row] + room_of(trace, forcing, forcer.spec.target.max_position)

    def positions(self, places: Sequence[list[int]]) -> np.ndarray:
        """int32 [rows, N], padded with -1."""
        found = np.full((len(self.tokens), max(1, *map(len, places))), -1, np.int32)
        for row, (own, prompt) in enumerate(zip(places, self.prompts, strict=True)):
            found[row, : len(own)] = np.asarray(own, np.int32) + prompt
        return found


def _keys(traces: Sequence[dict], forcing: Forcing) -> jax.Array:
    """[rows, keys]: each trace's own key, then keys made from its id and a number."""
    padding = forcing.rows - len(traces)
    ids, seeds = [trace["id"] for trace in traces] + [""] * padding, [trace["seed"] for trace in traces] + [0] * padding
    names = [f"{name}/key-{number}" if number else name for name in ids for number in range(forcing.keys)]
    keys = request_keys(names, [seed for seed in seeds for _ in range(forcing.keys)])
    return keys.reshape(forcing.rows, forcing.keys)
