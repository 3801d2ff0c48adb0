"""The form of the loop that is traced for GPUs (keys like values, a softmax of its own, ...) writes the same tokens.

It is run on this CPU: what is traced for a platform is a choice of operations, which any backend computes.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_case import DRAFT, QUICK, SAMPLED, Requests, boundary_table, run, tiny_params, tiny_spec

from specexit_jax.backend import tracing_for
from specexit_jax.decoding.loop.speculative import decode
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.exits.policy import unreachable
from specexit_jax.models.cached_attention import attend_fused
from specexit_jax.models.layers import attend, cached_bias


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def for_gpu(spec, params, *arguments):
    with tracing_for("gpu"):
        return decode.__wrapped__(spec, params, *arguments)


@pytest.mark.parametrize(
    ("drafts", "tree", "signals"), [(3, None, "draft"), (3, TreeShape(3, 2, 6), "fc"), (0, None, "fc")], ids=str
)
def test_the_tokens_and_signals_are_those_of_the_cpu(drafts, tree, signals):
    draft = dataclasses.replace(DRAFT, signals=signals)
    spec = tiny_spec(drafts, sampling=SAMPLED, buffer_length=200, tree=tree, draft=draft, record_signals=True)
    spec = dataclasses.replace(spec, live_prefixes=(128,), stop_ids=())
    requests = Requests.random(3, seed=5)
    rows = dataclasses.replace(requests, max_length=np.array([40, 110, 180], np.int32)).rows()
    arguments = spec, tiny_params(draft=draft), rows, unreachable(), boundary_table()
    wanted = run(dataclasses.replace(spec, live_prefixes=()), *arguments[1:])
    found = jax.device_get(for_gpu(spec.bare, arguments[1], spec.rows(rows), *arguments[3:]))
    assert wanted.length.tolist() == [40, 110, 180]
    np.testing.assert_array_equal(found.tokens, wanted.tokens)
    np.testing.assert_array_equal(found.accept_histogram, wanted.accept_histogram)
    np.testing.assert_allclose(found.signals, wanted.signals, rtol=1e-3, atol=1e-4)


def test_the_capacities_are_whole_tiles_and_follow_the_live_prefix():
    spec = tiny_spec(3, buffer_length=3000)
    with tracing_for("gpu"):
        assert all(size % 128 == 0 for size in spec.prefixes)
        assert all(spec.capacities_for(live) == (live, live) for live in spec.prefixes)
        long = tiny_spec(3, buffer_length=32_768)
        assert all(size % 512 == 0 for size in long.prefixes) and long.capacity == 33_280
    assert any(size % 128 for size in spec.prefixes)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 2e-2)])
def test_scores_that_lie_in_memory_have_the_type_of_the_queries(dtype, tolerance):
    """So they are half of what is written and read beside weights and caches. What comes out is near the exact attention."""
    rng = np.random.default_rng(0)
    shapes = (2, 2, 3, 4, 16), (2, 2, 128, 16), (2, 2, 128, 16)
    q, k, v = (jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)
    bias = cached_bias(jnp.array([30, 120], jnp.int32), 4, 128)
    with tracing_for("gpu"):
        traced = jax.jit(attend_fused).trace(q, k, v, bias)
        found = jax.jit(attend_fused, compiler_options=QUICK)(q, k, v, bias)
    scores, _ = (each.outvars[0].aval for each in traced.jaxpr.eqns if each.primitive.name == "dot_general")
    assert scores.shape[-1] == 128 and scores.dtype == dtype
    exact = attend(*(each.astype(jnp.float32) for each in (q, jnp.swapaxes(k, 2, 3), v)), bias)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.astype(np.float32), exact, atol=tolerance, rtol=tolerance)
