"""Log-probabilities that the loop keeps: those of the target over the tokens that were written, forced ones included."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_case import SAMPLED, TARGET, Requests, boundary_table, run, tiny_params, tiny_spec

from specexit_jax.decoding.loop.speculative import make_loop
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.exits.policy import Threshold
from specexit_jax.models.target import Target

POLICY = Threshold(jnp.array([0.4, 0.4, 1.5], jnp.float32))


SLOW = pytest.mark.slow
CASES = [pytest.param(0, None, marks=SLOW), pytest.param(3, None, marks=SLOW), (3, TreeShape(3, 2, 6))]


@pytest.mark.parametrize(("drafts", "tree"), CASES, ids=str)
def test_they_are_those_of_the_target_over_the_written_tokens(drafts, tree):
    """Sampled at another temperature, with filters and a penalty, which leave them as they are."""
    sampling = dataclasses.replace(SAMPLED, temperature=0.7, top_p=0.9, repetition_penalty=1.2)
    spec = tiny_spec(drafts, tree=tree, sampling=sampling, buffer_length=60, logprobs=4)
    requests, params = Requests.random(6, seed=3), tiny_params()
    plain = run(dataclasses.replace(spec, logprobs=0), params, requests.rows(), POLICY, boundary_table())
    found = run(spec, params, requests.rows(), POLICY, boundary_table())
    np.testing.assert_array_equal(found.tokens, plain.tokens)
    assert plain.logs is None and (found.exit_position >= 0).any() and (found.exit_position < 0).any()
    positions = jnp.broadcast_to(jnp.arange(found.tokens.shape[1], dtype=jnp.int32)[None], found.tokens.shape)
    logits = Target(TARGET).apply({"params": params.target}, jnp.asarray(found.tokens), positions).logits
    table = np.asarray(jax.nn.log_softmax(logits, axis=-1))
    for row in range(6):
        written = slice(int(found.prompt_length[row]), int(found.length[row]))
        own = table[row, written.start - 1 : written.stop - 1]
        chosen = own[np.arange(len(own)), found.tokens[row, written]]
        np.testing.assert_allclose(found.logs.chosen[row, written], chosen, atol=2e-5)
        np.testing.assert_allclose(found.logs.best_logs[row, written], -np.sort(-own)[:, :4], atol=2e-5)
        picked = np.take_along_axis(own, found.logs.best[row, written], axis=1)
        np.testing.assert_allclose(picked, found.logs.best_logs[row, written], atol=2e-5)


def test_what_cannot_be_kept_is_refused():
    with pytest.raises(ValueError, match="logprobs is a number of tokens from 0 to the vocabulary's"):
        tiny_spec(3, logprobs=TARGET.vocab_size + 1)

    class OnTrial(Threshold):
        on_trial = True

    policy = OnTrial(POLICY.thresholds)
    with pytest.raises(ValueError, match="not kept where an exit policy has trials"):
        make_loop(tiny_spec(3, logprobs=1).bare, tiny_params(), policy, boundary_table())
