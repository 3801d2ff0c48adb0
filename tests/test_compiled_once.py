"""Requests that differ in how they are sampled, in their seed and in their lengths share what is compiled."""

import jax
import numpy as np
import pytest
from compilations_case import compilations

from specexit_jax.decoding.sampling import Sampling
from specexit_jax.engine.batches import plan
from specexit_jax.engine.generate import generate
from specexit_jax.engine.placement import Placement
from specexit_jax.engine.preparing import prepare
from specexit_jax.engine.requests import Request

# The first two compile all programs: a plain greedy request and a plain sampled one.
SAMPLINGS = [
    Sampling(),
    Sampling(0.8),
    Sampling(0.6),
    Sampling(1.3, top_k=20),
    Sampling(1.3, top_k=5),
    Sampling(0.9, top_p=0.9),
    Sampling(0.9, top_p=0.5, min_p=0.1),
    Sampling(1.1, min_p=0.05),
    Sampling(0.7, repetition_penalty=1.2),
    Sampling(repetition_penalty=1.4),
]


@pytest.fixture(scope="module")
def requests(session):
    """Twenty requests; none is longer than the second."""
    rng, found = np.random.default_rng(0), []
    for place in range(20):
        ids = rng.integers(3, session.target.vocab_size, 60 if place == 1 else int(rng.integers(2, 60)))
        prompt = (*ids.tolist(), *session.thinking.start)
        limit = 30 if place == 1 else int(rng.integers(1, 30))
        found.append(Request(f"q{place}", prompt, place, SAMPLINGS[place % 10], limit))
    return found


def decoded(session, requests, method, placement=Placement()):
    """(outcomes of the first two and of the others, the number of programs that each of these groups compiled)."""
    jax.clear_caches()
    with compilations() as first:
        found = generate(session, requests[:2], method, placement=placement)
    with compilations() as later:
        found += generate(session, requests[2:], method, placement=placement)
    return [one.ids for one in found], len(first), len(later)


@pytest.fixture(scope="module")
def alone(session, specexit, requests):
    return decoded(session, requests, specexit)


def test_twenty_mixed_requests_compile_what_the_first_two_do(alone):
    ids, first, later = alone
    assert first and not later
    assert len(set(ids)) > 10


def test_slots_of_mixed_requests_compile_once_and_write_what_each_writes_alone(session, specexit, requests, alone):
    ids, first, later = decoded(session, requests, specexit, Placement(4))
    assert first and not later
    assert ids == alone[0]


def test_one_call_has_one_rule(session, specexit, requests):
    drawn = Request("drawn", requests[0].prompt_ids, sampling=Sampling(0.8, rule="rejection"))
    with pytest.raises(ValueError, match="one rule, but these ask for keyed and rejection"):
        plan(prepare(session, [requests[1], drawn], specexit), Placement(2))
    (batch,) = plan(prepare(session, [requests[0], drawn], specexit), Placement(2))  # greedy follows either
    assert batch.spec.rejects
