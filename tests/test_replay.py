"""Replay against a plain loop that decides token by token, like decoding without speculation."""

import jax.numpy as jnp
import numpy as np
import pytest

from specexit_jax.annotation import decided
from specexit_jax.annotation.decided import ROWS
from specexit_jax.annotation.replay import outcomes, outcomes_by, replay, smoothed_at_boundaries
from specexit_jax.exits.calibration import exit_boundaries, threshold_grid
from specexit_jax.exits.policy import Deer, FirstAnswer, NeverExit, Threshold
from specexit_jax.exits.released import released
from specexit_jax.exits.smoothers import SMOOTHERS, smoother_named

END_THINK = (2,)
BOUNDARY, ANSWER = 1, 4


def _annotated(seed: int, count: int = 20):
    """(traces, labels, signals by id) with thinking of 0 to 150 tokens, one trace never closing."""
    rng = np.random.default_rng(seed)
    traces, labels, signals = [], [], {}
    for n in range(count):
        thinking = 0 if n == 1 else int(rng.integers(1, 150))
        thought = rng.choice([0, BOUNDARY, 3, ANSWER], thinking, p=[0.6, 0.1, 0.2, 0.1]).tolist()
        closed = n != 2
        boundaries = [i for i, token in enumerate(thought) if token == BOUNDARY]
        traces.append(
            {
                "id": f"p{n}",
                "task": "a",
                "ids": thought + ([2, 5, 6] if closed else []),
                "think_end": thinking if closed else None,
                "correct": bool(rng.random() < 0.8) and closed,
                "answer": "7" if closed else None,
            }
        )
        labels.append(
            {
                "id": f"p{n}",
                "boundaries": boundaries,
                "forced_ids": [rng.integers(5, 9, rng.integers(1, 5)).tolist() for _ in boundaries],
                "forced": [str(i) for i in boundaries],
                "correct": (rng.random(len(boundaries)) < 0.7).tolist(),
            }
        )
        values = rng.random((thinking + 3, 3), np.float32) * np.array([1, 1, 100], np.float32)
        signals[f"p{n}"] = values
    return traces, labels, signals


def _one_by_one(policy, trace, label, values):
    """Index of the boundary token at which decoding with a step of one token exits, or None."""
    state, always = policy.init(1), jnp.ones((1, 1), bool)
    for t in range(len(trace["ids"]) - 1 if trace["think_end"] is None else trace["think_end"]):
        token = jnp.array([[trace["ids"][t]]], jnp.int32)
        boundary = jnp.array([[t in label["boundaries"]]])
        signal = jnp.asarray(values[t][None, None])
        if int(policy.decide(state, token, signal, boundary, always)[0][0]) == 0:
            return t
        state = policy.commit(state, token, signal, boundary, always, jnp.array([1], jnp.int32))
    return None


@pytest.mark.parametrize("name", ["ewma", "momentum", "paragraph_mean", "first_answer"])
def test_replay_exits_where_token_by_token_decoding_does(name):
    traces, labels, signals = _annotated(0, 6)
    limits = jnp.array([0.5, 0.45, 60.0], jnp.float32)
    policy = FirstAnswer(jnp.arange(9) == ANSWER) if name == "first_answer" else Threshold(limits, smoother_named(name))
    exits = 0
    for trace, label, got in zip(traces, labels, replay(policy, traces, labels, signals, END_THINK), strict=True):
        want = _one_by_one(policy, trace, label, signals[trace["id"]])
        exits += want is not None
        if want is None:
            assert got.boundary is None and got.exit_index is None and got.ids == tuple(trace["ids"])
            assert (got.correct, got.answer) == (trace["correct"], trace["answer"])
        else:
            place = label["boundaries"].index(want)
            assert got.boundary == place and got.exit_index == want + 1 == got.thinking_tokens
            assert got.ids == (*trace["ids"][: want + 1], 2, *label["forced_ids"][place])
            assert (got.correct, got.answer) == (label["correct"][place], str(want))
            assert got.ids[got.exit_index] == 2 and got.tokens == len(got.ids)
    assert 0 < exits < 6


def test_long_traces_come_in_smaller_batches(monkeypatch):
    traces, labels, signals = _annotated(2, 9)
    smoothers = {name: smoother_named(name) for name in ("none", "ewma")}
    whole, shapes, decide = outcomes_by(smoothers, traces, labels, signals), [], decided._decide
    monkeypatch.setattr(decided, "TOKENS", 512)
    monkeypatch.setattr(decided, "_decide", lambda *a, **b: shapes.append(a[2].shape) or decide(*a, **b))
    for name, found in outcomes_by(smoothers, traces, labels, signals).items():
        assert np.array_equal(found.smoothed, whole[name].smoothed) and np.array_equal(found.tokens, whole[name].tokens)
    assert shapes and all(rows * length <= 512 for rows, length, _ in shapes)


