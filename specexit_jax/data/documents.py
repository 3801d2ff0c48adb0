"""Training documents of the bundled target: full traces, mended traces, traces stopped early, answers without thinking.

In a mended trace the first attempt usually contains a slip, and carries no loss. The model learns to find and mend
slips, which are rare in its own traces, without learning to make more of them.

A trace stopped early ends with a `</think>` that carries no loss: the model learns to answer when it is stopped there,
and does not learn to stop there. Questions carry no loss either. Stopped traces are generated separately and mostly end
near the first answer, because the hard tokens are in the first attempt and later rounds repeat them.
"""

import dataclasses
import random

import numpy as np
from transformers import PreTrainedTokenizerBase

from specexit_jax.data.splits import Problem
from specexit_jax.data.tokenizer import prompt_text
from specexit_jax.data.world.writer import SLIP, Trace, thinking_text, write_trace

_MENDED_SLIP = 0.7  # chance of each hard operation in the first attempt of a mended trace
Document = tuple[np.ndarray, np.ndarray]  # ids int32[n], loss_mask bool[n]


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Full traces per problem, the share of them that are mended, and for each full trace the probability of an
    additional stopped trace and of an additional answer without thinking."""

    traces_per_problem: int = 1
    mended: float = 0.4
    stopped: float = 1.0
    unthought: float = 0.05


def _document(tokenizer: PreTrainedTokenizerBase, parts: list[tuple[str, bool]]) -> Document:
    ids, mask = [], []
    for text, trained in parts:
        piece = tokenizer.encode(text, add_special_tokens=False)
        ids += piece
        mask += [trained] * len(piece)
    return np.array(ids, np.int32), np.array(mask, bool)


def answer_text(answer: str) -> str:
    """The text after `</think>`."""
    return f"\n\n{answer}<|end|>"


def _stopped_at(trace: Trace, rng: random.Random) -> int:
    """A random paragraph to stop after; with probability 2/3 one near the first statement of an answer, where exits
    fall."""
    last = len(trace.paragraphs) - 1
    return rng.randrange(min(trace.stated + 4, last + 1)) if rng.random() < 2 / 3 else rng.randrange(last + 1)


def _full(problem: Problem, rng: random.Random, mended: bool) -> list[tuple[str, bool]]:
    """The parts of a whole trace; in a mended trace everything up to the first statement carries no loss."""
    trace = write_trace(problem.task, problem.entry, rng, _MENDED_SLIP if mended else SLIP)
    thinking, attempt = thinking_text(trace), thinking_text(trace, trace.stated)
    ending = (f"</think>{answer_text(trace.answer)}", True)
    return [(attempt, not mended), (thinking[len(attempt) :], True), ending]


def documents(
    problems: list[Problem], tokenizer: PreTrainedTokenizerBase, mixture: Mixture, seed: int
) -> list[Document]:
    """Documents for `problems`, in a fixed order; pure in its arguments."""
    made, rng = [], random.Random(seed)
    for problem in problems * mixture.traces_per_problem:
        prompt = (prompt_text(tokenizer, problem.question), False)
        made.append(_document(tokenizer, [prompt, *_full(problem, rng, mended=rng.random() < mixture.mended)]))
        if rng.random() < mixture.stopped:
            trace = write_trace(problem.task, problem.entry, rng)
            at = _stopped_at(trace, rng)
            parts = [prompt, (thinking_text(trace, at), True), ("</think>", False)]
            made.append(_document(tokenizer, [*parts, (answer_text(trace.believed[at]), True)]))
        if rng.random() < mixture.unthought:
            closed = prompt_text(tokenizer, problem.question, thinking=False)
            made.append(_document(tokenizer, [(closed, False), (answer_text(problem.answer), True)]))
    return made
