"""Exits by a score: the loop against the slow reference decoder, replay against decoding, the file, and the fit."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from annotated_case import END, SESSION, traces_and_labels, write_split
from decoding_case import DRAFT, Requests, boundary_table, rigged, run, slot_request, tiny_params, tiny_spec

from launch import scores
from specexit_jax.annotation.features import Extracted, extract
from specexit_jax.annotation.replay import replay, smoothed_at_boundaries, statistics_at_boundaries
from specexit_jax.decoding.loop.speculative import make_loop
from specexit_jax.decoding.oracle import decode_slowly
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.decoding.trees import TreeShape
from specexit_jax.engine.methods import read_policy
from specexit_jax.evaluation.pipeline import calibrating, scoring
from specexit_jax.evaluation.report.exit_sections import exit_sections
from specexit_jax.evaluation.score_quality import auc
from specexit_jax.exits.policy import NeverExit, Threshold, unreachable
from specexit_jax.exits.policy_file import PolicyFile, load_policy, save_policy
from specexit_jax.exits.readings import READINGS
from specexit_jax.exits.score import Score, ScoreNetwork, to_json
from specexit_jax.exits.signals import PAPER, open_limits
from specexit_jax.exits.smoothers import SMOOTHERS, smoother_named
from specexit_jax.exits.trace_statistics import statistic_names
from specexit_jax.models.draft_layer import DraftBundle
from specexit_jax.training.score_fit import CannotFit, ScoreFit, fit_score

LATE = dataclasses.replace(DRAFT, signals="draft")
TREE = TreeShape(depth=3, top_k=2, total=6)
PENALISED = Sampling(temperature=1.1, top_k=20, repetition_penalty=1.3)
SIZE = len(statistic_names(PAPER))


def network(seed=0, hidden=4) -> ScoreNetwork:
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    spread = jnp.full((SIZE,), 1.0, jnp.float32)
    out = jnp.asarray([*rng.normal(size=hidden), 1.0], jnp.float32)
    return ScoreNetwork(jnp.zeros((SIZE,), jnp.float32), spread, 0.2 * draw(SIZE, hidden), draw(hidden), out)


def policy(seed: int) -> Threshold:
    """By a random network's score alone, which passes at some boundaries."""
    limits = [*open_limits(PAPER), np.random.default_rng(seed).uniform(0.5, 0.8)]
    return Threshold(jnp.asarray(limits, jnp.float32), Score(network(), PAPER))


@pytest.mark.parametrize(
    ("tokens", "draft", "tree", "sampling"),
    [
        (0, DRAFT, None, tiny_spec().sampling),
        (3, LATE, None, tiny_spec().sampling),
        (3, LATE, None, PENALISED),
        (3, DRAFT, TREE, tiny_spec().sampling),
    ],
    ids=["probe", "chain", "penalised", "tree"],
)
def test_the_loop_exits_where_the_oracle_does(monkeypatch, tokens, draft, tree, sampling):
    spec = tiny_spec(tokens, draft=draft, tree=tree, sampling=sampling)
    params, plain = tiny_params(draft=draft), tiny_spec(0, draft=draft, sampling=sampling)
    drafted = rigged(monkeypatch) if tokens and tree is None else None
    exits, equal = 0, 0
    for seed in range(4):
        requests = Requests.random(8, seed)
        told = requests.rows(), policy(seed), boundary_table()
        if drafted is None:
            result = run(spec, params, *told)
        else:  # drafts are the tokens of a run without exits
            truth = run(plain, params, requests.rows(), NeverExit(), boundary_table()).tokens
            result = drafted(spec, params, truth, *told)
        for row in range(8):
            slow = decode_slowly(spec, params, slot_request(spec, requests, row), policy(seed), boundary_table())
            tokens_of_row = result.tokens[row, : int(result.length[row])].tolist()
            if tokens_of_row == slow.tokens:
                equal += 1
                assert int(result.exit_position[row]) == slow.exit_position
                np.testing.assert_allclose(result.exit_signals[row], slow.exit_signals, rtol=1e-3, atol=1e-4)
        exits += int((result.exit_position >= 0).sum())
    assert equal >= 31 and exits >= 8


