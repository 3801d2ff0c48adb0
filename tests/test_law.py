"""The law of the sampler: whole sequences drawn by the speculative loop against their exact probabilities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from specexit_jax.decoding import drafting, verify
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.decoding.spec import DecodeParams, DecodeSpec
from specexit_jax.decoding.speculative import decode
from specexit_jax.exits.policy import NeverExit
from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.models.draft import init_draft
from specexit_jax.models.target import Target, init_target

VOCABULARY, POSITIONS, PROMPT, ROWS = 8, 6, (3, 5), 20_000
TARGET = TargetConfig("llama", VOCABULARY, 8, 8, 2, 1, 1, 4, capture=(0, 1, 1))
DRAFT = DraftConfig(8, 8, 8, 1, 1, 4, VOCABULARY, draft_vocab_size=VOCABULARY, signals="none")
SPEC = DecodeSpec(
    target=TARGET,
    draft=DRAFT,
    draft_tokens=3,
    sampling=Sampling(temperature=0.5),
    buffer_length=len(PROMPT) + POSITIONS,
    stop_ids=(),
    end_think_ids=(0,),
)


def params() -> DecodeParams:
    keys = jax.random.split(jax.random.key(1), 2)
    return DecodeParams(
        init_target(TARGET, keys[0]), init_draft(DRAFT, keys[1]), jnp.arange(VOCABULARY, dtype=jnp.int32)
    )


def exact_probabilities(params: DecodeParams) -> np.ndarray:
    """Of all V^6 continuations of the prompt, in the order of their digits."""
    prefixes = np.indices((VOCABULARY,) * (POSITIONS - 1)).reshape(POSITIONS - 1, -1).T
    tokens = np.concatenate([np.tile(PROMPT, (len(prefixes), 1)), prefixes], axis=1).astype(np.int32)
    positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    logits = jax.jit(Target(TARGET).apply)({"params": params.target}, tokens, positions).logits
    conditional = np.asarray(
        jax.nn.softmax(logits[:, len(PROMPT) - 1 :] / jnp.float32(SPEC.sampling.temperature)), np.float64
    )
    conditional /= conditional.sum(axis=-1, keepdims=True)
    probability = np.ones((len(prefixes), VOCABULARY)) * conditional[:, -1]
    for step in range(POSITIONS - 1):
        probability *= conditional[np.arange(len(prefixes)), step, prefixes[:, step]][:, None]
    return probability.ravel()


def draws(monkeypatch, params: DecodeParams, number: int) -> tuple[np.ndarray, float]:
    """How often each continuation was drawn by the loop, ROWS keys at a time, and its accepted drafts a step.

    The draft proposes what most likely follows each token, so that drafts of every length are accepted.
    """
    vocabulary = jnp.arange(VOCABULARY, dtype=jnp.int32)[:, None]
    best = jnp.argmax(Target(TARGET).apply({"params": params.target}, vocabulary, vocabulary * 0).logits[:, 0], axis=-1)

    def propose(loop, state, pairs, last, live):
        drafts = [best[state.root]]
        for _ in range(SPEC.draft_tokens - 1):
            drafts.append(best[drafts[-1]])
        return jnp.stack(drafts, axis=1).astype(jnp.int32), pairs.cache

    monkeypatch.setattr(drafting, "propose", propose)
    loop = jax.jit(functools.partial(decode.__wrapped__, SPEC))
    prompts = jnp.tile(jnp.asarray([PROMPT], jnp.int32), (ROWS, 1))
    length, limit = (jnp.full((ROWS,), n, jnp.int32) for n in (len(PROMPT), SPEC.buffer_length))
    counts, accepted = np.zeros(VOCABULARY**POSITIONS, np.int64), np.zeros(SPEC.draft_tokens + 1, np.int64)
    for index in range(number // ROWS):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(11), index), ROWS)
        closed, table = jnp.zeros((ROWS,), bool), jnp.zeros((VOCABULARY,), bool)
        result = loop(params, prompts, length, keys, closed, limit, NeverExit(), table)
        drawn = np.asarray(result.tokens[:, len(PROMPT) :])
        counts += np.bincount(drawn @ VOCABULARY ** np.arange(POSITIONS)[::-1], minlength=len(counts))
        accepted += np.asarray(result.accept_histogram.sum(axis=0))
    return counts, float((accepted * np.arange(len(accepted))).sum() / accepted.sum())


def p_value(counts: np.ndarray, probability: np.ndarray) -> float:
    """Chi-square, cells pooled from the rarest up until each expects at least 5 (pooling never looks at the counts)."""
    expected = probability / probability.sum() * counts.sum()
    order = np.argsort(expected, kind="stable")
    cell = np.zeros(len(order), np.int64)
    running, number = 0.0, 0
    for place, value in enumerate(expected[order]):
        cell[place] = number
        running += value
        if running >= 5:
            running, number = 0.0, number + 1
    cell = np.minimum(cell, number - 1)  # what is left over joins the last cell
    pooled = [np.bincount(cell, values[order]) for values in (counts.astype(float), expected)]
    assert pooled[1].min() >= 5
    return float(scipy.stats.chisquare(*pooled).pvalue)


def check_law(monkeypatch, number: int):
    model = params()
    counts, accepted = draws(monkeypatch, model, number)
    assert counts.sum() == number
    assert accepted > 0.15, "drafts must be accepted now and then for the test to mean anything"
    assert p_value(counts, exact_probabilities(model)) > 0.01


def test_loop_draws_from_the_model(monkeypatch):
    check_law(monkeypatch, 200_000)


@pytest.mark.slow
def test_loop_draws_from_the_model_a_million_times(monkeypatch):
    check_law(monkeypatch, 1_000_000)


def test_a_lenient_acceptance_is_rejected(monkeypatch):
    """One draft too many in a tenth of the steps: less than any eye would see."""
    strict = verify.accept

    def lenient(drafts, sampled):
        generous = (sampled[:, 0] + sampled[:, -1]) % 8 == 0
        return jnp.maximum(strict(drafts, sampled), generous.astype(jnp.int32))

    monkeypatch.setattr(verify, "accept", lenient)
    model = params()
    counts, _ = draws(monkeypatch, model, 100_000)
    assert p_value(counts, exact_probabilities(model)) < 1e-6
