"""Draft trees: their arithmetic against plain loops, and decoding with trees against decoding without drafts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_case import DRAFT, SAMPLED, Requests, boundary_table, run, tiny_params, tiny_spec

from specexit_jax.decoding import trees
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.decoding.trees import Topology, TreeShape
from specexit_jax.exits.policy import NeverExit, Threshold
from specexit_jax.models.cache import init_cache
from specexit_jax.models.target import Target, init_target_cache

LATE = dataclasses.replace(DRAFT, signals="draft")


def random_topology(batch: int, number: int, seed: int) -> Topology:
    rng = np.random.default_rng(seed)
    parents, depths = np.zeros((batch, number), np.int32), np.zeros((batch, number), np.int32)
    for row in range(batch):
        for node in range(1, number + 1):
            parent = rng.integers(0, node)
            parents[row, node - 1] = parent
            depths[row, node - 1] = 1 + (depths[row, parent - 1] if parent else 0)
    return Topology(jnp.asarray(parents), jnp.asarray(depths))


def line(parents: np.ndarray, node: int) -> list[int]:
    """A node and its ancestors, the root last."""
    found = [node]
    while node:
        node = int(parents[node - 1])
        found.append(node)
    return found


def test_ancestors_and_paths_are_those_of_a_plain_walk():
    topology = random_topology(6, 9, 0)
    parents, depths = np.asarray(topology.parents), np.asarray(topology.depths)
    seen, deepest = trees.ancestors(topology), trees.deepest(topology, 9)
    rng = np.random.default_rng(1)
    nodes, sampled = (rng.integers(0, 3, (6, 10)).astype(np.int32) for _ in range(2))
    path, length = trees.descend(jnp.asarray(nodes), topology, jnp.asarray(sampled), 9)
    longest = 0
    for row in range(6):
        for node in range(10):
            assert set(np.flatnonzero(seen[row, node])) == set(line(parents[row], node))
        walked, here = [0], 0
        while True:
            children = [c for c in range(1, 10) if parents[row, c - 1] == here and nodes[row, c] == sampled[row, here]]
            if not children:
                break
            here = children[0]
            walked.append(here)
        assert int(length[row]) == len(walked)
        assert path[row].tolist() == walked + [walked[-1]] * (10 - len(walked))
        end = int(np.argmax(depths[row])) + 1
        expected = line(parents[row], end)[::-1]
        assert deepest[row, : len(expected)].tolist() == expected
        longest = max(longest, len(walked))
    assert longest > 2


def test_the_verify_pass_sees_each_node_as_if_its_path_were_all_there_is():
    spec, params = tiny_spec(0), tiny_params()
    target = Target(spec.target)
    topology = random_topology(2, 6, 3)
    rng = np.random.default_rng(2)
    prompt, nodes = (jnp.asarray(rng.integers(7, 40, (2, width)), jnp.int32) for width in (5, 7))
    length = jnp.array([5, 3], jnp.int32)  # the second row's prompt is shorter: its last two positions hold rubbish
    cache = init_target_cache(spec.target, 2, 16)
    places = jnp.broadcast_to(jnp.arange(5, dtype=jnp.int32)[None, :], (2, 5))
    cache = target.apply({"params": params.target}, prompt, places, cache).cache.replace(length=length)
    positions = length[:, None] + trees.node_depths(topology)
    out = target.apply(
        {"params": params.target}, nodes, positions, cache, live=14, visible=trees.ancestors(topology)
    )  # fmt: skip
    paths, ends = np.zeros((14, 12), np.int32), []
    for place, (row, node) in enumerate(np.ndindex(2, 7)):
        way = line(np.asarray(topology.parents[row]), node)[::-1]
        path = [*prompt[row, : int(length[row])].tolist(), *np.asarray(nodes)[row, way].tolist()]
        paths[place, : len(path)] = path
        ends.append(len(path) - 1)
    places = np.broadcast_to(np.arange(12, dtype=np.int32), paths.shape)
    alone = target.apply({"params": params.target}, paths, places)
    for place, (row, node) in enumerate(np.ndindex(2, 7)):
        for name in ("logits", "features"):
            expected = getattr(alone, name)[place, ends[place]]
            np.testing.assert_allclose(getattr(out, name)[row, node], expected, rtol=1e-4, atol=1e-5)


def test_compacting_moves_a_path_to_the_front():
    cache = init_cache(2, 1, 2, 2, 12)
    cache = jax.tree.map(lambda leaf: jnp.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape), cache)
    start, path = jnp.array([3, 5], jnp.int32), jnp.array([[0, 2, 5], [0, 1, 1]], jnp.int32)
    moved = trees.compact(cache, start, path)
    for row in range(2):
        first, chosen = int(start[row]), int(start[row]) + np.asarray(path[row])
        for keys, values, old_keys, old_values in zip(moved.k, moved.v, cache.k, cache.v, strict=True):
            np.testing.assert_array_equal(keys[row, ..., first : first + 3], old_keys[row][..., chosen])
            np.testing.assert_array_equal(values[row, :, first : first + 3], old_values[row][:, chosen])
            np.testing.assert_array_equal(keys[row, ..., :first], old_keys[row, ..., :first])
            np.testing.assert_array_equal(values[row, :, first + 3 :], old_values[row, :, first + 3 :])


@pytest.mark.parametrize(
    ("shape", "sampling", "draft", "end"),
    [
        (TreeShape(3, 3, 8), SAMPLED, DRAFT, (2,)),
        (TreeShape(3, 3, 8), Sampling(repetition_penalty=1.5), DRAFT, (2,)),  # the programs of the sampled case
        pytest.param(TreeShape(4, 2, 10), Sampling(repetition_penalty=1.5), DRAFT, (2,), marks=pytest.mark.slow),
        (TreeShape(3, 2, 7), SAMPLED, LATE, (2, 9, 7)),
    ],
    ids=["sampled", "greedy", "greedy-deep", "draft-signals-and-three-token-end"],
)
def test_a_tree_writes_what_no_draft_at_all_writes(shape, sampling, draft, end):
    params, changes = tiny_params(draft=draft), {"sampling": sampling, "draft": draft, "end_think_ids": end}
    exits, accepted, chain = 0, np.zeros(shape.depth + 1, int), np.zeros(shape.depth + 1, int)
    prefixes = (24,) if draft is DRAFT else ()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        policy = Threshold(jnp.array([*rng.uniform(0.2, 0.6, 2), rng.uniform(0.5, 3.0)], jnp.float32))
        arguments = (params, Requests.random(8, seed).rows(), policy, boundary_table())
        plain = run(tiny_spec(0, **changes), *arguments)
        tree = run(tiny_spec(shape.depth, tree=shape, live_prefixes=prefixes, **changes), *arguments)
        for field in ("tokens", "length", "finished", "think_end", "exit_position"):
            np.testing.assert_array_equal(getattr(tree, field), getattr(plain, field), err_msg=field)
        np.testing.assert_allclose(tree.exit_signals, plain.exit_signals, rtol=1e-4, atol=1e-5)
        exits += int((tree.exit_position >= 0).sum())
        accepted += np.asarray(tree.accept_histogram.sum(axis=0))
        if draft is DRAFT:
            chain += np.asarray(run(tiny_spec(shape.depth, **changes), *arguments).accept_histogram.sum(axis=0))
    assert exits >= 4 and accepted[1:].any()
    if draft is DRAFT:
        yields = [
            float((counts * (1 + np.arange(shape.depth + 1))).sum() / counts.sum()) for counts in (accepted, chain)
        ]
        assert yields[0] > yields[1] > 1  # a tree contains the chain


def test_a_row_does_not_depend_on_its_batch():
    spec = tiny_spec(3, tree=TreeShape(3, 2, 6))
    requests = Requests.random(8, 3)
    together = run(spec, tiny_params(), requests.rows(), NeverExit(), boundary_table())
    for row in (0, 5):
        alone = run(spec, tiny_params(), requests.row(row).rows(), NeverExit(), boundary_table())
        for field in ("tokens", "length", "steps", "accept_histogram"):
            np.testing.assert_array_equal(getattr(alone, field)[0], getattr(together, field)[row], err_msg=field)


@pytest.mark.parametrize("tree", [None, TreeShape(3, 2, 6)])
def test_acceptance_can_be_simulated(tree):
    spec = tiny_spec(3, tree=tree, simulate_accept_length=2.4, stop_ids=(), buffer_length=200)
    prompt, length, limit = np.full((2, 4), 8, np.int32), np.full((2,), 4, np.int32), np.full((2,), 200, np.int32)
    keys, closed = jax.random.split(jax.random.key(0), 2), np.zeros((2,), bool)
    rows = Requests(prompt, length, keys, closed, limit).rows()
    result = run(spec, tiny_params(), rows, NeverExit(), boundary_table())
    assert (196 / np.asarray(result.steps)).tolist() == pytest.approx([2.4, 2.4], abs=0.05)


def test_impossible_shapes_are_refused():
    with pytest.raises(ValueError, match="draws 3 drafts"):
        TreeShape(1, 3, 4)
    with pytest.raises(ValueError, match="draft_tokens is 2"):
        tiny_spec(2, tree=TreeShape(3, 2, 6))
    with pytest.raises(ValueError, match="between 1 and 4"):
        tiny_spec(3, simulate_accept_length=4.5)
