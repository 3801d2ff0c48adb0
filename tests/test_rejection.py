"""Rejection sampling: one step against plain loops, and the loop around it (batches, exits, ends, limits, segments)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_case import DRAFT, QUICK, VOCABULARY, Requests, boundary_table, run, slot_request, tiny_params, tiny_spec

from specexit_jax.decoding.drafts import rejection, sampled_drafts
from specexit_jax.decoding.loop.speculative import make_loop
from specexit_jax.decoding.sampling import ACCEPT, RESIDUAL, Sampling, SamplingRows, keyed_gumbel, keyed_uniform
from specexit_jax.decoding.spec import LoopContext
from specexit_jax.decoding.trees import Topology, TreeShape
from specexit_jax.engine.slots import Slots
from specexit_jax.exits.policy import NeverExit, Threshold

SAMPLED = Sampling(temperature=1.5, top_k=12, rule="rejection")
TREE = TreeShape(3, 4, 9)
END = (2, 9, 7)
SHAPES = pytest.mark.parametrize("tree", [None, TREE], ids=["chain", "tree"])
FIELDS = ("tokens", "length", "finished", "think_end", "exit_position", "steps", "accept_histogram")


@functools.cache
def params_of(draft=DRAFT):
    return tiny_params(draft=draft)


def rejecting_spec(tree=None, **changes):
    return tiny_spec(3, tree=tree, **({"sampling": SAMPLED, "end_think_ids": END} | changes))


def policy() -> Threshold:
    """Thresholds that a random model's signals pass at some boundaries."""
    return Threshold(jnp.array([0.4, 0.4, 2.0], jnp.float32))


def random_law(rng, *shape, kept=1.0):
    law = rng.random(shape) ** 3 * (rng.random(shape) < kept)
    law[..., 0] += 1e-3
    return law / law.sum(axis=-1, keepdims=True)


def reference(p, q, children, chances, noise):
    """The rule for one node, as the papers describe it: (the token, the number of children that were rejected before it)."""
    for refused, (child, chance) in enumerate(zip(children, chances, strict=False)):
        if q[child] == 0:
            continue
        if chance < p[child] / q[child]:
            return child, refused
        left = np.maximum(p - q, 0)
        p = left / left.sum()
        q = np.where(np.arange(len(q)) == child, 0, q)
        q = q / q.sum() if q.sum() > 0 else q
    with np.errstate(divide="ignore"):
        return int(np.argmax(np.log(p) + noise)), len(children)


@SHAPES
def test_a_step_is_what_a_plain_loop_writes(tree):
    """A state of 40 rows. q has fewer tokens than a node has children, so some children are not drawn."""
    rows, width, rng = 40, DRAFT.draft_vocab_size, np.random.default_rng(0)
    spec, params = rejecting_spec(tree, sampling=dataclasses.replace(SAMPLED, temperature=1.0, top_k=0)), params_of()
    parents = np.array([0, 0, 0, 1, 1, 2, 4, 4, 6] if tree else [0, 1, 2])
    depths = np.array([1, 1, 1, 2, 2, 2, 3, 3, 3] if tree else [1, 2, 3])
    nodes = 7 if tree else 3
    p = random_law(rng, rows, len(parents) + 1, VOCABULARY, kept=0.7)
    proposal = random_law(rng, rows, nodes, width, kept=0.15 if tree else 1.0)
    d2t = np.asarray(params.d2t)
    q = np.zeros((rows, len(parents) + 1, VOCABULARY))
    q[:, :nodes, d2t] = proposal
    drafts = np.zeros((rows, len(parents)), np.int32)
    for row in range(rows):
        for node in range(nodes):
            born = np.flatnonzero(parents == node)
            noise = rng.gumbel(size=width)
            with np.errstate(divide="ignore"):
                drafts[row, born] = d2t[np.argsort(-(np.log(proposal[row, node]) + noise))[: len(born)]]
    keys, length = jax.random.split(jax.random.key(3), rows), np.arange(rows, dtype=np.int32)
    topology = Topology(*(jnp.asarray(np.tile(values, (rows, 1)), jnp.int32) for values in (parents, depths)))
    state = dataclasses.make_dataclass("State", ["length", "keys", "drafts", "topology", "proposal", "sampling"])(
        jnp.asarray(length),
        keys,
        jnp.asarray(drafts),
        topology if tree else None,
        jnp.asarray(proposal, jnp.float32),
        SamplingRows.of([spec.sampling] * rows),
    )
    with np.errstate(divide="ignore"):
        logits = jnp.asarray(np.log(p), jnp.float32)
    loop = LoopContext(spec, params, NeverExit(), boundary_table())
    found = np.asarray(jax.jit(lambda logits: rejection.sample(loop, state, logits), compiler_options=QUICK)(logits))
    ahead = jnp.asarray(length[:, None] + np.arange(1, 5, dtype=np.int32)[None])
    chances = np.asarray(keyed_uniform(keys, ahead, tree.siblings if tree else 1, ACCEPT), np.float64)
    noise = np.asarray(keyed_gumbel(keys, ahead, VOCABULARY, RESIDUAL), np.float64)
    refusals = np.zeros(4, int)
    for row in range(rows):
        for node, depth in enumerate((0, *depths)):
            children = drafts[row, parents == node].tolist()
            law = (p[row, node], q[row, node], children, chances[row, depth], noise[row, depth])
            token, refused = reference(*law)
            assert found[row, node] == token
            refusals[refused] += 1
    assert refusals[: 4 if tree else 2].min() > 5, "children of every rank must be accepted, and all refused"


