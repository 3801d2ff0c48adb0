"""Translates a task's generation options of lm-evaluation-harness into ours, and generations into the text that it
grades.

The task's `generation_kwargs` (overridden by --gen_kwargs) set sampling, the most tokens, and the strings that end an
answer. Only this package needs lm-eval.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text

from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.outcomes import Outcome
from specexit_jax.engine.session import Session, is_thinking, text_of
from specexit_jax.engine.thinking import END_THINK, THINK

_FILTERS = {"top_k": int, "top_p": float, "min_p": float}


@dataclasses.dataclass(frozen=True)
class Generation:
    """How one request is answered. most: tokens at most, thinking included; until: strings that end the answer."""

    sampling: Sampling
    most: int
    until: tuple[str, ...]


def generation_of(
    session: Session, kwargs: Mapping[str, Any], temperature: float | None = None, max_gen_toks: int | None = None
) -> Generation:
    """The options of a task's generation_kwargs; those that they leave open are the target's own.

    temperature: overrides the tasks', which mostly ask for greedy decoding; the filters are then the target's own.
    max_gen_toks: overrides the tasks', which were chosen for answers without thinking. Raises ValueError on an option
    that this engine does not have.
    """
    asked = dict(normalize_gen_kwargs(dict(kwargs), max_gen_toks or session.max_new_tokens))
    most, until = max_gen_toks or asked.pop("max_gen_toks"), asked.pop("until")
    sampled = asked.pop("do_sample")
    asked.pop("max_gen_toks", None)
    if asked.pop("num_beams", 1) != 1:
        raise ValueError("Beam search (num_beams) was asked for, which this engine does not have: set num_beams=1.")
    filters = {name: kind(asked.pop(name) or 0) for name, kind in _FILTERS.items() if asked.get(name) is not None}
    warmth = float(asked.pop("temperature", session.sampling.temperature or 1.0))
    penalty = float(asked.pop("repetition_penalty", session.sampling.repetition_penalty))
    if asked:
        raise ValueError(f"The generation option {min(asked)!r} was asked for, which this engine does not have.")
    if most < 1:
        raise ValueError(f"max_gen_toks must be at least 1, but it is {most}.")
    if temperature is not None:
        sampling = dataclasses.replace(session.sampling, temperature=float(temperature), repetition_penalty=penalty)
    elif sampled:
        sampling = Sampling(temperature=warmth, rule=session.sampling.rule, repetition_penalty=penalty, **filters)
    else:
        sampling = Sampling(repetition_penalty=penalty)
    return Generation(sampling, most, tuple(str(text) for text in until if text))


def answer_of(session: Session, outcome: Outcome, until: tuple[str, ...], keep_thinking: bool = False) -> str:
    """The text that the task judges: what follows the thinking, up to the first of the strings in `until`.

    As in lm-eval's own backends, those strings end only the answer, because thinking contains them too, and white space
    between thinking and answer is dropped. If the thinking never closed, the answer is ""; those backends would have
    the task grade the thinking. keep_thinking: all generated text, up to the same place.
    """
    whole = text_of(session, outcome.ids)
    if session.thinking is None:
        return postprocess_generated_text(whole, list(until), None)
    thought, closed, answer = whole.rpartition(END_THINK)
    # A model may also open its thinking itself.
    if THINK in answer or (not closed and is_thinking(session, outcome.prompt_ids)):
        return whole if keep_thinking else ""
    shown = postprocess_generated_text(answer if keep_thinking else answer.lstrip(), list(until), None)
    return thought + closed + shown if keep_thinking else shown
