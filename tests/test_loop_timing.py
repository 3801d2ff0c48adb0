"""The benchmark's measurements: bytes counted by hand, runs of the promised length, peers that write the same ids."""

import dataclasses
import types

import jax
import numpy as np
import pytest
from decoding_case import QUICK

from specexit_jax.decoding.trees import TreeShape
from specexit_jax.evaluation.loop import report as loop_report
from specexit_jax.evaluation.loop.host_loop import decode_from_host
from specexit_jax.evaluation.loop.latency import Ratio
from specexit_jax.evaluation.loop.peers import compare
from specexit_jax.evaluation.loop.roofline import copy_bandwidth
from specexit_jax.evaluation.loop.timing import LoopTimer, make_case
from specexit_jax.models.config import TargetConfig
from specexit_jax.sizing.presets import draft_for
from specexit_jax.sizing.random_weights import random_params
from specexit_jax.sizing.traffic import traffic

D, F, V, L, N, K, H = 16, 24, 48, 2, 4, 2, 8
TARGET = TargetConfig("llama", V, D, F, L, N, K, H)
LAYER = 2 * D + D * H * (N + 2 * K) + N * H * D + 3 * D * F
DRAFT_LAYER = 2 * D * H * (N + 2 * K) + N * H * D + 3 * D * F + 4 * D + D * V  # reads [embedding, hidden]; its own head
FC = 3 * D * (D + 3)


def make_timer(draft_tokens=2, **changes) -> LoopTimer:
    settings = {"context": 24, "iterations": 20, **changes}
    case = make_case(TARGET, draft_for(TARGET), draft_tokens=draft_tokens, **settings)
    return LoopTimer(case, random_params(TARGET, case.spec.draft), QUICK)


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2)])
def test_bytes_of_plain_decoding(dtype, size):
    target = dataclasses.replace(TARGET, dtype=dtype)
    spec = make_case(target, None, draft_tokens=0).spec
    found = traffic(spec, 3, 100)
    weights = L * LAYER + D + D * V  # the untied table is looked up, not read
    assert found.verify == size * (weights + 3 * D + 2 * L * K * H * 3 * 101)
    assert found.draft == 0 and found.whole == found.verify


def test_bytes_of_a_chain():
    spec = make_case(TARGET, draft_for(TARGET), draft_tokens=3).spec
    found = traffic(spec, 1, 100)
    weights = L * LAYER + D + D * V
    assert found.verify == 4 * (weights + 4 * D + 2 * L * K * H * 104)
    tokens = 4 + 2  # the pairs of the verified, then one a step
    assert found.draft == 4 * (FC + 3 * DRAFT_LAYER + tokens * D + 2 * K * H * (3 * 100 + tokens))


def test_bytes_of_a_chain_that_reads_the_targets_head():
    """An MTP draft: a layer of the target's own, and in every pass the target's whole head; signals once."""
    biased = dataclasses.replace(TARGET, architecture="mimo", qkv_bias=True)
    draft = draft_for(biased, "mtp")
    found = traffic(make_case(draft.reading(biased), draft, draft_tokens=3).spec, 1, 100)
    layer = 2 * D * D + (D + 1) * H * (N + 2 * K) + N * H * D + 3 * D * F + 5 * D
    assert found.draft == 4 * (3 * D + 3 * (layer + D * V) + 6 * D + 2 * K * H * (3 * 100 + 6))


def test_a_tied_table_is_the_head_and_a_tree_takes_its_depth():
    tied = dataclasses.replace(TARGET, tie_embeddings=True)
    spec = make_case(tied, draft_for(tied), draft_tokens=2, tree=TreeShape(2, 3, 6)).spec
    found = traffic(spec, 1, 100)
    assert found.verify == 4 * (L * LAYER + D + D * V + 7 * D + 2 * L * K * H * 107)
    tokens = 3 + 3
    assert found.draft == 4 * (FC + 2 * DRAFT_LAYER + tokens * D + 2 * K * H * (2 * 100 + tokens))


