"""The kernels of a GPU's decoding step, interpreted: equal to plain attention, norms, rotation and writes; lowered for CUDA."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_case import DRAFT, QUICK, TARGET, Requests, boundary_table, run, tiny_params, tiny_spec
from sharded_case import shard_tree

from specexit_jax.backend import on_mesh, tracing_for
from specexit_jax.decoding.trees import Topology, TreeShape, ancestors
from specexit_jax.exits.policy import Threshold
from specexit_jax.models import split_attention
from specexit_jax.models.cache import write
from specexit_jax.models.fused_write import rotate_and_write
from specexit_jax.models.layers import MASKED, attend, cached_bias, rms_norm, rotary_angles, rotate
from specexit_jax.models.split_attention import attend_split, blocks_of
from specexit_jax.parallel.sharding import make_mesh

SIZE = 16


@pytest.fixture
def gpu():
    """The GPU's form, run on this CPU."""
    with tracing_for("gpu", interpreted=True):
        yield


def case(lengths, tokens, group, capacity, dtype="float32", heads=2, seed=0):
    """Queries, keys and values of rows that hold `lengths` positions, this call's tokens among them."""
    rng, batch = np.random.default_rng(seed), len(lengths)
    shapes = (batch, heads, group, tokens, SIZE), (batch, heads, capacity, SIZE), (batch, heads, capacity, SIZE)
    return *(jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes), jnp.asarray(lengths, jnp.int32)


def trees(batch, tokens):
    """Random trees of `tokens` nodes, the root among them."""
    rng = np.random.default_rng(tokens)
    parents = [[rng.integers(0, node + 1) for node in range(tokens - 1)] for _ in range(batch)]
    return Topology(*[np.asarray(parents, np.int32).reshape(batch, tokens - 1)] * 2)


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK)
def both(live, programs, q, k, v, length, tree=None):
    """Plain attention, and the kernel's with a bias of `live` positions, what lies past a row being no numbers."""
    tokens = q.shape[3]
    bias = cached_bias(length - tokens, tokens, k.shape[2], None if tree is None else ancestors(tree))
    past = (jnp.arange(k.shape[2])[None, :] >= length[:, None])[:, None, :, None]
    spoilt = (jnp.where(past, jnp.asarray(jnp.nan, x.dtype), x) for x in (k, v))
    return attend(q, jnp.swapaxes(k, 2, 3), v, bias), attend_split(q, *spoilt, bias[:, :, :live], length)


