"""Logits of training on a mesh: the numbers of one device, and no device holds a whole head."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import random_params

from specexit_jax.backend import on_mesh
from specexit_jax.models.config import TargetConfig
from specexit_jax.models.draft import draft_of, init_draft
from specexit_jax.models.target import Target, init_target
from specexit_jax.parallel.sharding import make_mesh, row_sharding, tree_shardings
from specexit_jax.sizing.presets import draft_for
from specexit_jax.training.teacher import target_pass, teacher_from
from specexit_jax.training.ttt import judge_steps

B, T, V, D, CHUNK = 8, 12, 72, 16, 4


def pass_and_loss(target, draft, d2t, target_params, params, hiddens, tokens):
    """What the target's pass keeps of its logits, and a loss of all judged steps with its gradients."""
    batch = {"tokens": tokens, "positions": tokens, "segment_ids": jnp.ones_like(tokens)}
    seen = target_pass(Target(target), target_params, batch, 1.0, CHUNK)
    told = (seen[name] for name in ("features", "hidden", "logsumexp", "top"))
    teacher = teacher_from(target, target_params, d2t, tokens, *told)

    def loss(params, hiddens):
        chains = judge_steps(draft_of(draft), params, hiddens, teacher, 1.0, CHUNK, remat=True)
        return sum(jnp.sum(chain.loss) for chain in chains), chains

    return seen["logsumexp"], seen["top"], *jax.value_and_grad(loss, (0, 1), has_aux=True)(params, hiddens)


@pytest.mark.parametrize(("kind", "tied"), [("mtp", False), ("eagle3", True)])
def test_a_mesh_gives_the_numbers_of_one_device_and_gathers_no_head(kind, tied):
    target = TargetConfig("llama", V, D, 24, 1, 4, 2, 8, tie_embeddings=tied)
    draft = draft_for(target, kind)
    target = draft.reading(target)
    whole, own = random_params(init_target, target, 1), random_params(init_draft, draft, 2)
    drawn = np.random.default_rng(3)
    hiddens = [jnp.asarray(drawn.normal(size=(B, T, D)), jnp.float32) for _ in range(2)]
    tokens = jnp.asarray(drawn.integers(0, V, (B, T)), jnp.int32)
    function = functools.partial(pass_and_loss, target, draft, jnp.arange(draft.draft_vocab_size, dtype=jnp.int32))
    wanted = jax.jit(function)(whole, own, hiddens, tokens)

    mesh = make_mesh(1, 4, 2)
    placed = [jax.device_put(tree, tree_shardings(tree, mesh)) for tree in (whole, own)]
    placed += [jax.device_put(rows, row_sharding(mesh)) for rows in (hiddens, tokens)]
    with on_mesh(mesh):
        compiled = jax.jit(function).lower(*placed).compile()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), compiled(*placed), wanted)
    sent = re.findall(r"= (.*?) (all-gather|all-to-all)\(", compiled.as_text())
    heads = {f"[{one},{other}]" for size in (V, V // 2) for one, other in ((D, size), (size, D))}  # split over tensor
    assert sent and not [shape for shape, _ in sent if any(head in shape for head in heads)]
    assert not [shape for shape, kind in sent if kind == "all-to-all" and "s32" in shape]  # pairs of an argmax