@SHAPES
def test_a_row_does_not_depend_on_its_batch(tree):
    spec, requests, params = rejecting_spec(tree), Requests.random(8, 1), params_of()
    together = run(spec, params, requests.rows(), policy(), boundary_table())
    assert (together.exit_position >= 0).any()
    assert together.finished.any()
    assert together.accept_histogram[:, 1:].sum() > 5
    for row in range(8):
        alone = run(spec, params, requests.row(row).rows(), policy(), boundary_table())
        for field in FIELDS:
            np.testing.assert_array_equal(getattr(alone, field)[0], getattr(together, field)[row], err_msg=field)


@SHAPES
def test_exits_ends_and_limits_hold(tree):
    """Whatever is sampled: an exit writes all ids of `</think>`, a stop token is the last token, and limits hold."""
    exits, stops, full = 0, 0, 0
    spec, params = rejecting_spec(tree), params_of()
    for seed in range(4):
        requests = Requests.random(8, seed)
        result = run(spec, params, requests.rows(), policy(), boundary_table())
        for row in range(8):
            length, limit = int(result.length[row]), int(requests.max_length[row])
            written = result.tokens[row, int(requests.prompt_length[row]) : length].tolist()
            assert length <= limit
            assert (1 in written) == bool(result.finished[row])
            assert 1 not in written[:-1]
            start = int(result.exit_position[row])
            if start >= 0:
                assert result.tokens[row, start : min(start + 3, length)].tolist() == [*END][: length - start]
            exits, stops, full = exits + (start >= 0), stops + (1 in written), full + (length == limit)
    assert min(exits, stops, full) > 2


@SHAPES
def test_pieces_write_what_the_whole_writes(tree):
    spec, requests, params = rejecting_spec(tree), Requests.random(8, 5), params_of()
    whole = run(spec, params, requests.rows(), policy(), boundary_table())
    slots = Slots(make_loop(spec, params, policy(), boundary_table()), 2)
    for row in (1, 0):
        slots.admit(row, slot_request(spec, requests, row))
        slots.run(steps=2)
    slots.run()
    for row in range(2):
        for field in FIELDS:
            found, expected = getattr(slots.result(row), field)[0], getattr(whole, field)[row]
            np.testing.assert_array_equal(found, expected, err_msg=field)


@SHAPES
def test_a_draft_that_equals_the_target_is_never_refused(tree):
    draft = dataclasses.replace(DRAFT, draft_vocab_size=VOCABULARY)
    params = params_of(draft)
    target = params.target | {"lm_head": jnp.zeros_like(params.target["lm_head"])}
    silent = params.draft | {"lm_head": jnp.zeros_like(params.draft["lm_head"])}
    params = params.replace(target=target, draft=silent)
    spec = rejecting_spec(tree, draft=draft, stop_ids=(), sampling=dataclasses.replace(SAMPLED, top_k=0))
    result = run(spec, params, Requests.random(8, 0).rows(), NeverExit(), boundary_table())
    if tree is None:
        assert result.accept_histogram[:, :3].sum() == 0
    assert result.accept_histogram[:, 0].sum() == 0  # the first child; a tree does not give one to all of its nodes
    assert result.accept_histogram[:, 1:].sum() > 20


@pytest.mark.parametrize(("draft_tokens", "temperature"), [(0, 0.9), (3, 0.0)], ids=["no-drafts", "greedy"])
def test_nothing_is_rejected_where_nothing_is_drawn(draft_tokens, temperature):
    """Greedy rows in a program of the rule, as beside sampled ones."""
    keyed = tiny_spec(draft_tokens, sampling=Sampling(temperature))
    spec = tiny_spec(draft_tokens, sampling=Sampling(0.9, rule="rejection"))
    assert spec.rule != keyed.rule
    arguments = (params_of(), Requests.random(8, 0).rows(), NeverExit(), boundary_table())
    np.testing.assert_array_equal(run(spec, *arguments, keyed).tokens, run(keyed, *arguments).tokens)


def test_drafts_of_a_node_are_shared_out_by_what_they_are_worth():
    q = jnp.asarray([[[0.6, 0.3, 0.1], [0.1, 0.1, 0.8]]], jnp.float32)
    worth = jnp.log(jnp.asarray([[0.5, 0.25]], jnp.float32))
    # Children of the first node have path probabilities .3, .15, .05, those of the second .2, .025, .025.
    for size, places in ((1, [0]), (3, [0, 1, 3]), (4, [0, 1, 2, 3]), (5, [0, 1, 2, 3, 4])):
        assert sampled_drafts.children_per_node(worth, jnp.log(q), size, 3).tolist() == [places]


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((6, 10, 60), (10,) * 6),
        ((3, 4, 9), (3, 3, 3)),
        ((3, 3, 8), (3, 3, 2)),
        ((3, 2, 8), (2, 2, 4)),
        ((3, 2, 2), (1, 1)),
        ((1, 4, 3), (3,)),
    ],
)
def test_a_depth_has_a_fixed_number_of_nodes(shape, sizes):
    assert TreeShape(*shape).sizes == sizes


def test_a_tree_with_more_nodes_than_rejection_sampling_can_fix_is_refused():
    with pytest.raises(ValueError, match="has at most 8 nodes, not 9"):
        rejecting_spec(TreeShape(3, 2, 9))
    assert tiny_spec(3, tree=TreeShape(3, 2, 9)).drafted == 9
