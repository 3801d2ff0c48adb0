"""Forced answers in parallel against the sequential form, token for token, and what they read."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from random_params import random_params

from specexit_jax.decoding import force_queue
from specexit_jax.decoding.force import ForceSpec, force_answers
from specexit_jax.decoding.force_queue import Forcer
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.models.config import TargetConfig
from specexit_jax.models.target import init_target

VOCABULARY = 24
TARGET = TargetConfig("qwen3", VOCABULARY, 16, 24, 2, 4, 2, 8, qk_norm=True, capture=(0, 1, 1))
SPEC = ForceSpec(TARGET, Sampling(temperature=1.0), 13, (1,), (2,))
SAMPLINGS = [Sampling(), Sampling(0.9), Sampling(1.3, top_k=6), Sampling(1.0, top_p=0.8), Sampling(1.1, min_p=0.05)]


@pytest.fixture(scope="module")
def params():
    return random_params(init_target, TARGET, 0)


@pytest.fixture
def small(monkeypatch):
    """Sizes at which a trace of 100 tokens goes through every kind of piece and segment."""
    for name, size in {"PIECE": 32, "PREFIX": 16, "TASKS": 4, "OWN": 4}.items():
        monkeypatch.setattr(force_queue, name, size)


def ragged(seed: int, rows: int = 4, longest: int = 100):
    """Traces of different lengths with 0 to 20 boundaries each, and limits that cut some answers short."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(3, VOCABULARY, (rows, longest)).astype(np.int32)
    boundaries = np.full((rows, 20), -1, np.int32)
    lengths = np.array([longest, *rng.integers(12, longest, rows - 1)])
    for row, length in enumerate(lengths):
        tokens[row, length:] = 0
        count = 20 if row == 0 else rng.integers(0, 12)
        boundaries[row, :count] = np.sort(rng.choice(length - 1, min(count, length - 1), replace=False))
    keys = jax.random.split(jax.random.key(seed), rows)
    return tokens, boundaries, keys, (lengths + rng.integers(0, 20, rows)).astype(np.int32)


def assert_same(ours, one, key: int = 0) -> None:
    np.testing.assert_array_equal(ours.length[:, :, key], one.length)
    np.testing.assert_array_equal(ours.ids[:, :, key], one.ids)
    np.testing.assert_array_equal(ours.finished[:, :, key], one.finished)
    np.testing.assert_allclose(ours.log_probability[:, :, key], one.log_probability, atol=1e-4)


@functools.partial(jax.jit, static_argnums=0)
def in_turn(spec, *arguments):
    return force_answers.__wrapped__(spec, *arguments)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_branches_write_what_the_sequential_form_writes(params, small, sampling):
    spec = dataclasses.replace(SPEC, sampling=sampling)
    forcer, cut, stopped = Forcer(spec, params, 3), 0, 0
    for seed in range(3):
        tokens, boundaries, keys, limit = ragged(seed)
        one = jax.device_get(in_turn(spec, params, tokens, boundaries, keys, limit))
        ours = forcer.force(tokens, boundaries, keys[:, None], limit)
        assert_same(ours, one)
        cut += int(((one.length > 0) & ~one.finished).sum())
        stopped += int(one.finished.sum())
    assert forcer.cost.tokens > 150
    assert cut > 5 and (stopped > 5 or sampling.greedy)
