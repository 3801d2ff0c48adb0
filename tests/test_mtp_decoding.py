"""Decoding with an MTP draft: chain, tree, slots and meshes write what decoding without drafts writes, up to the exit."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest
from decoding_case import TARGET, VOCABULARY, Requests, boundary_table, run, slot_request, tiny_params, tiny_spec
from sharded_case import shard_tree

from specexit_jax.annotation.features import extract
from specexit_jax.backend import on_mesh
from specexit_jax.decoding.loop.speculative import make_loop
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.engine.scheduler import serve
from specexit_jax.engine.slots import Slots
from specexit_jax.exits.policy import Threshold
from specexit_jax.models.draft_layer import DraftBundle
from specexit_jax.models.mtp_config import FAMILIES, mtp_config
from specexit_jax.parallel.sharding import make_mesh

GREEDY = Sampling()
SAMPLED = Sampling(temperature=0.9)
TREE = TreeShape(3, 2, 6)
WIDE = dataclasses.replace(TARGET, num_heads=8, num_kv_heads=4)
POLICY = Threshold(jnp.array([0.3, 0.3, 3.0], jnp.float32))
WRITTEN = ("tokens", "length", "finished", "think_end", "exit_position")


@functools.cache
def case(family="mimo", target=TARGET):
    """(target giving what the draft reads, draft, parameters) where the draft often says what the target does: its layer adds
    little to the target's hidden, which it passes on."""
    draft = mtp_config(target, family)
    params = tiny_params(target, draft)
    layer = dict(params.draft)
    halves = [jnp.eye(16, dtype=jnp.float32), jnp.zeros((16, 16), jnp.float32)]
    if draft.order == "embedding_first":
        halves.reverse()
    layer["projection"] = jnp.concatenate(halves) + 0.1 * layer["projection"]
    return draft.reading(target), draft, params.replace(draft=layer, d2t=jnp.arange(VOCABULARY, dtype=jnp.int32))


def decoded(draft_tokens, seed, sampling, policy=POLICY, family="mimo", **changes):
    target, draft, params = case(family)
    spec = tiny_spec(draft_tokens, target=target, draft=draft, sampling=sampling, **changes)
    return run(spec, params, Requests.random(8, seed).rows(), policy, boundary_table())


def plain(seed, sampling):
    """Without drafts and exits, by the program of `test_speculative`."""
    spec, never = tiny_spec(0, sampling=sampling), Threshold(jnp.array([2.0, 2.0, -1.0], jnp.float32))
    return run(spec, tiny_params(), Requests.random(8, seed).rows(), never, boundary_table())


def assert_written(found, plain, fields=WRITTEN):
    for field in fields:
        np.testing.assert_array_equal(getattr(found, field), getattr(plain, field), err_msg=field)


def test_a_chain_writes_the_tokens_of_plain_decoding_up_to_the_exit():
    """The signals of the loop are, token for token, those of a pass over what was written: an offset anywhere would show."""
    target, draft, params = case()
    bundle, accepted, exits = DraftBundle(draft, params.draft, params.d2t), np.zeros(4, int), 0
    for seed, sampling in enumerate((GREEDY, SAMPLED)):
        own = plain(seed, sampling)
        found = decoded(3, seed, sampling, record_signals=True)
        traces, starts = [], np.asarray(Requests.random(8, seed).prompt_length)
        for row, exit_at in enumerate(found.exit_position):
            last = int(found.length[row]) if exit_at < 0 else int(exit_at)
            assert found.tokens[row, :last].tolist() == own.tokens[row, :last].tolist()
            assert exit_at >= 0 or last == own.length[row]
            ids = found.tokens[row, : int(found.length[row])].tolist()
            traces.append({"id": str(row), "prompt_ids": ids[: starts[row]], "ids": ids[starts[row] :]})
        along = extract(target, params.target, (2,), traces, bundle).signals
        for row, start in enumerate(starts):
            seen = found.signals[row, start : int(found.length[row])]
            last = len(seen) - bool(found.finished[row])  # the loop makes none for a stop token
            np.testing.assert_allclose(along[str(row)][:last, :3], seen[:last], atol=1e-4)
        accepted += found.accept_histogram.sum(axis=0)
        exits += int((found.exit_position >= 0).sum())
    assert exits and accepted[1:].sum() >= 8, (exits, accepted)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tree", [None, TREE], ids=["chain", "tree"])
def test_500_prompts_are_decoded_as_without_drafts(family, tree):
    """Exits by the same signals too, which without drafts are read by the layer alone."""
    exits, accepted = 0, np.zeros(4, int)
    for sampling in (GREEDY, SAMPLED):
        for seed in range(63):
            probed = decoded(0, seed, sampling, family=family)
            found = decoded(3, seed, sampling, family=family, tree=tree)
            assert_written(found, probed)
            free = plain(seed, sampling)
            for row, exit_at in enumerate(found.exit_position):
                last = int(found.length[row]) if exit_at < 0 else int(exit_at)
                assert found.tokens[row, :last].tolist() == free.tokens[row, :last].tolist()
            exits += int((found.exit_position >= 0).sum())
            accepted += found.accept_histogram.sum(axis=0)
    assert exits >= 20 and accepted.min() > 20


@pytest.mark.slow
def test_slots_write_what_a_batch_writes():
    target, draft, params = case()
    spec, requests = tiny_spec(3, target=target, draft=draft, sampling=SAMPLED), Requests.random(8, 2)
    alone = run(spec, params, requests.rows(), POLICY, boundary_table())
    slots = Slots(make_loop(spec, params, POLICY, boundary_table()), 3)
    served = serve(slots, ((row, slot_request(spec, requests, row)) for row in range(8)))
    for row, result, _ in served:
        for field in WRITTEN:
            np.testing.assert_array_equal(getattr(result, field)[0], getattr(alone, field)[row], err_msg=field)


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "tree"), [((1, 2, 4), None), ((2, 1, 4), TREE)], ids=str)
def test_ids_over_a_mesh_are_those_of_one_device(sizes, tree):
    target, draft, params = case("qwen3_next", WIDE)
    spec = tiny_spec(3, target=target, draft=draft, tree=tree)
    arguments = (Requests.random(8, 2).rows(), POLICY, boundary_table())
    alone = run(spec, params, *arguments)
    mesh = make_mesh(*sizes)
    with on_mesh(mesh):
        shared = params.replace(target=shard_tree(params.target, mesh), draft=shard_tree(params.draft, mesh))
        found = run(spec, shared, *arguments)
    assert_written(found, alone)
    assert alone.accept_histogram[:, 1:].any()