def test_every_weight_that_moves_is_a_weight_that_is():
    params = random_params(TARGET, draft_for(TARGET))
    sizes = {name: sum(leaf.nbytes for leaf in jax.tree.leaves(getattr(params, name))) for name in ("target", "draft")}
    assert sizes["target"] == 4 * (L * LAYER + D + 2 * D * V)
    assert sizes["draft"] == 4 * (FC + DRAFT_LAYER)
    assert all(
        0.5 < float(leaf.std()) * leaf.shape[0] ** 0.5 < 2 for leaf in (params.draft["fc"], params.draft["lm_head"])
    )


def test_bandwidth_is_that_of_memory():
    assert 1e8 < copy_bandwidth(megabytes=4, tries=2) < 1e13


def test_a_chain_yields_what_is_simulated_and_the_host_writes_the_same():
    timer = make_timer(simulate_accept_length=2.5)
    told = loop_report.measure(timer, 1)
    assert told["tokens_per_iteration"] == 2.5
    ours = timer.tokens()
    timer.run("whole")
    np.testing.assert_array_equal(timer.tokens(), ours)  # every run starts alike
    written = []

    def from_host(state):
        state, rows = decode_from_host(timer.loop, timer.case.live, state, timer.case.iterations)
        written.extend(rows)
        return state

    assert timer.timed(from_host) > 0
    np.testing.assert_array_equal(written, ours)


def test_rows_and_trees():
    timer = make_timer(batch=2, tree=TreeShape(2, 2, 4), simulate_accept_length=1.5)
    written = timer.tokens()
    assert written.shape[0] == 2
    assert 20 <= written.shape[1] <= 30  # a path can be shorter than the simulated length


def test_peers_write_the_ids_of_the_loop_without_drafts():
    pytest.importorskip("torch")
    case = make_case(TARGET, None, batch=2, context=24, draft_tokens=0, iterations=20)
    params = random_params(TARGET)
    found = compare(LoopTimer(case, params, QUICK), params, repeats=1, threads=1, compiles=False)
    assert found["host_loop"]["same_ids"] == found["host_loop"]["ids"] == 20
    assert found["transformers"]["same_ids"] == found["transformers"]["ids"] == 32
    assert found["transformers"]["compiled"] is False
    assert min(row["tokens_per_second"] for row in found.values()) > 0
    assert found["loop"]["times"] == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"buffer": 40}, "needs a buffer of 84, but it is 40"),
        ({"batch": 0}, "batch_size must be at least 1"),
        ({"simulate_accept_length": 4.0}, "between 1 and 3, not 4.0"),
        ({"draft_tokens": 3, "tree": TreeShape(2, 2, 4)}, "set it to the depth"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, sentence):
    settings = {"context": 24, "iterations": 20, "draft_tokens": 2, **changes}
    with pytest.raises(ValueError, match=sentence):
        make_case(TARGET, draft_for(TARGET), **settings)


def test_without_drafts_there_is_no_share_of_signals():
    case = make_case(TARGET, None, draft_tokens=0, context=24, iterations=2)
    with pytest.raises(ValueError, match="reads no signals"):
        loop_report.signal_share(types.SimpleNamespace(case=case), params=None)


def test_the_share_of_signals_is_that_of_a_loop_which_scores(monkeypatch):
    draft = draft_for(TARGET, "mtp")
    case = make_case(draft.reading(TARGET), draft, context=24, iterations=20, draft_tokens=2)
    params, made = random_params(TARGET, case.spec.draft), []

    class Kept(LoopTimer):
        def __init__(self, *told, **settings):
            super().__init__(*told, QUICK, **settings)
            made.append(self)

    def in_turns(first, second, rounds):
        first(), second()
        return Ratio(1.1, 1.0, 1.2, 1.0, 1.1, rounds)

    monkeypatch.setattr(loop_report, "LoopTimer", Kept)
    monkeypatch.setattr(loop_report, "interleaved_ratio", in_turns)
    found = loop_report.signal_share(types.SimpleNamespace(case=case), params)
    assert found == {"share": pytest.approx(0.1), "low": 0.0, "high": pytest.approx(0.2), "rounds": 50}
    without, within = made
    assert not without.loop.reads_signals and within.loop.takes_readings
    np.testing.assert_array_equal(without.tokens(), within.tokens())
    assert (within.tokens() % 16 == 0).any() and 0 < float(within.state.seen_signals[0, -1]) < 1