def test_replayed_scores_are_those_of_decoding():
    """Signals and readings of a teacher-forced pass give the score that the loop compared at its exit."""
    spec, params, seen = tiny_spec(3, draft=LATE), tiny_params(draft=LATE), 0
    for seed in range(3):
        requests = Requests.random(8, seed)
        result = run(spec, params, requests.rows(), policy(seed), boundary_table())
        for row in np.flatnonzero(result.exit_position >= 0):
            start, end = int(requests.prompt_length[row]), int(result.exit_position[row])
            ids = result.tokens[row, :end].tolist()
            trace = {"id": "a", "prompt_ids": ids[:start], "ids": ids[start:], "think_end": None}
            places = np.flatnonzero(np.isin(ids[start:], (3, 4, 5, 6))).tolist()
            along = extract(
                spec.target, params.target, (2,), [trace], DraftBundle(LATE, params.draft, params.d2t)
            ).signals
            assert along["a"].shape == (end - start, 3 + len(READINGS)) and places[-1] == end - start - 1
            (rows,) = smoothed_at_boundaries(policy(seed).smoother, [trace], [{"boundaries": places}], along)
            np.testing.assert_allclose(rows[-1], result.exit_signals[row], rtol=2e-3, atol=2e-4)
            (told,) = statistics_at_boundaries(PAPER, [trace], [{"boundaries": places}], along)
            score = network()(jnp.asarray(told)[None])[0]
            np.testing.assert_allclose(score, rows[:, 3], rtol=1e-4, atol=1e-5)
            seen += 1
    assert seen >= 8


@pytest.mark.parametrize("name", [*SMOOTHERS, "score"])
def test_both_at_once_are_what_each_is_alone(name):
    """Also where no exit is possible any more, and with a budget; a row that exits has no use for its state."""
    rng = np.random.default_rng(4)
    signals = jnp.asarray(rng.uniform(0.1, 0.9, (64, 4, 8)), jnp.float32)
    boundary = jnp.asarray(rng.random((64, 4)) < 0.4)
    thinking = jnp.asarray(np.arange(4)[None] < rng.integers(0, 5, (64, 1)))
    possible = thinking & jnp.asarray(rng.random((64, 1)) < 0.7)
    smoother, limits = smoother_named(name, score=network()), (0.5, 0.3, 0.7)
    policy = Threshold(
        jnp.asarray(limits if name != "score" else (*open_limits(PAPER), 0.5), jnp.float32), smoother, jnp.int32(60)
    )
    columns = signals[..., : len(smoother.reads)]
    tokens, state, exits = jnp.zeros((64, 4), jnp.int32), policy.init(64), 0
    both, decide, commit = map(jax.jit, (policy.decide_and_commit, policy.decide, policy.commit))
    for _ in range(4):
        seen = state, tokens, columns, boundary
        (column, smoothed), after = both(*seen, possible, thinking)
        alone, each = decide(*seen, possible)
        np.testing.assert_array_equal(column, alone)
        np.testing.assert_allclose(np.asarray(smoothed)[thinking], np.asarray(each)[thinking], rtol=1e-6)
        expected = commit(*seen, thinking, jnp.full((64,), 4, jnp.int32))
        jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6), after, expected)
        state, exits = after, exits + int((column < 4).sum())
    assert exits > 20


def test_a_row_that_may_not_exit_has_the_same_scores():
    """Also up to the end of its room, where no exit fits any more."""
    spec, params = tiny_spec(3, draft=LATE, record_signals=True), tiny_params(draft=LATE)
    rows, never = Requests.random(8, 1).rows(), unreachable(Score(network(), PAPER))
    barred = rows.replace(may_exit=np.zeros_like(rows.may_exit))
    expected, found = (run(spec, params, each, never, boundary_table()) for each in (rows, barred))
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.signals, expected.signals)
    np.testing.assert_array_equal(found.seen_signals, expected.seen_signals)
    assert len(np.unique(expected.signals[..., -1])) >= 8
    plain = tiny_spec(0, draft=LATE, record_signals=True)  # one token a step
    alone = run(plain, params, rows, never, boundary_table())
    same = (alone.tokens == expected.tokens).all(axis=1)
    assert same.sum() >= 7
    last = np.arange(alone.tokens.shape[1])[None] == alone.length[same][:, None] - 1  # a step may end with it, unseen
    seen = np.where(last[..., None], expected.signals[same], alone.signals[same])
    np.testing.assert_allclose(seen, expected.signals[same], rtol=2e-3, atol=2e-4)


