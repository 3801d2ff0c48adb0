"""Answers forced at the boundaries of batches of traces, under the trace's own key and others."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from specexit_jax.decoding.forced.one_at_a_time import Forced, ForceSpec
from specexit_jax.decoding.forced.queue import Forcer
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
    longest = max(len(trace["prompt_ids"]) + len(trace["ids"]) for trace in traces)
    tokens = np.zeros((forcing.rows, longest), np.int32)
    positions = np.full((forcing.rows, max(1, *map(len, places))), -1, np.int32)
    limit = np.zeros((forcing.rows,), np.int32)
    for row, (trace, own) in enumerate(zip(traces, places, strict=True)):
        prompt = len(trace["prompt_ids"])
        ids = [*trace["prompt_ids"], *trace["ids"]]
        tokens[row, : len(ids)] = ids
        positions[row, : len(own)] = np.asarray(own, np.int32) + prompt
        limit[row] = prompt + room_of(trace, forcing, forcer.spec.target.max_position)
    return forcer.force(tokens, positions, _keys(traces, forcing), limit)


def _keys(traces: Sequence[dict], forcing: Forcing) -> jax.Array:
    """[rows, keys]: each trace's own key, then keys made from its id and a number."""
    padding = forcing.rows - len(traces)
    ids, seeds = [trace["id"] for trace in traces] + [""] * padding, [trace["seed"] for trace in traces] + [0] * padding
    names = [f"{name}/key-{number}" if number else name for name in ids for number in range(forcing.keys)]
    keys = request_keys(names, [seed for seed in seeds for _ in range(forcing.keys)])
    return keys.reshape(forcing.rows, forcing.keys)
