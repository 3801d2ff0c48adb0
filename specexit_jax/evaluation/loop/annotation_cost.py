"""The time of annotation at the shapes of a model, with random weights: forced answers one at a time, and many on one
prefix.

Both start from a prefilled trace and answer at the same boundaries; every answer has max_answer tokens.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from specexit_jax.decoding.forced.branches import Tasks
from specexit_jax.decoding.forced.one_at_a_time import Forced, ForceSpec, answer_in_turn
from specexit_jax.decoding.forced.queue import Forcer
from specexit_jax.decoding.sampling import Sampling, placeholder_keys
from specexit_jax.decoding.spec import prefixes_of
from specexit_jax.models.cache import SPARE, resize
from specexit_jax.models.config import TargetConfig

_in_turn = jax.jit(answer_in_turn, static_argnums=0)


@dataclasses.dataclass(frozen=True)
class Case:
    """One trace of `thinking` tokens, a boundary every `every` of them, answers of max_answer tokens."""

    thinking: int
    every: int
    max_answer: int
    branches: tuple[int, ...]
    repeats: int = 3

    @property
    def boundaries(self) -> np.ndarray:
        found = np.arange(self.every - 1, self.thinking, self.every, dtype=np.int32)
        if not len(found):
            raise ValueError(f"{self.thinking} tokens of thinking hold no boundary where one comes every {self.every}.")
        return found[None]


def annotation_cost(target: TargetConfig, params: dict, case: Case, seed: int = 0) -> dict[str, Any]:
    """Rows of each form: counts, and seconds by the median over repeats in turns, compilation and prefill apart.

    Raises ValueError should two forms write different tokens.
    """
    target = dataclasses.replace(target, max_position=case.thinking + case.max_answer + 2)
    spec = ForceSpec(target, Sampling(temperature=1.0), case.max_answer, (), (0,))
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, target.vocab_size, (1, case.thinking)).astype(np.int32)
    keys, limit = placeholder_keys(seed, 1), np.array([target.max_position], np.int32)
    calls: dict[str, Callable[[], Forced]] = {}
    forcers = {number: Forcer(spec, params, number) for number in case.branches}
    prefix = jax.block_until_ready(Forcer(spec, params, 1).prefill(tokens, case.thinking))
    began = time.perf_counter()
    jax.block_until_ready(Forcer(spec, params, 1).prefill(tokens, case.thinking))
    prefill_seconds = time.perf_counter() - began
    cache = resize(prefix, prefixes_of((), case.thinking + spec.reach)[-1] + SPARE)
    calls["one at a time"] = functools.partial(_in_turn, spec, params, cache, case.boundaries, keys, limit)
    tasks = Tasks(jnp.asarray(case.boundaries), keys[:, None], jnp.asarray(limit))
    for number, forcer in forcers.items():
        calls[f"{number} branches"] = functools.partial(forcer.answer, prefix, tasks)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    written = {name: jax.device_get(call()) for name, call in calls.items()}  # compiles
    first, *rest = (one.ids.reshape(-1, case.max_answer) for one in written.values())
    if any((first != other).any() for other in rest):
        raise ValueError("Branches and single answers wrote different tokens, so their times cannot be compared.")
    before = {number: dataclasses.replace(forcer.cost) for number, forcer in forcers.items()}
    for turn in range(case.repeats):
        for name in calls if turn % 2 else reversed(calls):
            began = time.perf_counter()
            jax.block_until_ready(calls[name]())
            seconds[name].append(time.perf_counter() - began)
    rows = [_sequential(spec, case)]
    rows += [_parallel(case, forcer, before[number]) for number, forcer in forcers.items()]
    for row, (name, taken) in zip(rows, seconds.items(), strict=True):
        row |= {"form": name, "forced_tokens": int(written[name].length.sum()), "seconds": float(np.median(taken))}
        row["seconds_a_boundary"] = row["seconds"] / case.boundaries.size
        row["times"] = float(np.median(np.array(seconds["one at a time"]) / np.array(taken)))
    shape = {"thinking": case.thinking, "boundaries": case.boundaries.size, "max_answer": case.max_answer}
    return {**shape, "prefill_seconds": prefill_seconds, "rows": rows}


def _sequential(spec: ForceSpec, case: Case) -> dict[str, Any]:
    """Counts of the sequential form: each token of each answer is a pass over the live prefix at its boundary."""
    prefixes, steps = prefixes_of((), case.thinking + spec.reach), case.max_answer - 1 + len(spec.end_think_ids)
    ends = case.boundaries[0] + 1 + spec.reach
    read = sum(next(size for size in prefixes if size >= end) * steps for end in ends.tolist())
    passes = steps * case.boundaries.size
    return {"computed_rows": passes, "prefix_reads": passes, "prefix_tokens_read": read}


def _parallel(case: Case, forcer: Forcer, before) -> dict[str, Any]:
    now = forcer.cost
    return {
        "computed_rows": (now.computed - before.computed) // case.repeats,
        "prefix_reads": (now.reads - before.reads) // case.repeats,
        "prefix_tokens_read": (now.read_tokens - before.read_tokens) // case.repeats,
    }


def text(found: dict[str, Any]) -> str:
    """The rows as a table."""
    lines = [
        f"{found['thinking']} tokens of thinking, {found['boundaries']} boundaries, answers of {found['max_answer']} tokens; "
        f"prefilled once in {found['prefill_seconds']:.2f} s",
        f"{'form':>14} {'tokens':>7} {'rows':>7} {'prefix reads':>13} {'tokens read':>12} {'ms a boundary':>14} {'times':>6}",
    ]
    for row in found["rows"]:
        lines.append(
            f"{row['form']:>14} {row['forced_tokens']:7d} {row['computed_rows']:7d} {row['prefix_reads']:13d} "
            f"{row['prefix_tokens_read']:12d} {1e3 * row['seconds_a_boundary']:14.2f} {row['times']:6.2f}"
        )
    return "\n".join(lines)