@pytest.mark.parametrize(
    ("lengths", "tokens", "group", "capacity", "tree", "programs", "dtype"),
    [
        ((1, 64, 65, 256), 1, 3, 256, False, 264, "float32"),  # fewer queries than a program has
        ((4, 131, 256, 192), 4, 4, 256, False, 1, "float32"),  # all blocks of a row in one split
        ((64, 328), 64, 2, 336, True, 24, "float32"),  # two bands of queries, three splits of blocks of 16 positions
        ((13, 128, 300), 13, 6, 320, True, 264, "bfloat16"),
    ],
)
def test_equals_attention_over_the_live_positions(
    gpu, monkeypatch, lengths, tokens, group, capacity, tree, programs, dtype
):
    """Whatever lies past a row, in later blocks and in its last. The bias may have as many positions as the longest row."""
    monkeypatch.setattr(split_attention, "_PROGRAMS", programs)
    arguments = case(lengths, tokens, group, capacity, dtype)
    expected, found = both(max(lengths), programs, *arguments, trees(len(lengths), tokens) if tree else None)
    assert found.dtype == expected.dtype
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("splits", [1, 3, 5])
@pytest.mark.parametrize("live", [1, 16, 17, 80, 336])
def test_splits_share_the_blocks_of_the_live_positions(splits, live):
    """Each once, and none past them."""
    visited = []
    for split in range(splits):
        begin, steps = blocks_of(jnp.int32(split), splits, jnp.int32(live), 16)
        visited += range(int(begin), int(begin) + int(steps))
    assert visited == list(range(-(-live // 16)))


def test_queries_that_see_nothing_get_the_mean_of_the_rows_values(gpu):
    q, k, v, length = case((5, 48), 4, 3, 64)
    nothing = jnp.full((2, 4, 64), MASKED, jnp.float32)
    blind = jax.jit(attend_split, compiler_options=QUICK)(q, k, v, nothing, length)
    np.testing.assert_allclose(blind[0, 0, 0, 0], v[0, 0, :5].mean(axis=0), atol=1e-5)


@pytest.mark.parametrize(
    ("lengths", "tokens", "normed", "dtype"),
    [((5, 130, 252), 4, True, "float32"), ((13,), 1, False, "float32"), ((60, 100), 6, True, "bfloat16")],
)
def test_norms_rotation_and_both_writes(gpu, lengths, tokens, normed, dtype):
    """As `layers.rms_norm`, `layers.rotate` and `cache.write`; other positions of the cache are as they were."""
    rng, group = np.random.default_rng(1), 3
    _, k, v, length = case(lengths, tokens, group, 256, dtype)
    qkv = jnp.asarray(rng.normal(size=(len(lengths), tokens, 2, group + 2, SIZE)), dtype)
    norms = tuple(jnp.asarray(rng.normal(size=SIZE), dtype) for _ in range(2)) if normed else None
    cos, sin = rotary_angles(length[:, None] + jnp.arange(tokens, dtype=jnp.int32)[None], SIZE, 1e4, None)

    def plain(qkv, k, v):
        qkv = jnp.transpose(qkv, (0, 2, 3, 1, 4))
        q, own = qkv[:, :, :-2], qkv[:, :, -2:-1]
        if normed:
            q, own = rms_norm(q, norms[0], 1e-6), rms_norm(own, norms[1], 1e-6)
        q, own = rotate(q, cos, sin), rotate(own, cos, sin)
        return q, *write((k, v), own[:, :, 0], qkv[:, :, -1], length)

    def kernel(qkv, k, v):
        return rotate_and_write(qkv, k, v, cos, sin, length, norms, 1e-6)

    expected, found = (jax.jit(each, compiler_options=QUICK)(qkv, k, v) for each in (plain, kernel))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        tolerance = 1e-5 if dtype == "float32" else 4e-2
        np.testing.assert_allclose(one.astype(np.float32), other.astype(np.float32), atol=tolerance, rtol=tolerance)
    here = (np.arange(256) >= np.asarray(length)[:, None]) & (np.arange(256) < np.asarray(length)[:, None] + tokens)
    for cache, before in ((found[1], k), (found[2], v)):
        same = (np.asarray(cache) == np.asarray(before)).all(axis=(1, 3))
        np.testing.assert_array_equal(same, ~here)


def test_heads_and_capacities_that_do_not_fit_are_refused(gpu):
    q, k, v, length = case((5,), 2, 3, 72)
    bias = jnp.zeros((1, 2, 72), jnp.float32)
    with pytest.raises(ValueError, match="multiple of 16 positions, not 72"):
        attend_split(q, k, v, bias, length)
    with pytest.raises(ValueError, match=r"16, 32, 64, \.\.\. numbers, not 12"):
        attend_split(*(x[..., :12] for x in (q, k, v)), bias, length)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_both_lower_for_cuda(dtype):
    """To Triton's code, of which a compiler for GPUs makes a program (`tests/test_ahead.py`)."""
    q, k, v, length = jax.eval_shape(lambda: case((5, 9), 4, 6, 128, dtype))
    qkv, angles = jax.ShapeDtypeStruct((2, 4, 2, 8, SIZE), dtype), jax.ShapeDtypeStruct((2, 4, SIZE), "float32")
    bias, scale = jax.ShapeDtypeStruct((2, 4, 128), "float32"), jax.ShapeDtypeStruct((SIZE,), dtype)

    def step(q, qkv, k, v, cos, sin, bias, length, scale):
        written = rotate_and_write(qkv, k, v, cos, sin, length, (scale, scale), 1e-6)
        return attend_split(written[0] + q, *written[1:], bias, length + 4)

    with tracing_for("gpu"):
        traced = jax.jit(step).trace(q, qkv, k, v, angles, angles, bias, length, scale)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("__gpu$xla.gpu.triton") == 2
    assert "output_operand_aliases" in text, "the caches are written in place"


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [None, (2, 1, 4)])
def test_decoding_writes_the_same_ids(sizes):
    """As a CPU's plain form: trees on eight devices with rows and heads apart, chains on one; two live prefixes."""
    target = dataclasses.replace(TARGET, num_heads=8, num_kv_heads=4, head_dim=SIZE)
    draft = dataclasses.replace(DRAFT, num_heads=8, num_kv_heads=4, head_dim=SIZE)
    policy = Threshold(jnp.array([0.4, 0.4, 1.5], jnp.float32))
    params, requests = tiny_params(target, draft), Requests.random(8, 2)
    arguments = (requests.rows(), policy, boundary_table())
    plain = tiny_spec(3, target=target, draft=draft, buffer_length=150)
    expected = run(plain, params, *arguments)
    assert expected.accept_histogram[:, 1:].any() and (expected.exit_position >= 0).any()
    target, draft = (dataclasses.replace(config, attention="pallas") for config in (target, draft))
    spec = dataclasses.replace(plain, target=target, draft=draft, live_prefixes=(24,))
    mesh = make_mesh(*sizes) if sizes else None
    with tracing_for("gpu", interpreted=True), on_mesh(mesh):
        assert spec.prefixes == (128, 256)
        if mesh:
            spec = dataclasses.replace(spec, tree=TreeShape(3, 2, 6))
            params = params.replace(target=shard_tree(params.target, mesh), draft=shard_tree(params.draft, mesh))
        found = run(spec, params, *arguments)
    for field in ("tokens", "length", "finished", "think_end", "exit_position"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field), err_msg=field)
    if not mesh:
        np.testing.assert_array_equal(found.accept_histogram, expected.accept_histogram)
