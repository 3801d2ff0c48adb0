"""Signal rows solved: the optimum of the training's own losses, at the positions that weigh most."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_ttt import TARGET_CONFIG, example, target_params

from specexit_jax.models.target import Target
from specexit_jax.training.losses import signal_losses
from specexit_jax.training.signal_fit import labelled_positions, solve_signals


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


def test_positions_are_those_of_the_largest_weight():
    rows = {name: np.asarray(values) for name, values in example().items()}
    rows["label_mask"] = rows["label_mask"].copy()
    labelled = np.argwhere(rows["label_mask"].max(axis=-1) > 0)
    heavy = labelled[:: max(1, len(labelled) // 5)]
    rows["label_mask"][tuple(heavy.T)] *= 16
    features, labels, mask = labelled_positions(TARGET_CONFIG, target_params(), rows, 10**6, 0, batch_size=3)
    names = ("tokens", "positions", "segment_ids")
    out = Target(TARGET_CONFIG).apply(
        {"params": target_params()}, *(jnp.asarray(rows[n]) for n in names[:2]), segment_ids=jnp.asarray(rows[names[2]])
    )
    np.testing.assert_allclose(features, np.asarray(out.features)[tuple(heavy.T)], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(labels, rows["labels"][tuple(heavy.T)])
    assert mask.shape == labels.shape and mask.any()
    rows["label_mask"][:] = 0
    with pytest.raises(ValueError, match="no position"):
        labelled_positions(TARGET_CONFIG, target_params(), rows, 10, 0)
