"""A fourth signal is one entry of the table: it is labelled, trained, solved, saved, decoded by, kept in policy.json and drawn."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_case import Requests, SampledSpec, run
from test_ttt import D2T, TARGET_CONFIG, V, target_params
from training_case import rows_of, write_split

from launch.live import meter_line
from specexit_jax.decoding.sampling import Sampling
from specexit_jax.decoding.spec import DecodeParams
from specexit_jax.evaluation.report.trace_figure import TraceView, signals_figure
from specexit_jax.exits.boundaries import TokenBoundaries
from specexit_jax.exits.policy_file import PolicyFile, load_policy, save_policy
from specexit_jax.exits.scales import Share
from specexit_jax.exits.signals import PAPER, SIGNALS, Labelled, Signal, draft_signals, open_limits
from specexit_jax.models.checkpoints.content import draft_digest
from specexit_jax.models.checkpoints.hf import load_draft, save_draft
from specexit_jax.models.config import PAPER_SIGNALS, draft_config
from specexit_jax.monitoring.metrics import read_metrics
from specexit_jax.training.draft import DraftTrainingConfig, base_weights
from specexit_jax.training.draft_run import DraftRun, train_draft
from specexit_jax.training.loop import LoopConfig
from specexit_jax.training.optimizer import OptimizerConfig


def _doubt(trace: Labelled) -> np.ndarray | None:
    return None if trace.enough is None else 1.0 - trace.agreement


DOUBT = Signal("probability that the answer is another one", Share(), at_least=False, label=_doubt, colour="#7c3aed")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A draft trained for a step with a fourth signal, in its folder, and what training told."""
    folder = tmp_path_factory.mktemp("draft")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIGNALS, "doubt", DOUBT)
        rows = rows_of(write_split(folder / "split", 12))
        config = draft_config(TARGET_CONFIG, 16, len(D2T), "draft", signal_names=draft_signals())
        settings = DraftRun(2, 0, DraftTrainingConfig(steps=1))
        optimizer = OptimizerConfig("adamw", total_steps=1, warmup_steps=0)
        bundle = train_draft(
            settings, TARGET_CONFIG, target_params(), config, D2T, rows, optimizer, LoopConfig(1, log_every=1), folder
        )
    return folder, rows, bundle, next(line for line in read_metrics(folder / "metrics.jsonl") if "loss" in line)


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setitem(SIGNALS, "doubt", DOUBT)


def test_without_it_the_table_holds_the_signals_of_the_paper_and_the_score():
    assert tuple(SIGNALS) == (*PAPER, "score") and PAPER == PAPER_SIGNALS == draft_signals()


def test_it_is_labelled_trained_and_solved(made, table):
    _, rows, bundle, told = made
    row = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    assert row["labels"].shape[-1] == row["label_mask"].shape[-1] == 4
    known = row["label_mask"][:, 3] > 0
    assert known.any() and np.array_equal(known, row["label_mask"][:, 0] > 0)
    np.testing.assert_array_equal(row["labels"][known, 3], 1.0 - row["labels"][known, 0])
    assert told["doubt_loss"] > 0 and told["doubt_error"] > 0
    head = np.asarray(bundle.params["signal_head"])
    assert head.shape == (16, 4)
    np.testing.assert_allclose(head[:, 3], -head[:, 0], rtol=1e-3, atol=1e-5)  # its optimum equals that of 1 - p
    with pytest.raises(ValueError, match="3 signal weights for the 4 signals confidence, progress, remain, doubt"):
        base_weights(DraftTrainingConfig(signal_weights=(1.0, 1.0, 1.0)), bundle.config)