@pytest.mark.parametrize("name", SMOOTHERS)
def test_calibration_sees_what_replay_does(name):
    """The grid's lookup and the policy agree on every trace and every threshold, over more than one batch."""
    traces, labels, signals = _annotated(1, ROWS + 9)
    smoother = smoother_named(name)
    table = outcomes(smoother, traces, labels, signals)
    for limits in threshold_grid(table, (4, 3, 3))[::9]:
        budget = int(limits[2]) or None  # any number
        exits = exit_boundaries(table, limits[None], budget)[0]
        policy = Threshold(jnp.asarray(limits, jnp.float32), smoother, None if budget is None else jnp.int32(budget))
        got = replay(policy, traces, labels, signals, END_THINK)
        most = table.present.shape[1]
        assert [most if r.boundary is None else r.boundary for r in got] == exits.tolist()
        for n, result in enumerate(got):
            exited = result.boundary is not None
            assert result.tokens == (table.tokens[n, result.boundary] if exited else table.full_tokens[n])
            assert result.correct == (table.correct[n, result.boundary] if exited else table.full_correct[n])


def test_what_the_decision_saw_is_reported():
    traces, labels, signals = _annotated(2)
    policy = Threshold(jnp.array([0.0, 0.0, 1e5], jnp.float32), smoother_named("mean"))
    seen = smoothed_at_boundaries(policy.smoother, traces, labels, signals)
    for result, values in zip(replay(policy, traces, labels, signals, END_THINK), seen, strict=True):
        if len(values):
            assert result.boundary == 0
            np.testing.assert_allclose(result.signals, values[0], rtol=1e-6)


def test_no_exit_needs_no_signals_and_keeps_every_trace():
    traces, labels, _ = _annotated(3)
    for trace, result in zip(traces, replay(NeverExit(), traces, labels, None, END_THINK), strict=True):
        assert result.ids == tuple(trace["ids"]) and result.signals is None
    assert replay(NeverExit(), [], [], None, END_THINK) == []


def test_a_trace_cut_off_at_a_boundary_has_no_room_for_an_exit():
    trace = {
        "id": "p",
        "task": "a",
        "ids": [0, BOUNDARY, 0, BOUNDARY],
        "think_end": None,
        "correct": False,
        "answer": None,
    }
    label = {"id": "p", "boundaries": [1, 3], "forced_ids": [[5], []], "forced": ["7", None], "correct": [True, False]}
    signals = {"p": np.array([[0.1, 0.5, 9], [0.2, 0.5, 9], [0.9, 0.5, 9], [0.9, 0.5, 9]], np.float32)}
    policy = Threshold(jnp.array([0.8, 0.0, 1e5], jnp.float32), smoother_named("none"))
    assert replay(policy, [trace], [label], signals, END_THINK)[0].boundary is None
    assert outcomes(policy.smoother, [trace], [label], signals).present.tolist() == [[True, False]]
    easy = Threshold(jnp.array([0.1, 0.0, 1e5], jnp.float32), smoother_named("none"))
    assert replay(easy, [trace], [label], signals, END_THINK)[0].ids == (0, BOUNDARY, 2, 5)


def test_a_trial_stands_on_the_log_probability_of_its_label():
    """The exit is at the first likely answer with a token. The trial tokens are those of the answers before it."""
    trace = {"id": "p", "ids": [0, 1, 0, 1, 0, 1, 0, 1, 2, 5], "think_end": 8, "correct": True, "answer": "7"}
    label = {
        "id": "p",
        "boundaries": [1, 3, 5, 7],
        "forced_ids": [[], [5, 6], [7, 8, 9], [5]],
        "forced": [None, "1", "2", "3"],
        "correct": [False, False, True, True],
        "logprob": [0.0, -0.8, -0.02, -0.01],
    }
    for confidence, place, cost in ((0.95, 2, 2), (0.4, 1, 0), (0.999, None, 6)):
        (got,) = replay(Deer(jnp.float32(confidence), 3), [trace], [label], None, END_THINK)
        assert (got.boundary, got.trial_tokens) == (place, cost)
    with pytest.raises(ValueError, match="an answer of 3 tokens, but a trial reads 2"):
        replay(Deer(jnp.float32(0.95), 2), [trace], [label], None, END_THINK)


def test_several_tokens_of_end_think():
    traces, labels, signals = _annotated(4)
    policy = Threshold(jnp.array([0.0, 0.0, 1e5], jnp.float32))
    exits = [r for r in replay(policy, traces, labels, signals, (11, 12)) if r.exit_index is not None]
    assert exits and all(r.ids[r.exit_index : r.exit_index + 2] == (11, 12) for r in exits)
    assert outcomes(policy.smoother, traces, labels, signals, 2).tokens[0, 0] == labels[0]["boundaries"][0] + 3 + len(
        labels[0]["forced_ids"][0]
    )


def test_refusals():
    traces, labels, signals = _annotated(5, 3)
    policy = Threshold(jnp.zeros((3,), jnp.float32))
    with pytest.raises(ValueError, match="released rule depends on how verification sliced"):
        replay(released(), traces, labels, signals, END_THINK)
    with pytest.raises(ValueError, match="1 traces have no labels .first: p2"):
        replay(policy, traces, labels[:2], signals, END_THINK)
    with pytest.raises(ValueError, match="p0 has no signals"):
        replay(policy, traces, labels, {}, END_THINK)
    with pytest.raises(ValueError, match="signals of shape"):
        replay(policy, traces, labels, {**signals, "p0": signals["p0"][:2]}, END_THINK)
    with pytest.raises(ValueError, match="must ascend"):
        replay(policy, traces, [{**labels[0], "boundaries": labels[0]["boundaries"][::-1]}, *labels[1:]], signals, (2,))
    with pytest.raises(ValueError, match="annotate it again"):
        replay(policy, traces, [{**labels[0], "correct": []}, *labels[1:]], signals, (2,))
