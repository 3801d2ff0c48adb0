"""A draft's run: what training scales is folded into the weights that are saved, held-out rows are looked at, nothing else."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_ttt import D2T, TARGET_CONFIG, example, make_draft, target_params, teacher

from specexit_jax.metrics import read_metrics
from specexit_jax.models.hf import load_draft
from specexit_jax.training.draft import DraftTrainingConfig, draft_losses
from specexit_jax.training.draft_run import DraftRun, feature_scale, folded, train_draft
from specexit_jax.training.loop import LoopConfig
from specexit_jax.training.optimizer import OptimizerConfig
from specexit_jax.training.signal_fit import labelled_positions, solve_signals


@pytest.mark.parametrize("signals", ["fc", "draft"])
def test_the_saved_draft_is_the_one_that_was_trained(signals):
    """Losses on scaled features equal those of the folded parameters on plain features."""
    draft, params = make_draft(signals)
    scale = jnp.asarray(feature_scale(TARGET_CONFIG, target_params(), example()))
    assert scale.shape == (48,) and (np.asarray(scale) > 0).all() and np.ptp(np.asarray(scale)) > 0
    scaled = teacher().replace(features=teacher().features * scale[None, None])
    losses = functools.partial(draft_losses, batch=example(), draft=draft, config=DraftTrainingConfig(steps=2))
    seen, saved = losses(params, scaled)[0], losses(folded(params, scale), teacher())[0]
    np.testing.assert_allclose(saved, seen, rtol=2e-5)
    assert (np.abs(np.asarray(losses(params, teacher())[0] - seen)) > 1e-4).any()


def test_training_writes_a_draft_and_looks_at_held_out_rows(tmp_path):
    draft, _ = make_draft()
    rows = {name: np.asarray(values) for name, values in example().items()}
    run = DraftRun(batch_size=2, seed=0, losses=DraftTrainingConfig(steps=2), evaluate_every=2)
    optimizer = OptimizerConfig("muon", total_steps=3, warmup_steps=1)
    arguments = (run, TARGET_CONFIG, target_params(), draft.config, D2T, rows, optimizer)
    bundle = train_draft(*arguments, LoopConfig(3, log_every=1), tmp_path, held_out=rows)
    again = load_draft(tmp_path / "draft_model")
    jax.tree.map(np.testing.assert_array_equal, again.params, bundle.params)
    solved = solve_signals(*labelled_positions(TARGET_CONFIG, target_params(), rows, 10**6, 0))
    np.testing.assert_allclose(bundle.params["fc"][:, -3:], solved, rtol=1e-3, atol=1e-5)
    looks = [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl") if "held_out_token_loss" in line]
    assert looks == [2, 3]
    one = {name: values[:1] for name, values in rows.items()}
    train_draft(*arguments, LoopConfig(3, log_every=1), tmp_path / "other", held_out=one)
    assert any("held_out_token_loss" in line for line in read_metrics(tmp_path / "other" / "metrics.jsonl"))
