"""The distribution of the sampler: whole sequences drawn by the speculative loop against their exact probabilities.

With both rules, chains and trees, with and without a draft vocabulary. A broken rule is detected.
"""

import dataclasses

import jax.numpy as jnp
import pytest
from decoding_case import QUICK
from law_case import (
    COMPUTES,
    DRAFTED,
    PLAIN,
    TARGET,
    TREE,
    VOCABULARY,
    check_law,
    draws,
    exact_probabilities,
    law_params,
    law_spec,
    p_value,
)

from specexit_jax.decoding import verify
from specexit_jax.decoding.drafts import drafting, rejection
from specexit_jax.decoding.drafts import sampled_drafts as drafts_drawn
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.models.target import Target

REJECTION = dataclasses.replace(PLAIN, rule="rejection")
FILTERS = {"top_k": 6, "top_p": 0.95, "min_p": 0.05}
SMALL = len(DRAFTED)
CASES = {
    f"{sampling.rule}-{'tree' if tree else 'chain'}-{'small' if drafted == SMALL else 'full'}": (
        sampling,
        tree,
        drafted,
    )
    for sampling in (PLAIN, REJECTION)
    for tree in (None, TREE)
    for drafted in (SMALL, VOCABULARY)
}
FILTERED = {
    f"{name}-filtered": (dataclasses.replace(sampling, temperature=0.8, **FILTERS), tree, drafted)
    for name, (sampling, tree, drafted) in CASES.items()
    if drafted == SMALL
}
LITTLE = TreeShape(depth=2, top_k=3, total=5)  # quicker to compile


@pytest.mark.parametrize(
    ("sampling", "tree"),
    [
        # its tokens are those of a chain, one by one (test_trees.py), and the law of chains is tested a million times
        pytest.param(PLAIN, LITTLE, marks=pytest.mark.slow),
        (REJECTION, None),
        pytest.param(dataclasses.replace(REJECTION, temperature=0.8, **FILTERS), LITTLE, marks=pytest.mark.slow),
    ],
    ids=["keyed-tree", "rejection-chain", "rejection-tree-filtered"],
)
def test_loop_draws_from_the_model(sampling, tree):
    check_law(law_spec(sampling, tree, SMALL), 100_000)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, *FILTERED])
def test_loop_draws_from_the_model_a_million_times(case):
    check_law(law_spec(*(CASES | FILTERED)[case]), 1_000_000)


def rig_draft(monkeypatch, params):
    """A draft that proposes what most likely follows each token, so that drafts of every length are accepted."""
    vocabulary = jnp.arange(VOCABULARY, dtype=jnp.int32)[:, None]
    best = jnp.argmax(Target(TARGET).apply({"params": params.target}, vocabulary, vocabulary * 0).logits[:, 0], axis=-1)

    def propose(loop, state, pairs, last, live):
        drafts = [best[state.root]]
        for _ in range(loop.spec.draft_tokens - 1):
            drafts.append(best[drafts[-1]])
        return jnp.stack(drafts, axis=1).astype(jnp.int32), pairs.cache

    monkeypatch.setattr(drafting, "propose", propose)


def test_loop_draws_from_the_model_whatever_the_draft(monkeypatch):
    spec = law_spec()
    rig_draft(monkeypatch, law_params(spec))
    check_law(spec, 100_000)


def test_a_lenient_acceptance_is_caught(monkeypatch):
    """The test detects one wrongly accepted draft in a tenth of the steps."""
    strict = verify.accept

    def lenient(drafts, sampled):
        generous = (sampled[:, 0] + sampled[:, -1]) % 8 == 0
        return jnp.maximum(strict(drafts, sampled), generous.astype(jnp.int32))

    monkeypatch.setattr(verify, "accept", lenient)
    spec = law_spec()
    rig_draft(monkeypatch, law_params(spec))
    assert broken_p_value(spec, 100_000) < 1e-6


def target_itself(p, q):
    return p


def unscaled_residual(p, q):
    return jnp.maximum(p - q, 0)


def unscaled_rest(q, token):
    return jnp.where(jnp.arange(q.shape[-1], dtype=jnp.int32)[None, None, :] == token[:, :, None], 0, q)


def no_noise(keys, positions, vocabulary, purpose):
    return jnp.zeros((*positions.shape, vocabulary), jnp.float32)


@pytest.mark.parametrize(
    ("tree", "module", "name", "broken"),
    [
        (None, rejection, "residual", target_itself),
        (LITTLE, rejection, "residual", unscaled_residual),
        (LITTLE, rejection, "without", unscaled_rest),
        (None, drafts_drawn, "keyed_gumbel", no_noise),
    ],
    ids=["residual", "renormalised-p", "renormalised-q", "drafts-not-drawn"],
)
def test_a_broken_rejection_is_caught(monkeypatch, tree, module, name, broken):
    monkeypatch.setattr(module, name, broken)
    assert broken_p_value(law_spec(REJECTION, tree, SMALL), 20_000, QUICK) < 1e-6


def broken_p_value(spec, number: int, options: dict = COMPUTES) -> float:
    params = law_params(spec)
    counts, _ = draws(spec, params, number, options)
    found = p_value(counts, exact_probabilities(spec, params))
    print(f"p = {found:.1e}")
    return found
