"""The kernel of decoding attention in interpret mode: equal to plain attention, and reading only up to each row's
length."""

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
from specexit_jax.models import ragged_attention
from specexit_jax.models.layers import MASKED, attend, cached_bias
from specexit_jax.models.ragged_attention import attend_ragged, block_of
from specexit_jax.parallel.sharding import make_mesh

CAPACITY, SIZE = 328, 16  # in blocks of 128, the third of which reaches past the capacity


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(ragged_attention, "_BLOCK_BYTES", 1)


def case(lengths, tokens, group=3, heads=2, dtype="float32", capacity=CAPACITY):
    """Queries, keys and values of rows that hold `lengths` positions, this call's tokens among them."""
    rng, batch = np.random.default_rng(tokens), len(lengths)
    shapes = (batch, heads, group, tokens, SIZE), (batch, heads, SIZE, capacity), (batch, heads, capacity, SIZE)
    q, k, v = (rng.normal(size=shape).astype(jnp.dtype(dtype)) for shape in shapes)
    return q, k, v, np.asarray(lengths, np.int32)


def topology(batch, tokens):
    """Random trees of `tokens` nodes, the root among them."""
    rng = np.random.default_rng(tokens)
    parents = [[rng.integers(0, node + 1) for node in range(tokens - 1)] for _ in range(batch)]
    return Topology(*[np.asarray(parents, np.int32).reshape(batch, tokens - 1)] * 2)


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def both(live, q, k, v, length, tree=None):
    """Plain attention, and the kernel's with a bias of `live` positions."""
    tokens = q.shape[3]
    bias = cached_bias(length - tokens, tokens, k.shape[3], None if tree is None else ancestors(tree))
    return attend(q, k, v, bias), attend_ragged(q, k, v, bias[:, :, :live], length)


@pytest.mark.parametrize(
    ("lengths", "tokens", "group", "tree", "dtype"),
    [
        ((1, 128, 129, 328), 1, 3, False, "float32"),
        ((4, 131, 256, 327), 4, 1, False, "float32"),
        ((64, 328), 64, 2, True, "float32"),
        ((13, 128, 300), 13, 4, True, "bfloat16"),
    ],
)
def test_equals_attention_over_the_live_positions(lengths, tokens, group, tree, dtype):
    """The bias may have as many positions as the longest row."""
    arguments = case(lengths, tokens, group, dtype=dtype)
    expected, found = both(max(lengths), *arguments, topology(len(lengths), tokens) if tree else None)
    assert found.dtype == expected.dtype
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), atol=tolerance, rtol=tolerance)


def test_what_lies_past_a_row_is_never_read():
    """Neither in later blocks nor in the rest of the row's last block."""
    q, k, v, length = case((3, 127, 128, 200), 3)
    _, clean = both(CAPACITY, q, k, v, length)
    past = np.arange(CAPACITY)[None, :] >= length[:, None]
    k, v = (
        np.where(where, np.float32(np.nan), x) for where, x in ((past[:, None, None], k), (past[:, None, :, None], v))
    )
    expected, found = both(CAPACITY, q, k, v, length)
    assert np.isnan(expected).any()
    np.testing.assert_array_equal(found, clean)


def test_one_block_and_queries_that_see_nothing():
    """Queries that see nothing get the mean of the row's values."""
    q, k, v, length = case((5, 48), 4, capacity=48)
    expected, found = both(48, q, k, v, length)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    nothing = jnp.full((2, 4, 48), MASKED, jnp.float32)
    blind = jax.jit(attend_ragged, compiler_options=QUICK)(q, k, v, nothing, length)
    np.testing.assert_allclose(blind[0, 0, 0, 0], v[0, 0, :5].mean(axis=0), atol=1e-5)


def test_blocks_are_as_large_as_pays(monkeypatch):
    monkeypatch.undo()
    assert block_of(4096, 8 * 128 * 4) == 512  # 8 heads of 128 in bfloat16: 2 MiB
    assert block_of(4096, 2 * 128 * 4) == 1024
    assert block_of(4096, 64 * 128 * 8) == 128
    assert block_of(272, 2 * 128 * 4) == 272


@pytest.mark.parametrize(("batch", "heads"), [(8, 4), (3, 2)])
def test_under_a_mesh_every_device_has_its_rows_and_heads(batch, heads):
    """Rows or heads that a mesh axis does not divide are on every device."""
    arguments = case((5, 9, 130, 4, 200, 328, 64, 7)[:batch], 4, heads=heads)
    with on_mesh(make_mesh(2, 1, 4)):
        expected, found = both(CAPACITY, *arguments)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.addressable_shards[0].data.shape[:2] == ((4, 1) if batch == 8 else (batch, heads))


@pytest.mark.parametrize(
    "sizes", [None, pytest.param((2, 1, 4), marks=pytest.mark.slow)], ids=["chain", "tree-on-a-mesh"]
)
def test_decoding_writes_the_same_ids(sizes):
    """Over buffers of two blocks: chains on one device, trees on eight with rows and heads apart."""
    target = dataclasses.replace(TARGET, num_heads=8, num_kv_heads=4)
    draft = dataclasses.replace(DRAFT, num_heads=8, num_kv_heads=4)
    policy = Threshold(jnp.array([0.4, 0.4, 1.5], jnp.float32))
    params, requests = tiny_params(target, draft), Requests.random(8, 2)
    arguments = (requests.rows(), policy, boundary_table())
    plain = tiny_spec(3, target=target, draft=draft, buffer_length=150)
    target, draft = (dataclasses.replace(config, attention="pallas") for config in (target, draft))
    chain = dataclasses.replace(plain, target=target, draft=draft, live_prefixes=(24,))
    tree = dataclasses.replace(chain, tree=TreeShape(3, 2, 6))
    assert tree.prefixes == (256,) and tree.capacities_for(256) == (256, 256) and tree.prompt_capacities == (128, 256)
    expected, mesh = run(plain, params, *arguments), make_mesh(*sizes) if sizes else None
    with on_mesh(mesh):
        if mesh:
            params = params.replace(target=shard_tree(params.target, mesh), draft=shard_tree(params.draft, mesh))
        found = run(tree if mesh else chain, params, *arguments)
    for field in ("tokens", "length", "finished", "think_end", "exit_position"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field), err_msg=field)
    if not mesh:
        np.testing.assert_array_equal(found.accept_histogram, expected.accept_histogram)
    assert expected.accept_histogram[:, 1:].any() and (expected.exit_position >= 0).any()


def test_other_choices_are_refused():
    with pytest.raises(ValueError, match="attention 'triton' is unknown"):
        dataclasses.replace(TARGET, attention="triton")
    with pytest.raises(ValueError, match="attention 'cudnn' is unknown"):
        dataclasses.replace(DRAFT, attention="cudnn")
    arguments = jax.tree.map(jnp.asarray, case((5,), 4))
    with tracing_for("gpu"), pytest.raises(ValueError, match="see split_attention"):
        attend_ragged(*arguments[:3], jnp.zeros((1, 4, CAPACITY), jnp.float32), arguments[3])
