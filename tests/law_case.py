"""A tiny random target and draft: sequences that the loop samples, and their exact probabilities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from decoding_case import SampledSpec

from specexit_jax.decoding.filters import filtered_scores
from specexit_jax.decoding.loop.speculative import decode
from specexit_jax.decoding.rows import PromptRows
from specexit_jax.decoding.sampling import Sampling, SamplingRows
from specexit_jax.decoding.spec import DecodeParams
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.exits.boundaries import TokenBoundaries
from specexit_jax.exits.policy import NeverExit
from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.models.draft import init_draft
from specexit_jax.models.target import Target, init_target

VOCABULARY, POSITIONS, PROMPT, ROWS = 8, 6, (3, 5), 20_000
DRAFTED = (0, 1, 3, 4, 6)  # the ids of a draft vocabulary smaller than the target's
TARGET = TargetConfig("llama", VOCABULARY, 8, 8, 2, 1, 1, 4, capture=(0, 1, 1))
PLAIN = Sampling(temperature=0.5)
TREE = TreeShape(depth=3, top_k=3, total=8)


def law_spec(sampling: Sampling = PLAIN, tree: TreeShape | None = None, drafted: int = VOCABULARY) -> SampledSpec:
    """drafted: the size of the draft's vocabulary, that of the target or of DRAFTED."""
    draft = DraftConfig(8, 8, 8, 1, 1, 4, VOCABULARY, draft_vocab_size=drafted, signals="none")
    return SampledSpec(
        target=TARGET,
        draft=draft,
        draft_tokens=tree.depth if tree else 3,
        tree=tree,
        sampling=sampling,
        buffer_length=len(PROMPT) + POSITIONS,
        stop_ids=(),
        end_think_ids=(0,),
    )


def law_params(spec: SampledSpec) -> DecodeParams:
    keys = jax.random.split(jax.random.key(1), 2)
    ids = DRAFTED if spec.draft.draft_vocab_size == len(DRAFTED) else range(VOCABULARY)
    return DecodeParams(init_target(TARGET, keys[0]), init_draft(spec.draft, keys[1]), jnp.asarray(ids, jnp.int32))


def exact_probabilities(spec: SampledSpec, params: DecodeParams) -> np.ndarray:
    """The probabilities of all V^6 continuations of the prompt, in lexicographic order."""
    prefixes = np.indices((VOCABULARY,) * (POSITIONS - 1)).reshape(POSITIONS - 1, -1).T
    tokens = np.concatenate([np.tile(PROMPT, (len(prefixes), 1)), prefixes], axis=1).astype(np.int32)
    positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    logits = jax.jit(Target(TARGET).apply)({"params": params.target}, tokens, positions).logits
    scores = filtered_scores(logits[:, len(PROMPT) - 1 :], SamplingRows.of([spec.sampling]))
    conditional = np.asarray(jax.nn.softmax(scores), np.float64)
    conditional /= conditional.sum(axis=-1, keepdims=True)
    probability = np.ones((len(prefixes), VOCABULARY)) * conditional[:, -1]
    for step in range(POSITIONS - 1):
        probability *= conditional[np.arange(len(prefixes)), step, prefixes[:, step]][:, None]
    return probability.ravel()


# These programs run for longer than they compile, with the options of the other quick tests even when nothing is compiled.
COMPUTES = {"xla_backend_optimization_level": 1}


def draws(
    spec: SampledSpec, params: DecodeParams, number: int, options: dict | None = COMPUTES
) -> tuple[np.ndarray, float]:
    """(how often the loop sampled each continuation, the accepted drafts per step); ROWS keys are decoded at a time.

    options: the compiler's.
    """
    loop = jax.jit(functools.partial(decode.__wrapped__, spec.bare), compiler_options=options)
    prompts = jnp.tile(jnp.asarray([PROMPT], jnp.int32), (ROWS, 1))
    length, limit = (jnp.full((ROWS,), n, jnp.int32) for n in (len(PROMPT), spec.buffer_length))
    sampling = SamplingRows.of([spec.sampling] * ROWS)
    counts, accepted = np.zeros(VOCABULARY**POSITIONS, np.int64), np.zeros(spec.draft_tokens + 1, np.int64)
    for index in range(number // ROWS):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(11), index), ROWS)
        closed, table = jnp.zeros((ROWS,), bool), TokenBoundaries(jnp.zeros((VOCABULARY,), bool))
        rows = PromptRows(prompts, length, keys, closed, limit, sampling, closed)
        result = loop(params, rows, NeverExit(), table)
        drawn = np.asarray(result.tokens[:, len(PROMPT) :])
        counts += np.bincount(drawn @ VOCABULARY ** np.arange(POSITIONS)[::-1], minlength=len(counts))
        accepted += np.asarray(result.accept_histogram.sum(axis=0))
    assert counts.sum() == number
    return counts, float((accepted * np.arange(len(accepted))).sum() / accepted.sum())


def p_value(counts: np.ndarray, probability: np.ndarray) -> float:
    """The p-value of a chi-square test; 0 where a continuation of probability 0 was sampled.

    Cells are pooled, starting with the least likely, until each has an expectation of at least 5. Pooling does not depend on the
    counts.
    """
    if counts[probability == 0].any():
        return 0.0
    counts, probability = counts[probability > 0], probability[probability > 0]
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


def check_law(spec: SampledSpec, number: int):
    """The samples follow the exact probabilities, and enough drafts are accepted and rejected for the test to mean something."""
    params = law_params(spec)
    counts, accepted = draws(spec, params, number)
    found = p_value(counts, exact_probabilities(spec, params))
    print(f"{spec.sampling}, {spec.tree}: {accepted:.3f} drafts accepted a step, p = {found:.3f} in {number:,} draws")
    assert 0.15 < accepted < 0.8 * spec.draft_tokens
    assert found > 0.01
