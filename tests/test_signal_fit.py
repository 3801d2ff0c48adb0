"""Signal rows solved: the optimum of the training's own losses, at boundaries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_ttt import D2T, TARGET_CONFIG, make_draft, target_params
from training_case import rows_of, write_split

from specexit_jax.annotation.features import extract
from specexit_jax.data.batches import RowsInMemory
from specexit_jax.exits.signals import activate
from specexit_jax.models.draft import DraftBundle
from specexit_jax.models.target import Target
from specexit_jax.storage.jsonl import read_jsonl
from specexit_jax.training.losses import signal_losses
from specexit_jax.training.signal_fit import labelled_positions, signal_inputs, solve_signals


def test_the_solution_is_where_the_losses_have_no_slope():
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(400, 6)) * [1, 10, 0.1, 5, 1, 100]).astype(np.float32)
    labels = np.stack([rng.random(400) < 0.7, rng.random(400), rng.integers(0, 200, 400)], 1).astype(np.float32)
    mask = rng.random((400, 3)) < 0.8

    def loss(columns):
        raw = jnp.asarray(features) @ columns
        return jnp.sum(signal_losses(raw[None], jnp.asarray(labels)[None], jnp.asarray(mask, jnp.float32)[None]))

    solved = solve_signals(features, labels, mask, ridge=1e-6)
    slope = np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(solved))) / np.abs(features).max(axis=0)[:, None]
    assert np.abs(slope).max() < 1e-4
    strong = solve_signals(features, labels, mask, ridge=1e6)
    assert np.abs(strong).max() < np.abs(solved).max() / 10


def test_positions_are_the_labelled_boundaries(tmp_path):
    rows = rows_of(write_split(tmp_path, 12))
    draft, params = make_draft("fc")
    reader = signal_inputs(TARGET_CONFIG, target_params(), draft.config, params)
    features, labels, mask = labelled_positions(reader, rows, 10**6, 0, batch_size=5)
    order = np.random.default_rng(0).permutation(len(rows))  # in which rows are drawn
    whole = {name: np.stack([rows[int(i)][name] for i in order]) for name in rows[0]}
    places = tuple(np.argwhere(whole["boundary"] & (whole["label_mask"].max(axis=-1) > 0)).T)
    out = jax.jit(lambda t, p, s: Target(TARGET_CONFIG).apply({"params": target_params()}, t, p, segment_ids=s))(
        *(jnp.asarray(whole[name]) for name in ("tokens", "positions", "segment_ids"))
    )
    np.testing.assert_array_equal(labels, whole["labels"][places])
    np.testing.assert_allclose(features, np.asarray(out.features)[places], rtol=1e-4, atol=1e-5)
    assert len(labels) > 10 and 0 < mask[:, 0].sum() < len(mask)
    assert 0 < len(labelled_positions(reader, rows, len(labels) // 2, 0, batch_size=5)[0]) < len(labels)
    silent = RowsInMemory(whole | {"label_mask": np.zeros_like(whole["label_mask"])})
    with pytest.raises(ValueError, match="no boundary"):
        labelled_positions(reader, silent, 10, 0)


@pytest.mark.parametrize("placed", ["fc", "draft"])
def test_the_inputs_are_what_signals_are_linear_in(tmp_path, placed):
    """Against the signals along whole traces, one in a row, as annotation extracts them."""
    folder = write_split(tmp_path, 12)
    draft, params = make_draft(placed)
    head = params["signal_head"] if placed == "draft" else params["fc"][:, -3:]
    reader = signal_inputs(TARGET_CONFIG, target_params(), draft.config, params)
    inputs, *_ = labelled_positions(reader, rows_of(folder), 10**6, 0)
    traces, labels = (list(read_jsonl(folder / f"{name}.jsonl")) for name in ("traces", "labels"))
    along = extract(
        TARGET_CONFIG, target_params(), (), traces, DraftBundle(draft.config, params, jnp.asarray(D2T))
    ).signals
    wanted = np.concatenate([along[label["id"]][label["boundaries"], :3] for label in labels])
    found = np.asarray(activate(jnp.asarray(inputs @ np.asarray(head))))
    assert found.shape == wanted.shape
    order = lambda rows: rows[np.argsort(rows[:, 0])]  # noqa: E731
    np.testing.assert_allclose(order(found), order(wanted), rtol=1e-4, atol=1e-5)
