"""MTP layers are trained: from a checkpoint's layer (its signals alone, or all of it) and from scratch, under the target's head."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mtp_case import bundle_of
from test_mtp_files import write_target
from test_ttt import TARGET_CONFIG, V, example, target_params
from training_case import rows_of, training, write_split

from launch.draft_stage import builtin
from specexit_jax.data.batches import RowsInMemory
from specexit_jax.engine.choice import choose
from specexit_jax.engine.session import load_session
from specexit_jax.models.checkpoints.drafts import load_draft
from specexit_jax.models.draft import draft_of, init_draft, make_config
from specexit_jax.models.mtp_config import MtpConfig, mtp_config
from specexit_jax.models.target import Target
from specexit_jax.training.draft import DraftTrainingConfig, check_vocabulary, draft_losses
from specexit_jax.training.draft_run import DraftRun, train_draft
from specexit_jax.training.loop import LoopConfig
from specexit_jax.training.losses import masked_mean, soft_cross_entropy
from specexit_jax.training.teacher import run_teacher
from specexit_jax.training.ttt import chain_masks, run_steps, shift_left

DRAFT = mtp_config(TARGET_CONFIG, "mimo", 16)
READING = DRAFT.reading(TARGET_CONFIG)
D2T = np.arange(V, dtype=np.int32)


@functools.cache
def layer() -> dict:
    return jax.tree.map(np.asarray, jax.jit(functools.partial(init_draft, DRAFT))(jax.random.key(7)))


def trained(folder, **changes):
    settings, _, optimizer = training(steps=3)
    run = dataclasses.replace(settings, **changes)
    start = {name: value for name, value in layer().items() if name != "signal_head"} if run.init == "builtin" else None
    rows = rows_of(write_split(folder / "split", 12))
    model = (READING, target_params(), DRAFT, D2T)
    bundle = train_draft(run, *model, rows, optimizer, LoopConfig(3, log_every=1), folder, layer=start)
    return jax.tree.map(np.asarray, bundle.params), load_draft(folder / "draft_model")


def moved(params) -> set[str]:
    """The parameters that are not those of the layer."""
    flat = lambda tree: {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}  # noqa: E731
    before, after = flat(layer()), flat(params)
    assert before.keys() == after.keys()
    return {name for name in before if not np.array_equal(before[name], after[name])}


def test_signals_alone_are_learnt_on_a_frozen_layer(tmp_path):
    params, again = trained(tmp_path, init="builtin", learn="signals", signal_positions=0)
    assert moved(params) == {"['signal_head']"} and again.config == DRAFT
    jax.tree.map(np.testing.assert_array_equal, again.params, params)


def test_all_of_a_layer_is_learnt_and_the_head_stays_the_targets(tmp_path):
    params, _ = trained(tmp_path, init="builtin")
    assert len(moved(params)) == len(jax.tree.leaves(params)) and "lm_head" not in params
    assert all(np.abs(params[name] - layer()[name]).max() < 0.1 for name in ("projection",))  # it started from there


def test_the_loss_is_on_the_targets_own_head_under_fastmtps_weights():
    """0.51, 0.31 and 0.18 in the config of its published model: 0.6 to the power of the step, normalised."""
    batch, params = example(), layer()
    taught = run_teacher(Target(READING), target_params(), batch, jnp.asarray(D2T))
    config = DraftTrainingConfig(steps=3, decay=0.6)
    losses, _ = draft_losses(params, taught, batch, draft=draft_of(DRAFT), config=config)
    hiddens, _ = run_steps(draft_of(DRAFT), params, taught.features, taught.embedded, batch, 3)
    head, each = target_params()["lm_head"], []
    for step, (hidden, mask) in enumerate(zip(hiddens, chain_masks(batch, 3), strict=True)):
        told = shift_left(taught.hidden @ head, 1 + step)
        each.append(float(masked_mean(soft_cross_entropy(hidden @ head, told), mask)))
    np.testing.assert_allclose(float(losses[0]), np.dot([0.51, 0.31, 0.18], each), rtol=5e-3)
    assert np.ptp(each) > 1e-2


def test_a_fresh_layer_starts_from_the_targets_norm(tmp_path):
    params, _ = trained(tmp_path, init="target", signal_positions=0)
    fresh = np.asarray(target_params()["final_norm"]["scale"])
    assert np.abs(params["norm"]["scale"] - fresh).max() < 0.1 and "lm_head" not in params


def test_what_cannot_be_learnt_is_refused(tmp_path):
    with pytest.raises(ValueError, match="choose 'all' or 'signals'"):
        DraftRun(2, 0, DraftTrainingConfig(), learn="head")
    with pytest.raises(ValueError, match="starts from a layer that is given"):
        settings, _, optimizer = training(steps=3)
        run = dataclasses.replace(settings, init="builtin")
        rows = RowsInMemory(jax.tree.map(np.asarray, example()))
        train_draft(run, READING, target_params(), DRAFT, D2T, rows, optimizer, LoopConfig(3), tmp_path)
    with pytest.raises(ValueError, match="not in ascending order"):
        check_vocabulary(D2T[::-1], DRAFT)
    with pytest.raises(ValueError, match="The kind of a draft is 'medusa'"):
        make_config("medusa", TARGET_CONFIG, "", 16, 8, "draft", 0, ("confidence",))
    with pytest.raises(ValueError, match="The family of an MTP draft is ''"):
        make_config("mtp", TARGET_CONFIG, "", 16, 8, "draft", 0, ("confidence",))


def test_a_checkpoints_layer_is_what_training_starts_from(tmp_path):
    write_target(tmp_path / "target", "mimo")
    session = load_session(tmp_path / "target")
    wanted = make_config("mtp", session.target, "mimo", 24, 8, "draft", 0, ("confidence", "progress"))
    assert isinstance(wanted, MtpConfig) and wanted.draft_vocab_size == session.target.vocab_size
    found, params = builtin(session, wanted)
    assert (found.signals, found.signal_names) == ("draft", ("confidence", "progress")) and "signal_head" not in params
    jax.tree.map(np.testing.assert_array_equal, params, bundle_of("mimo", signals="none").params)
    eagle = make_config("eagle3", session.target, "", 24, 8, "draft", 0, ("confidence",))
    with pytest.raises(ValueError, match="of the kind 'mtp'"):
        builtin(session, eagle)
    choice = choose(load_session(tmp_path / "target", "builtin"), "builtin")
    assert (choice.name, choice.why) == ("eagle3", "the model does not think, so there is nothing to exit")