def test_another_network_does_not_compile_anew():
    jitted = jax.jit(lambda rule, columns: rule.decide(rule.init(1), *columns)[0])
    columns = (
        jnp.zeros((1, 3), jnp.int32), jnp.full((1, 3, 8), 0.5, jnp.float32), jnp.ones((1, 3), bool), jnp.ones((1, 3), bool),
    )  # fmt: skip
    for seed in range(3):
        jitted(dataclasses.replace(policy(seed), smoother=Score(network(seed), PAPER)), columns)
    assert jitted._cache_size() == 1


def file_of(**changes) -> PolicyFile:
    limits = (*open_limits(PAPER), 0.9)
    told = {"signals": (*PAPER, "score"), "score": to_json(network(), PAPER), "draft": "digest"} | changes
    return PolicyFile("default", "score", ("paragraph",), limits, None, 0.0, None, "development", 4, **told)


def test_a_policy_file_holds_its_network(tmp_path):
    save_policy(tmp_path / "policy.json", file_of())
    again = load_policy(tmp_path / "policy.json")
    assert again == file_of() and again.policy().reads == (*PAPER, *READINGS)
    jax.tree.map(np.testing.assert_array_equal, again.policy().smoother.network, network())
    assert again.policy().signals == (*PAPER, "score")


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda c: c.pop("score"), "needs a score network"),
        (lambda c: c["thresholds"].pop("score"), "threshold of the score"),
        (lambda c: c.update(smoothing="ewma"), "smoothing is 'ewma', but the file has a score network"),
        (lambda c: c["score"].update(hidden=3), "weights of its score network"),
        (lambda c: c["thresholds"].pop("progress"), "other statistics"),
        (lambda c: c.update(score=[]), "score network holds exactly"),
    ],
)
def test_a_file_that_does_not_fit_together_is_refused(tmp_path, edit, reason):
    path = tmp_path / "policy.json"
    save_policy(path, file_of())
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=reason):
        load_policy(path)


def test_a_score_needs_its_network_and_a_draft_with_signals():
    with pytest.raises(ValueError, match="unknown smoother 'score'.*where a score network was fitted"):
        smoother_named("score")
    with pytest.raises(ValueError, match="reads signals, but there is no draft"):
        make_loop(tiny_spec(0, draft=None).bare, tiny_params(), policy(0), boundary_table())


def test_a_fit_finds_what_signals_alone_do_not_tell():
    """Agreement that depends on a statistic and on a product of two; alike for the same seed; soft labels are probabilities."""
    rng = np.random.default_rng(0)
    known = rng.normal(size=(6000, 5)) * [1, 1, 1, 1, 0] + [0, 0, 4, 0, 7]
    chance = 1 / (1 + np.exp(-(2 * known[:, 0] + 2 * known[:, 1] * known[:, 3])))
    agree = rng.random(6000) < chance
    fitted, others = slice(0, 4000), slice(4000, None)
    fit = ScoreFit(hidden=16, epochs=60, batch_size=64)
    found = fit_score(known[fitted], agree[fitted].astype(np.float32), fit)
    told = np.asarray(found.logits(jnp.asarray(known[others], jnp.float32)))
    best, alone = auc(agree[others], chance[others]), auc(agree[others], known[others, 0])
    assert auc(agree[others], told) > best - 0.02 > alone + 0.05
    again = fit_score(known[fitted], agree[fitted].astype(np.float32), fit)
    jax.tree.map(np.testing.assert_array_equal, found, again)
    soft = fit_score(known[fitted], chance[fitted].astype(np.float32), fit)
    shares = 1 / (1 + np.exp(-np.asarray(soft.logits(jnp.asarray(known[others], jnp.float32)))))
    assert np.abs(shares - chance[others]).mean() < 0.06
    with pytest.raises(ValueError, match="all 3 are alike"):
        fit_score(known[:3], np.ones(3, np.float32), fit)
    with pytest.raises(ValueError, match="hidden of the exit score must be at least 1, not 0"):
        ScoreFit(hidden=0)


@pytest.fixture
def split(tmp_path, monkeypatch):
    """A session and an annotated split whose forced answers are wrong exactly where the target was surprised; its signals are
    noise."""
    traces, labels = traces_and_labels(60)
    folder = write_split(tmp_path / "draft", traces, labels)
    rng, along = np.random.default_rng(0), {}
    for trace in traces:
        signals, surprised = (
            rng.uniform(0.1, 0.9, (len(trace["ids"]), 3)),
            np.isin(np.arange(len(trace["ids"])), (1, 5)),
        )
        readings = rng.exponential(0.2, (len(trace["ids"]), 5)) + 2.0 * surprised[:, None]
        along[trace["id"]] = np.concatenate([signals, readings], axis=1).astype(np.float32)
    for module in (calibrating, scoring):
        monkeypatch.setattr(module, "extracted", lambda *_, **__: Extracted(along, {}))
    draft = SimpleNamespace(signal_names=PAPER, signals="draft")
    return SimpleNamespace(**vars(SESSION) | {"draft": draft}), folder, along


