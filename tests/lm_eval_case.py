"""Requests as lm-evaluation-harness makes them, and what our own runs answer to them."""

import pytest

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance

from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.generate import generate
from specexit_jax.engine.outcomes import Outcome
from specexit_jax.engine.requests import DecodeSettings, Request
from specexit_jax.evaluation.lm_eval.chat import chat_text

GREEDY = {"until": [], "do_sample": False, "temperature": 0.0}
WARM = {"until": [], "do_sample": True, "temperature": 1.0}


def instance(context: str, kwargs: dict, doc: int = 0, task: str = "t") -> Instance:
    return Instance("generate_until", {}, (context, kwargs), 0, (task, doc, 1))


def prompts(session, questions=("Count the legs.", "3*4?", "4+4+4?", "12-4?", "Is 3 odd?")) -> list[str]:
    return [chat_text(session, [{"role": "user", "content": question}]) for question in questions]


def alone(session, method, text: str, name: str, kwargs: dict, most: int | None = None) -> Outcome:
    """The same prompt by a run of our own."""
    ids = tuple(session.tokenizer.encode(text, add_special_tokens=False))
    sampling = Sampling(temperature=kwargs["temperature"])
    (outcome,) = generate(session, [Request(name, ids)], method, DecodeSettings(sampling, most))
    return outcome
