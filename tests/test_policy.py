"""Policies: `released` against a plain-Python transcription of its five rules, `default` against its definition."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.embedded import ASSETS
from specexit_jax.exits.conditions import Conditions, SamplingConditions, ThinkingMarks, differences
from specexit_jax.exits.policy import FirstAnswer, NeverExit, Threshold, unreachable
from specexit_jax.exits.policy_file import PolicyFile, load_policy, save_policy
from specexit_jax.exits.released import SCORES, released
from specexit_jax.exits.risk import Certificate, p_value, risk_upper, scope_of
from specexit_jax.exits.signals import PAPER, open_limits
from specexit_jax.exits.smoothers import SMOOTHERS, smoother_named

SPLIT, CLOSE, WIDTH = 1, 2, 6


class _Released:
    """The rules 1 to 5 of docs/method.md §3 for one row, with lists and deques."""

    def __init__(self, score: str):
        self.score, self.seen, self.ewma = score, [], None

    def predict(self):
        if self.score == "ewma":
            return self.ewma
        if self.score == "momentum":
            return self.seen[-1] + np.diff(self.seen, axis=0).mean(axis=0) if len(self.seen) == 10 else None
        return np.mean(self.seen, axis=0) if self.seen else None

    def step(self, tokens: list[int], signals: np.ndarray) -> int | None:
        """The index of the boundary token to exit at; None where there is no exit, and then the step is added to the state."""
        splits = [i for i, token in enumerate(tokens) if token == SPLIT]
        if splits and CLOSE not in tokens:
            score = self.predict()
            if score is not None and (score != 0).all() and score[0] > 0.8 and score[1] > 0.3 and score[2] < 200:
                return splits[0]
            if self.score == "paragraph_mean":
                self.seen = self.seen[-1:]
        mean = signals.mean(axis=0)
        self.ewma = mean if self.ewma is None else 0.1 * mean + 0.9 * self.ewma
        self.seen = [*self.seen, mean][-10:]
        return None


def _released_steps(seed: int, steps: int = 60):
    """Steps of one request: accepted tokens (the root first) and signals that nearly pass or pass the thresholds."""
    rng = np.random.default_rng(seed)
    for index in range(steps):
        length = int(rng.integers(1, WIDTH + 1))
        tokens = rng.choice([0, SPLIT, 3, 4], length, p=[0.5, 0.2, 0.2, 0.1]).tolist()
        if index == 40:
            tokens[-1] = CLOSE
        level = np.array([0.9, 0.5, 150.0]) if index > 8 else np.array([0.6, 0.4, 250.0])
        yield tokens, (level * rng.uniform(0.8, 1.2, (length, 3))).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("score", SCORES)
def test_released_rule_step_by_step(score: str, seed: int):
    """Equal decisions at every step. A step that closes its thinking does not exit at an earlier boundary."""
    policy, reference = released(score), _Released(score)
    decide, commit = jax.jit(policy.decide), jax.jit(policy.commit)
    state, exits = policy.init(1), 0
    for tokens, signals in _released_steps(seed):
        closes = CLOSE in tokens
        thinking = tokens.index(CLOSE) if closes else len(tokens)
        padding = WIDTH - len(tokens)
        # Rejected drafts after the accepted tokens: boundaries and extreme signals that must have no effect.
        row = jnp.array([tokens + [SPLIT] * padding], jnp.int32)
        values = jnp.asarray(np.concatenate([signals, np.full((padding, 3), 9.0, np.float32)])[None])
        valid = jnp.arange(WIDTH)[None, :] < thinking
        column, seen = decide(state, row, values, row == SPLIT, valid, jnp.array([closes]))
        want = reference.step(tokens, signals)
        assert int(column[0]) == (WIDTH if want is None else want)
        if want is not None:
            exits += 1
            np.testing.assert_allclose(seen[0, want], reference.predict(), rtol=1e-5)
            reference.step([0] * len(tokens), signals)  # a request would end here; the sequence continues, to test more
            state = commit(state, row, values, jnp.zeros_like(valid), valid, jnp.array([len(tokens)], jnp.int32))
            continue
        if closes:
            break
        state = commit(state, row, values, row == SPLIT, valid, jnp.array([len(tokens)], jnp.int32))
    assert exits > 0


def test_released_never_exits_before_a_score_exists_nor_on_zero():
    policy = released()
    good = jnp.tile(jnp.array([[[0.9, 0.9, 10.0]]], jnp.float32), (1, 2, 1))
    row, always = jnp.full((1, 2), SPLIT, jnp.int32), jnp.ones((1, 2), bool)
    state = policy.init(1)
    assert int(policy.decide(state, row, good, always, always)[0][0]) == 2
    after = policy.commit(state, row, good, always, always, jnp.array([2], jnp.int32))
    assert int(policy.decide(after, row, good, always, always)[0][0]) == 0
    without = good * jnp.array([1, 1, 0], jnp.float32)[None, None]
    zero = policy.commit(state, row, without, always, always, jnp.array([2], jnp.int32))
    assert int(policy.decide(zero, row, good, always, always)[0][0]) == 2


def test_released_keeps_its_state_where_nothing_is_committed():
    policy = released("mean")
    row, always = jnp.full((1, 2), 0, jnp.int32), jnp.ones((1, 2), bool)
    state = policy.commit(policy.init(1), row, jnp.ones((1, 2, 3), jnp.float32), ~always, always, jnp.array([2]))
    for valid, count in ((always, 0), (~always, 2)):
        same = policy.commit(state, row, jnp.full((1, 2, 3), 5.0, jnp.float32), ~always, valid, jnp.array([count]))
        assert all(bool((a == b).all()) for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(same), strict=True))


def test_released_momentum_needs_all_ten_observations():
    policy, always = released("momentum"), jnp.ones((1, 1), bool)
    good, row = jnp.array([[[0.9, 0.9, 10.0]]], jnp.float32), jnp.full((1, 1), SPLIT, jnp.int32)
    state = policy.init(1)
    columns = []
    for _ in range(11):
        columns.append(int(policy.decide(state, row, good, always, always)[0][0]))
        state = policy.commit(state, row, good, always, always, jnp.array([1], jnp.int32))
    assert columns == [1] * 10 + [0]


@pytest.mark.parametrize("smoother", SMOOTHERS)
def test_threshold_takes_the_first_boundary_that_passes(smoother: str):
    rng = np.random.default_rng(3)
    signals = jnp.asarray(rng.random((4, 12, 3), np.float32) * np.array([1, 1, 100], np.float32))
    boundary = jnp.asarray(rng.random((4, 12)) < 0.6)
    valid = jnp.arange(12)[None, :] < jnp.array([12, 9, 4, 0])[:, None]
    limits = np.array([0.4, 0.4, 70.0], np.float32)
    policy = Threshold(jnp.asarray(limits), smoother_named(smoother))
    column, smoothed = policy.decide(policy.init(4), jnp.zeros((4, 12), jnp.int32), signals, boundary, valid)
    values = np.asarray(smoothed)
    passed = (values[..., 0] >= limits[0]) & (values[..., 1] >= limits[1]) & (values[..., 2] <= limits[2])
    passed &= np.asarray(boundary & valid)
    assert column.tolist() == [int(np.flatnonzero(row)[0]) if row.any() else 12 for row in passed]
    assert int(column[3]) == 12 and int(column.min()) < 12


def test_threshold_sees_the_boundary_tokens_own_signal():
    policy = Threshold(jnp.array([0.5, 0.0, 1e5], jnp.float32), smoother_named("none"))
    signals = jnp.array([[[0.1, 0.5, 5.0], [0.9, 0.5, 5.0]]], jnp.float32)
    boundary = jnp.array([[False, True]])
    column, smoothed = policy.decide(
        policy.init(1), jnp.zeros((1, 2), jnp.int32), signals, boundary, jnp.ones((1, 2), bool)
    )
    assert int(column[0]) == 1 and float(smoothed[0, 1, 0]) == pytest.approx(0.9)


def test_only_thinking_tokens_enter_the_average():
    policy = Threshold(jnp.zeros((3,), jnp.float32), smoother_named("mean"))
    signals = jnp.array([[[1.0] * 3, [9.0] * 3]], jnp.float32)
    none, valid = jnp.zeros((1, 2), bool), jnp.array([[True, False]])
    committed = jnp.array([2], jnp.int32)
    state, thought = policy.commit(policy.init(1), jnp.zeros((1, 2), jnp.int32), signals, none, valid, committed)
    assert thought is None, "what no budget needs is not counted"
    assert int(state.count[0]) == 1 and float(state.history[0, -1, 0]) == 1.0


@pytest.mark.parametrize("budget, exit_column", [(6, 5), (7, 8), (14, None)])
def test_a_budget_gives_up_at_the_first_boundary_past_it_however_steps_slice(budget, exit_column):
    """Signals that never pass; boundaries after 3, 6, 9 and 12 tokens of thinking."""
    policy = Threshold(jnp.array([2.0, 2.0, -1.0], jnp.float32), smoother_named("ewma"), jnp.int32(budget))
    boundary, signals = jnp.arange(13)[None, :] % 3 == 2, jnp.full((1, 13, 3), 0.5, jnp.float32)
    for width in (1, 2, 4, 5, 13):
        state, found = policy.init(1), None
        for start in range(0, 13, width):
            here = slice(start, start + width)
            step = jnp.zeros_like(boundary[:, here], jnp.int32), signals[:, here], boundary[:, here]
            column = int(policy.decide(state, *step, jnp.ones_like(boundary[:, here]))[0][0])
            if column < step[0].shape[1]:
                found = start + column
                break
            state = policy.commit(state, *step, jnp.ones_like(boundary[:, here]), jnp.full((1,), width, jnp.int32))
        assert found == exit_column, width


def test_a_sweep_over_thresholds_compiles_once():
    traces = []
    signals, always = jnp.full((1, 2, 3), 0.5, jnp.float32), jnp.ones((1, 2), bool)

    @jax.jit
    def run(policy):
        traces.append(1)
        return policy.decide(policy.init(1), jnp.zeros((1, 2), jnp.int32), signals, always, always)[0]

    columns = [int(run(Threshold(jnp.array([c, 0.0, 1e5], jnp.float32)))[0]) for c in (0.1, 0.4, 0.6)]
    assert columns == [0, 0, 2] and len(traces) == 1


def test_first_answer_waits_for_the_boundary_after_the_answer():
    policy = FirstAnswer(jnp.arange(5) == 4)
    tokens = jnp.array([[0, 1, 4, 0, 1], [4, 0, 0, 0, 1]], jnp.int32)
    valid = jnp.arange(5)[None, :] < jnp.array([5, 3])[:, None]
    column, _ = policy.decide(policy.init(2), tokens, None, tokens == 1, valid)
    assert column.tolist() == [4, 5]
    state = policy.commit(policy.init(2), tokens, None, tokens == 1, valid, jnp.array([2, 3], jnp.int32))
    assert state.tolist() == [False, True]
    later = jnp.array([[0, 1], [0, 1]], jnp.int32)
    assert policy.decide(state, later, None, later == 1, jnp.ones((2, 2), bool))[0].tolist() == [2, 1]


def test_null_policies_never_exit():
    always = jnp.ones((2, 3), bool)
    for policy in (NeverExit(), unreachable()):
        signals = jnp.tile(jnp.array([1.0, 1.0, 0.0], jnp.float32)[None, None], (2, 3, 1))
        column, _ = policy.decide(policy.init(2), jnp.zeros((2, 3), jnp.int32), signals, always, always)
        assert column.tolist() == [3, 3]
    assert not NeverExit.signals and unreachable().signals


LIMITS = (0.8, 0.3, 200.0)
FILE = PolicyFile("default", "ewma", ("paragraph",), LIMITS, None, 0.005, None, "development", 900, "sha256:ab")


CERTIFICATE = Certificate(
    0.01, 0.05, "calibration", 6000, 40, 0.01, 0.0091, "development", 1, ((2.0, 2.0, -1.0), LIMITS)
)
CERTIFIED = dataclasses.replace(FILE, budget=300, certificate=CERTIFICATE)
MADE = Conditions(
    "values:t",
    "sha256:ab",
    SamplingConditions(0.8, 0, 0.95, 0.0),
    ("paragraph",),
    "ewma",
    300,
    880,
    ThinkingMarks("<think>\n", (5, 6)),
)
BOUND = dataclasses.replace(CERTIFIED, made_for=MADE)


@pytest.mark.parametrize("written", [FILE, dataclasses.replace(FILE, rule="released"), CERTIFIED, BOUND])
def test_policy_file_round_trip(tmp_path, written):
    save_policy(tmp_path / "policy.json", written)
    read = load_policy(tmp_path / "policy.json", draft="sha256:ab")
    assert read == written and [p.name for p in tmp_path.iterdir()] == ["policy.json"]
    assert read.policy().per_step == (written.rule == "released")
    assert getattr(read.policy(), "budget", None) == written.budget
    np.testing.assert_allclose(read.policy().thresholds, [0.8, 0.3, 200.0])


def test_a_penalty_that_a_policy_was_not_made_with_is_told(tmp_path):
    """Greedy decoding obeys the penalty too. A file without it was made without a penalty."""
    save_policy(tmp_path / "policy.json", BOUND)
    content = json.loads((tmp_path / "policy.json").read_text())
    del content["made_for"]["sampling"]["repetition_penalty"]
    (tmp_path / "policy.json").write_text(json.dumps(content))
    assert load_policy(tmp_path / "policy.json") == BOUND
    for warmth in (0.8, 0.0):
        made = dataclasses.replace(MADE, sampling=SamplingConditions(warmth, 0, 0.95, 0.0))
        now = dataclasses.replace(made, sampling=SamplingConditions(warmth, 0, 0.95, 0.0, 1.3))
        assert differences(made, now) == ["repetition_penalty 1.3 instead of 1.0"]


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda text: text[:40], "not valid JSON"),
        (lambda text: "[]", "does not hold a policy"),
        (lambda text: text.replace('"bound"', '"bond"'), r"unknown keys \[bond\] and lacks \[bound\]"),
        (lambda text: text.replace('"remain"', '"left"'), "thresholds must hold exactly"),
        (lambda text: text.replace("0.3", '"high"'), "thresholds.progress is 'high'"),
        (lambda text: text.replace("0.3", "NaN"), "thresholds.progress is nan"),
        (lambda text: text.replace("ewma", "median"), "smoothing is 'median'"),
        (lambda text: text.replace('"paragraph"', '"clause"'), "boundary_kinds is"),
        (lambda text: text.replace('"default"', '"other"'), "rule is 'other'"),
        (lambda text: text.replace("0.005", "-1"), "bound is -1"),
        (lambda text: text.replace("900", "true"), "problems is True"),
        (lambda text: text.replace('"budget": 300', '"budget": -1'), "budget is -1"),
        (lambda text: text.replace('"risk_upper"', '"risk"'), "a certificate holds exactly"),
        (lambda text: text.replace('"step": 1', '"step": 2'), "step an index into them"),
        (lambda text: text.replace('"temperature": 0.8', '"temperature": "warm"'), "made_for.sampling is"),
        (lambda text: text.replace('"top_k"', '"top"'), "made_for.sampling holds exactly temperature, top_k"),
        (
            lambda text: text.replace('"max_new_tokens": 880', '"max_new_tokens": null'),
            "made_for.max_new_tokens is None",
        ),
        (lambda text: text.replace('"opens": "<think>\\n"', '"opens": 3'), "made_for.thinking is"),
        (lambda text: text.replace('"made_for": {', '"made_for": 3, "x": {'), "unknown keys .x."),
    ],
)
def test_policy_file_refusals(tmp_path, edit, message):
    path = tmp_path / "policy.json"
    save_policy(path, BOUND)
    path.write_text(edit(path.read_text()))
    with pytest.raises(ValueError, match=message) as caught:
        load_policy(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_certificate_of_an_earlier_version_is_read_and_what_it_lacks_is_unknown(tmp_path):
    """Old files are read with the same thresholds and numbers, and null for what they did not record."""
    path = tmp_path / "policy.json"
    save_policy(path, CERTIFIED)
    content = json.loads(path.read_text())
    for name in ("traces", "test", "risk", "tasks", "together", "scope"):
        assert content["certificate"].pop(name) is None
    path.write_text(json.dumps(content))
    assert load_policy(path) == CERTIFIED
    content["certificate"]["tasks"] = {"gcd": "many"}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"the certificate's tasks are \{'gcd': 'many'\}"):
        load_policy(path)


def test_the_bundled_certificate_tells_its_problems():
    found = load_policy(ASSETS / "policy.json")
    one = found.certificate
    assert (one.problems, one.traces, one.harmed, one.test, one.risk) == (6000, 6000, 41, "binomial", 41 / 6000)
    assert one.p_value == p_value(41, 6000, 0.01) and one.risk_upper == risk_upper(41, 6000, 0.05)
    assert set(one.tasks.values()) == {1000} and len(one.tasks) == 6 and one.scope == scope_of(0.05, one.tasks)
    assert found.thresholds == (*open_limits(PAPER), 0.9817607700824738) == one.thresholds


def test_policy_of_another_draft_is_refused(tmp_path):
    save_policy(tmp_path / "policy.json", FILE)
    with pytest.raises(ValueError, match="calibrated for another draft"):
        load_policy(tmp_path / "policy.json", draft="values:cd")
    with pytest.raises(FileNotFoundError, match="no such policy"):
        load_policy(tmp_path / "absent.json")
