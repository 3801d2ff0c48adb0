"""A draft's sliding window: the positions that are seen, equal drafts of chain, tree and kernel, and the target's own ids."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from decoding_case import DRAFT, SAMPLED, TARGET, Requests, boundary_table, run, tiny_params, tiny_spec

from specexit_jax.decoding.sampling import Sampling
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.exits.policy import NeverExit
from specexit_jax.models.layers import cached_bias

WINDOW = 3


def test_positions_that_a_window_shows():
    """A verified token sees the latest few. An own step of the draft sees all own steps and the window of the last verified one."""
    length, tokens, live = jnp.asarray([0, 2, 7], jnp.int32), 3, 16
    seen = np.asarray(cached_bias(length, tokens, live, window=WINDOW)) == 0
    for row, start in enumerate((0, 2, 7)):
        for t in range(tokens):
            last = start + t
            assert set(np.flatnonzero(seen[row, t])) == set(range(max(last - WINDOW + 1, 0), last + 1))
    own = np.zeros((3, tokens, 5), bool)  # the last five positions, two of them before this call's
    own[:, :, [0, 3]] = True
    start = jnp.asarray([4, 2, 9], jnp.int32)
    seen = np.asarray(cached_bias(start, tokens, live, jnp.asarray(own), WINDOW)) == 0
    for row, first in enumerate((2, 0, 7)):
        wanted = {*range(max(first - WINDOW, 0), first), first, first + 3}
        assert all(set(np.flatnonzero(seen[row, t])) == wanted for t in range(tokens))


@pytest.mark.parametrize(
    "sampling", [SAMPLED, pytest.param(Sampling(), marks=pytest.mark.slow)], ids=["sampled", "greedy"]
)
def test_chain_tree_and_kernel_draft_the_same_and_write_what_no_draft_writes(sampling):
    """A tree with one child a node is a chain. The window changes drafts, but no token."""
    draft = dataclasses.replace(DRAFT, sliding_window=WINDOW)
    arguments = (tiny_params(), Requests.random(8, 4).rows(), NeverExit(), boundary_table())
    plain = run(tiny_spec(0, sampling=sampling), *arguments)
    chain = tiny_spec(3, sampling=sampling, draft=draft, live_prefixes=(24,))
    kernel = [dataclasses.replace(config, attention="pallas") for config in (TARGET, draft)]
    ways = {
        "tree": dataclasses.replace(chain, tree=TreeShape(3, 1, 3), live_prefixes=()),
        "kernel": dataclasses.replace(chain, target=kernel[0], draft=kernel[1]),
        "whole": tiny_spec(3, sampling=sampling),
    }
    expected = run(chain, *arguments)
    found = {name: run(spec, *arguments) for name, spec in ways.items()}
    for result in (expected, *found.values()):
        for field in ("tokens", "length", "finished"):
            np.testing.assert_array_equal(getattr(result, field), getattr(plain, field), err_msg=field)
    assert expected.accept_histogram[:, 1:].any()
    for name in ("tree", "kernel"):
        np.testing.assert_array_equal(found[name].accept_histogram, expected.accept_histogram, err_msg=name)
    assert (found["whole"].accept_histogram != expected.accept_histogram).any()
