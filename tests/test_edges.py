"""The least score that top-k and top-p keep: counting against sorting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from specexit_jax.backend import tracing_for
from specexit_jax.decoding.edges import edge_of
from specexit_jax.decoding.filters import filtered_scores
from specexit_jax.decoding.sampling import Sampling, SamplingRows


def drawn() -> jax.Array:
    """Random scores; scores with ties; scores with -inf and both zeros."""
    rng = np.random.default_rng(3)
    scores = rng.normal(0, 4, (3, 6, 3, 50)).astype(np.float32)
    scores[1] = np.round(scores[1])
    scores[2][rng.random(scores[2].shape) < 0.6] = -np.inf
    scores[2, ..., 7:9] = -0.0, 0.0
    return jnp.asarray(scores)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize(("top_k", "top_p"), [(5, 1.0), (49, 1.0), (0, 0.9), (8, 0.7), (0, 1e-6)])
def test_the_edge_is_that_of_ranking(top_k, top_p, platform):
    scores = drawn()
    ranked = filtered_scores(scores, SamplingRows.of([Sampling(1.0, top_k=top_k, top_p=top_p)])) > -np.inf
    top_k, top_p = (jnp.full((*scores.shape[:-1], 1), *each) for each in ((top_k, jnp.int32), (top_p, jnp.float32)))
    with tracing_for(platform):  # in rounds of one bit, or of four
        edge = edge_of(scores, top_k, top_p)
    np.testing.assert_array_equal((scores >= edge) & (scores > -np.inf), ranked)