def test_calibration_fits_a_score_and_exits_by_it_where_it_saves_more(split, tmp_path):
    session, folder, along = split
    kinds, said = ("paragraph", "marker"), []
    table = scoring.boundary_table(session, folder, kinds, "one")
    made = scoring.fitted_score(table, ScoreFit(hidden=4, epochs=200, batch_size=32), said.append)
    assert "fitted on 240 boundaries of 60 traces of draft" in said[0]
    assert "AUC 1.0000 on 24 held-out boundaries" in said[1]
    seen = calibrating.seen_split(session, folder, ("score", "none"), kinds, print, made)
    chosen = calibrating.by_grid(seen, 0.0, 0.0, None, kinds, "digest", print, PAPER)
    assert chosen.smoothing == "score" and chosen.thresholds[:3] == open_limits(PAPER)
    save_policy(tmp_path / "policy.json", calibrating.with_score(chosen, made))
    policy = load_policy(tmp_path / "policy.json", "digest").policy()
    traces, labels = traces_and_labels(60)
    for shown in replay(policy, traces, labels, along, (END,)):
        assert shown.exit_index == 4 and shown.correct  # at the first paragraph, past the first marker
    alone = calibrating.by_grid(
        calibrating.seen_split(session, folder, ("none",), kinds, print), 0.0, 0.0, None, kinds, "", print
    )
    kept = replay(alone.policy(), traces, labels, along, (END,))
    assert calibrating.with_score(alone, made) == alone and sum(one.tokens for one in kept) > 60 * 7