@pytest.mark.parametrize("form", ["angelslim", "eagle"])
def test_a_file_says_which_signals_it_holds(made, tmp_path, form):
    folder, _, bundle, _ = made
    save_draft(tmp_path, bundle, form=form)
    again = load_draft(tmp_path)
    assert again.config.signal_names == (*PAPER, "doubt")
    np.testing.assert_array_equal(again.params["signal_head"], bundle.params["signal_head"])
    digest = draft_digest(tmp_path, again.config)
    assert digest == draft_digest(folder / "draft_model", bundle.config)
    config = json.loads((tmp_path / "config.json").read_text())
    config["signal_order"] = ["confidence", "progress", "doubt", "remain"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert draft_digest(tmp_path, load_draft(tmp_path).config) != digest  # the same rows, but they mean something else


def decoded(bundle, policy):
    spec = SampledSpec(TARGET_CONFIG, 32, (0,), (1,), bundle.config, 2, record_signals=True, sampling=Sampling())
    params = DecodeParams(target_params(), bundle.params, jnp.asarray(bundle.d2t))
    prompts = np.random.default_rng(0).integers(2, V, (4, 3)).astype(np.int32)
    limits = np.full((4,), 32, np.int32)
    everywhere = TokenBoundaries(jnp.ones((V,), bool))
    keys = jax.random.split(jax.random.key(0), 4)
    rows = Requests(prompts, limits * 0 + 3, keys, np.ones(4, bool), limits).rows()
    return run(spec, params, rows, policy, everywhere)


def test_a_policy_of_a_file_exits_by_it(made, table, tmp_path):
    _, _, bundle, _ = made
    names = bundle.config.signal_names

    def policy(limit: float):
        """By the fourth signal alone, through policy.json."""
        limits = (*open_limits(PAPER), limit)
        file = PolicyFile("default", "none", ("paragraph",), limits, None, 0.0, None, "dev", 4, "digest", signals=names)
        save_policy(tmp_path / "policy.json", file)
        assert json.loads((tmp_path / "policy.json").read_text())["thresholds"]["doubt"] == limit
        assert load_policy(tmp_path / "policy.json") == file
        return load_policy(tmp_path / "policy.json").policy()

    think = decoded(bundle, policy(SIGNALS["doubt"].never_limit))
    assert (np.asarray(think.exit_position) == -1).all() and think.signals.shape[-1] == 4
    doubts = [np.asarray(think.signals)[row, 3 : int(think.length[row]), 3] for row in range(4)]
    limit = float(np.median(np.concatenate([values[1:-1] for values in doubts])))
    result, exited = decoded(bundle, policy(limit)), 0
    for row, values in enumerate(doubts):
        first = np.flatnonzero(values <= np.float32(limit))
        position = int(result.exit_position[row])
        if position >= 0:
            assert position == 3 + first[0] + 1
            assert float(result.exit_signals[row, 3]) == pytest.approx(float(values[first[0]]), rel=1e-4)
            exited += 1
    assert exited


def test_a_draft_without_it_is_refused_by_such_a_policy(made, table):
    _, _, bundle, _ = made
    other = draft_config(TARGET_CONFIG, 16, len(D2T), "draft")
    file = PolicyFile(
        "default", "none", ("paragraph",), open_limits((*PAPER, "doubt")), None, 0.0, None, "dev", 4, "digest",
        signals=(*PAPER, "doubt"),
    )  # fmt: skip
    with pytest.raises(ValueError, match="reads doubt, which the draft model has no signal head for"):
        decoded(bundle.replace(config=other), file.policy())


def test_it_is_shown(table):
    names = (*PAPER, "doubt")
    assert meter_line({"remain": 256.0, "doubt": 0.5}).split() == [
        "remain",
        "█████░░░░░",
        "256",
        "doubt",
        "█████░░░░░",
        "0.50",
    ]
    signals = np.random.default_rng(0).random((20, 4)).astype(np.float32)
    view = TraceView("t", signals, [4, 9, 19], [False, True, True], thresholds=(0.5, 0.5, 10.0, 0.25), names=names)
    figure = signals_figure([view])
    assert [axes.get_ylabel() for axes in figure.subfigs[0].axes[1:]] == [
        "confidence", "progress", "remain\n(tokens)", "doubt",
    ]  # fmt: skip
