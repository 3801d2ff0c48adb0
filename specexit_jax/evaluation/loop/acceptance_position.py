"""Tokens per verify step against the tokens thought so far, from real decodes run step by step."""

from collections.abc import Sequence

import numpy as np

from specexit_jax.annotation.rollout import request_of
from specexit_jax.data.splits import Problem
from specexit_jax.engine.methods import Method
from specexit_jax.engine.preparing import prepare
from specexit_jax.engine.requests import DecodeSettings
from specexit_jax.engine.session import Session
from specexit_jax.engine.slots import slots_for
from specexit_jax.engine.specs import spec_of
from specexit_jax.evaluation.statistics import paired_ratio
from specexit_jax.monitoring.progress import Progress

_MOST_BINS = 12


def step_lengths(
    session: Session, problems: Sequence[Problem], method: Method, seed: int, max_new_tokens: int
) -> dict[str, np.ndarray]:
    """By problem id: generated tokens before each verify step and after the last, int[steps + 1].

    The loop runs at batch 1, one iteration per call; it writes the same tokens as in one call.
    """
    requests = [request_of(session, problem, seed) for problem in problems]
    prepared = prepare(session, requests, method, DecodeSettings(max_new_tokens=max_new_tokens))
    slots = slots_for(session, method, spec_of(prepared), 1)
    bar, found = Progress(len(requests), "steps "), {}
    for done, request in enumerate(prepared.requests, start=1):
        prompt = len(request.prompt_ids)
        slots.admit(0, request.in_buffer(slots.loop.spec.buffer_length))
        lengths = [int(slots.lengths[0])]
        while not slots.done[0]:
            slots.run(steps=1)
            lengths.append(int(slots.lengths[0]))
        found[request.id] = np.asarray(lengths) - prompt
        bar.update(done)
    return found


def acceptance_by_position(lengths: dict[str, np.ndarray], think_ends: dict[str, int | None]) -> list[dict]:
    """Rows {from, to, steps, problems, tokens_per_step, ci95}: bins of one width by the tokens that the model had
    thought when the step began; the bonus token is counted, intervals come from resampling problems.

    think_ends: by id, the index of `</think>`, None where it never came. Left out: steps that begin after it, and the last
    step of each row, which a stop or the limit may have cut.
    """
    starts, yields, owners = [], [], []
    for owner, (name, row) in enumerate(lengths.items()):
        before, wrote = row[:-1], np.diff(row)
        end = think_ends[name]
        kept = np.arange(len(before)) < len(before) - 1
        kept &= before < (np.inf if end is None else end)
        starts.append(before[kept])
        yields.append(wrote[kept])
        owners.append(np.full(int(kept.sum()), owner))
    start, wrote, owner = (np.concatenate(parts) for parts in (starts, yields, owners))
    if not len(start):
        return []
    width = _width(int(start.max()) + 1)
    table = []
    for low in range(0, int(start.max()) + 1, width):
        inside = (start >= low) & (start < low + width)
        if not inside.any():
            continue
        own = np.unique(owner[inside])
        sums = np.asarray([[wrote[inside & (owner == one)].sum(), (inside & (owner == one)).sum()] for one in own])
        ratio = paired_ratio([sums])
        table.append({
            "from": low, "to": low + width, "steps": int(inside.sum()), "problems": len(own),
            "tokens_per_step": ratio.value, "ci95": [ratio.low, ratio.high],
        })  # fmt: skip
    return table


def _width(longest: int) -> int:
    """The least power of two, from 16 on, that covers so many tokens with at most _MOST_BINS bins."""
    width = 16
    while width * _MOST_BINS < longest:
        width *= 2
    return width
