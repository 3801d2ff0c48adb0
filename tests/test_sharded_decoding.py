"""Decoding over meshes of eight virtual devices: the ids of the single device, caches by row and by head."""

import dataclasses
import re

import jax.numpy as jnp
import numpy as np
import pytest
from decoding_case import DRAFT, QUICK, TARGET, Requests, boundary_table, run, slot_request, tiny_params, tiny_spec
from sharded_case import shard_tree

from specexit_jax.backend import on_mesh
from specexit_jax.decoding.loop import segments
from specexit_jax.decoding.loop.speculative import make_loop
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.decoding.spec import DecodeParams
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.engine.scheduler import serve
from specexit_jax.engine.slots import Slots
from specexit_jax.exits.policy import Threshold
from specexit_jax.parallel.sharding import make_mesh

WIDE = dataclasses.replace(TARGET, num_heads=8, num_kv_heads=4)
WIDE_DRAFT = dataclasses.replace(DRAFT, num_heads=8, num_kv_heads=4, signals="draft")
FILTERED = Sampling(0.9, top_k=12, top_p=0.95)
POLICY = Threshold(jnp.array([0.4, 0.4, 1.5], jnp.float32))


def sharded(params: DecodeParams, mesh) -> DecodeParams:
    return params.replace(target=shard_tree(params.target, mesh), draft=shard_tree(params.draft, mesh))


@pytest.mark.parametrize(
    ("sizes", "tree"),
    [
        pytest.param((2, 1, 4), None, marks=pytest.mark.slow),
        pytest.param((8, 1, 1), None, marks=pytest.mark.slow),
        ((1, 2, 4), TreeShape(3, 2, 6)),
    ],
    ids=str,
)
def test_ids_are_those_of_one_device(sizes, tree):
    spec = tiny_spec(3, target=WIDE, draft=WIDE_DRAFT, tree=tree)
    params, requests = tiny_params(WIDE, WIDE_DRAFT), Requests.random(8, 2)
    arguments = (requests.rows(), POLICY, boundary_table())
    alone = run(spec, params, *arguments)
    mesh = make_mesh(*sizes)
    with on_mesh(mesh):
        found = run(spec, sharded(params, mesh), *arguments)
    for field in ("tokens", "length", "finished", "think_end", "exit_position", "steps", "accept_histogram"):
        np.testing.assert_array_equal(getattr(found, field), getattr(alone, field), err_msg=field)
    assert (alone.exit_position >= 0).any() and alone.accept_histogram[:, 1:].any()


def test_slots_over_a_mesh_write_the_same_ids_into_sharded_caches():
    spec = tiny_spec(3, target=WIDE, draft=WIDE_DRAFT, sampling=FILTERED)
    params, requests = tiny_params(WIDE, WIDE_DRAFT), Requests.random(8, 2)
    alone = run(spec, params, requests.rows(), POLICY, boundary_table())
    mesh = make_mesh(2, 1, 4)
    with on_mesh(mesh):
        loop = make_loop(spec, sharded(params, mesh), POLICY, boundary_table())
    slots = Slots(loop, 4, mesh)
    found = {
        row: result for row, result, _ in serve(slots, ((row, slot_request(spec, requests, row)) for row in range(8)))
    }
    for row, result in found.items():
        np.testing.assert_array_equal(result.tokens[0], alone.tokens[row])
    keys = slots.cache.k[0]
    assert keys.addressable_shards[0].data.shape[:2] == (2, 1)  # 4 rows over 2, 4 heads over 4


def test_the_loop_moves_neither_weights_nor_logits():
    """A segment that GSPMD partitions over tensor sums activations and moves no other floats.

    There is no all-to-all or permute of floats, which would mean a kernel reshaped across its split axis, and no all-gather of
    floats, which would mean sorted logits [B, T, V]. Only the ids of the draft vocabulary are gathered.
    """
    target = dataclasses.replace(WIDE, num_layers=2, capture=(0, 1, 1))
    spec, mesh = tiny_spec(3, target=target, draft=WIDE_DRAFT, sampling=FILTERED), make_mesh(2, 1, 4)
    with on_mesh(mesh):
        loop = make_loop(spec, sharded(tiny_params(target, WIDE_DRAFT), mesh), POLICY, boundary_table())
        state = segments.open_slots(loop, 4, 40)
        compiled = segments.segment.lower(loop, 40, state, jnp.int32(9), jnp.int32(4)).compile(QUICK)
    found = re.findall(r"= (.*) ([a-z-]+?)(?:-start)?\(", compiled.as_text())
    moved = [
        (kind, shapes)
        for shapes, kind in found
        if kind == "all-to-all" or (kind in ("collective-permute", "all-gather") and re.search(r"f32\[|bf16\[", shapes))
    ]
    assert not moved
    assert sum(kind == "all-reduce" for _, kind in found) > 10  # it is sharded, and the text has the operations' names


def test_what_does_not_divide_stays_whole():
    """One row over 2 of data, one head over 4 of tensor."""
    spec, params, requests = tiny_spec(2), tiny_params(), Requests.random(8, 4).row(1)
    arguments = (requests.rows(), POLICY, boundary_table())
    alone = run(spec, params, *arguments)
    mesh = make_mesh(2, 1, 4)
    with on_mesh(mesh):
        found = run(spec, sharded(params, mesh), *arguments)
    np.testing.assert_array_equal(found.tokens, alone.tokens)
