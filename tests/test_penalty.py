"""The repetition penalty against that of transformers; the ids before each node of a tree."""

import jax.numpy as jnp
import numpy as np
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from specexit_jax.decoding.penalty import penalised, seen_before, seen_by_nodes
from specexit_jax.decoding.sampling import Sampling, SamplingRows


def test_logits_are_those_of_transformers():
    rng = np.random.default_rng(0)
    tokens, logits = rng.integers(0, 30, (3, 12)), rng.normal(0, 3, (3, 1, 30)).astype(np.float32)
    seen = seen_before(jnp.asarray(tokens, jnp.int32), jnp.full((3, 1), 9, jnp.int32), 30)
    processor = RepetitionPenaltyLogitsProcessor(1.3)
    theirs = processor(torch.from_numpy(tokens[:, :9]), torch.from_numpy(logits[:, 0].copy()))
    found = penalised(jnp.asarray(logits), seen, SamplingRows.of([Sampling(repetition_penalty=1.3)]))
    np.testing.assert_allclose(found[:, 0], theirs.numpy(), rtol=1e-6)


def test_a_node_has_its_ancestors_before_it():
    """Node 0 is the root; 1 and 2 are its children, 3 is the child of 2."""
    visible = jnp.asarray([[[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]], bool)
    tokens, length = jnp.asarray([[7, 8, 9, 9]], jnp.int32), jnp.asarray([2], jnp.int32)
    seen = seen_by_nodes(tokens, length, jnp.asarray([[1, 2, 3, 4]], jnp.int32), visible, 10)
    found = [set(np.flatnonzero(row).tolist()) for row in np.asarray(seen)[0]]
    assert found == [{7, 8, 1}, {7, 8, 1, 2}, {7, 8, 1, 3}, {7, 8, 1, 3, 4}]