def test_samples_of_a_held_out_problem_are_held_out_together():
    """Each problem has features and a label of its own, alike in its three samples: nothing can be known of another problem."""
    rng, said = np.random.default_rng(0), []
    own = rng.normal(size=(120, 6)).astype(np.float32)
    seen, agree = [own[n // 3][None] for n in range(360)], [np.array([n // 3 % 3 == 0]) for n in range(360)]
    wanted, problems = [one.astype(np.float32) for one in agree], [f"p/{n // 3}" for n in range(360)]
    table = scoring.BoundaryTable("draft", None, seen, wanted, agree, problems)
    network = scoring.fitted_score(table, ScoreFit(hidden=32, epochs=300, batch_size=64), said.append)
    assert table.auc(network, range(360))[0] > 0.99
    told = float(said[1].split("AUC ")[1].split(" ")[0])
    assert 0.1 < told < 0.9 and "36 held-out boundaries" in said[1]


def test_a_learning_curve_goes_from_few_traces_to_all(split):
    session, folder, _ = split
    table = scoring.boundary_table(session, folder, ("paragraph", "marker"), "one", without=("entropy", "past"))
    every = range(len(table.seen))
    rows = scoring.learning_curve(
        table, ScoreFit(hidden=4, epochs=20, batch_size=8), 2, lambda network: {"auc": table.auc(network, every)[0]}
    )
    assert [row["traces"] for row in rows] == [1, 3, 7, 15, 30, 60] and rows[-1]["boundaries"] == 240
    assert rows[-1]["auc"] == 1.0 and all(0 <= row["auc"] <= 1 for row in rows)
    assert not [name for name in table.statistics if name.endswith(" entropy")]
    assert table.seen[0].shape == (4, len(table.statistics))
    with pytest.raises(ValueError, match="no part 'tea leaves': choose among surprisal"):
        scoring.boundary_table(session, folder, ("paragraph",), "one", without=("tea leaves",))


def test_a_score_that_cannot_be_fitted_is_left_out_where_others_are_asked_for(split, capsys, monkeypatch):
    session, folder, _ = split
    told = {
        "calibrate": {
            "smoothers": ("score", "none"),
            "score": {"split": "draft", "hidden": 2, "epochs": 1, "without": ()},
        }
    }
    config = ml_collections.ConfigDict(told | {"annotate": {"confidence": "one"}})
    monkeypatch.setattr(scores.flags, "FLAGS", SimpleNamespace(workdir=str(folder.parent)))
    smoothers, network = scores.smoothers_and_score(config, session, ("paragraph", "marker"))
    assert smoothers == ("score", "none") and network.weights.shape == (SIZE, 2)
    at_paragraphs = session, ("paragraph",)  # where all forced answers agree
    assert scores.smoothers_and_score(config, *at_paragraphs) == (("none",), None)
    assert (
        "score: left out: An exit score needs boundaries that agree and others that do not" in capsys.readouterr().out
    )
    config.calibrate.smoothers = ("score",)
    with pytest.raises(CannotFit, match="all 120 are alike"):
        scores.smoothers_and_score(config, *at_paragraphs)
    config.calibrate.smoothers = ("none",)
    assert scores.smoothers_and_score(config, *at_paragraphs) == (("none",), None)


def test_the_network_of_a_policy_is_taken_as_it_is(split, tmp_path, monkeypatch):
    session, folder, _ = split
    network = scoring.fitted_score(
        scoring.boundary_table(session, folder, ("paragraph", "marker"), "one"),
        ScoreFit(hidden=2, epochs=1),
        lambda line: None,
    )
    told = {"rule": "default", "smoothing": "score", "boundary_kinds": ("paragraph",), "budget": None, "bound": None}
    told |= {"certificate": None, "split": "calibration", "problems": 10, "draft": session.draft_digest}
    signals = (*session.draft.signal_names, "score")
    policy = PolicyFile(**told, thresholds=(0.0,) * len(signals), signals=signals)
    policy = calibrating.with_score(policy, network)
    save_policy(tmp_path / "policy.json", policy)
    save_policy(tmp_path / "other.json", dataclasses.replace(policy, draft="values:0000"))
    own = dataclasses.replace(
        policy, smoothing="none", signals=signals[:-1], thresholds=(0.0,) * len(signals[:-1]), score=None
    )
    save_policy(tmp_path / "none.json", own)
    config = ml_collections.ConfigDict(
        {"calibrate": {"smoothers": ("score", "none"), "score": {"split": "nowhere", "hidden": 2, "policy": ""}}}
    )
    monkeypatch.setattr(scores.flags, "FLAGS", SimpleNamespace(workdir=str(tmp_path)))
    assert scores.split_of(config) == ["nowhere"]
    config.calibrate.score.policy = str(tmp_path / "policy.json")
    assert scores.split_of(config) == []
    smoothers, found = scores.smoothers_and_score(config, session, ("paragraph",))
    assert smoothers == ("score", "none")
    np.testing.assert_array_equal(found.weights, network.weights)
    for name, wrong in (("other", "calibrated for another draft"), ("none", "compares no exit score")):
        config.calibrate.score.policy = str(tmp_path / f"{name}.json")
        with pytest.raises(ValueError, match=wrong):
            scores.smoothers_and_score(config, session, ("paragraph",))


def test_a_frontier_by_the_score_is_judged_beside_a_policy_by_signals(split, tmp_path):
    """The network comes from frontier.json where the policy has none."""
    session, folder, along = split
    table = scoring.boundary_table(session, folder, ("paragraph", "marker"), "one")
    made = scoring.fitted_score(table, ScoreFit(4, 200, 32), print)
    row = {
        "epsilon": 0.1,
        "delta": 0.1,
        "smoothing": "score",
        "thresholds": [*open_limits(PAPER), 0.5],
        "risk_upper": 0.1,
    }
    (tmp_path / "frontier.json").write_text(json.dumps({"rows": [row], "score": to_json(made, PAPER)}))
    limits = open_limits(PAPER)
    file = PolicyFile("default", "none", ("paragraph",), limits, None, 0.0, None, "development", 4, "digest")
    found = exit_sections(file, tmp_path, *traces_and_labels(60), along, 1)
    assert found["risk"]["harmed"] == 60  # the first boundary of all traces
    assert found["frontier"][0]["harmed"] == 0 and found["frontier"][0]["exit_rate"] == pytest.approx(1)


def test_a_score_policy_takes_no_other_smoother(tiny, tmp_path, session):
    file = file_of(draft=session.draft_digest)
    save_policy(tmp_path / "policy.json", file)
    assert read_policy(session, tmp_path / "policy.json", smoother="score")[0].signals[-1] == "score"
    with pytest.raises(ValueError, match="exits by smoothing 'score'.*not those of 'ewma'"):
        read_policy(session, tmp_path / "policy.json", smoother="ewma")
