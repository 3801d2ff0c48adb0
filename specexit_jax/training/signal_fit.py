"""Solves the signals to their optimum at boundaries; all other parameters stay as trained.

Placed at `fc`, the signals are linear in the captured features and share no weight with the draft; placed at `draft`, in the
normed hidden of the pair before the token. A logistic regression for each share and least squares for each number of
tokens, all convex. Gradient steps end short of the optimum (at `fc`, AUC of confidence 0.87 after 1,000 Muon steps, 0.92
solved), so the solution replaces the trained values.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from specexit_jax.data.batches import RowSource
from specexit_jax.exits.signals import PAPER, SIGNALS
from specexit_jax.models.config import DraftConfig, TargetConfig
from specexit_jax.models.draft import Draft
from specexit_jax.parallel.sharding import whole
from specexit_jax.training.features import TokenReader, features_in
from specexit_jax.training.ttt import run_steps, shift_left

_NEWTON_STEPS = 30
_GOOD = 1e-9  # Newton's method ends when the loss falls by less than this share


def signal_inputs(
    target: TargetConfig, target_params: dict, draft: DraftConfig, params: dict, mesh: Mesh | None = None
) -> TokenReader:
    """The inputs of the linear signals: [B, T, 3D] at `fc`, [B, T, E] at `draft`. params: the draft's, folded."""
    if draft.signals == "fc":
        return TokenReader(functools.partial(features_in, target), target_params, mesh)
    if mesh is not None:
        everywhere = whole(mesh)
        params = jax.tree.map(
            lambda v: jax.make_array_from_callback(v.shape, everywhere, lambda index: v[index]), params
        )
    return TokenReader(functools.partial(_hidden_before, target, draft), (target_params, params), mesh)


def _hidden_before(target: TargetConfig, draft: DraftConfig, params: Any, batch: dict[str, jax.Array]) -> jax.Array:
    """The normed hidden of the pair that ends in each token."""
    target_params, params = params
    features = features_in(target, target_params, batch)
    embedded = jnp.take(target_params["embed"]["embedding"], batch["tokens"], axis=0).astype(features.dtype)
    (hidden,), _ = run_steps(Draft(draft), params, features, embedded, batch, 1)
    return shift_left(Draft(draft).apply({"params": params}, hidden, method="normed"), -1)


def labelled_positions(
    reader: TokenReader, source: RowSource, most: int, seed: int, batch_size: int = 8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(inputs float32 [N, A], labels [N, S], mask bool [N, S]) of the labelled boundary tokens of rows drawn at random,
    until there are `most` of them.

    Exits read the signals only at boundaries. Other tokens would worsen the linear fit there (AUC of confidence 0.89
    with as many of them, 0.92 without).
    """
    inputs, labels, mask = [], [], []
    order = np.random.default_rng(seed).permutation(len(source))
    for start in range(0, len(source), batch_size):
        if sum(map(len, labels)) >= most:
            break
        rows = [source[int(number)] for number in order[start : start + batch_size]]
        rows += [{name: np.zeros_like(v) for name, v in rows[0].items()}] * (batch_size - len(rows))
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        drawn = batch["boundary"] & (batch["label_mask"].max(axis=-1) > 0)
        inputs.append(reader.at(batch, drawn))
        labels.append(batch["labels"][drawn])
        mask.append(batch["label_mask"][drawn] > 0)
    if not sum(map(len, labels)):
        raise ValueError("no boundary of these rows has a signal label: annotate the traces first")
    return np.concatenate(inputs), np.concatenate(labels), np.concatenate(mask)


def solve_signals(
    features: np.ndarray, labels: np.ndarray, mask: np.ndarray, ridge: float = 1.0, names: Sequence[str] = PAPER
) -> np.ndarray:
    """float32 [A, S]: the columns that minimise `losses.signal_losses` summed over N positions + ridge / 2 |w|^2.

    The ridge applies to features scaled to unit mean square. A feature that hardly varies (a constant of the residual
    stream) serves as the intercept.
    """
    scale = 1.0 / np.sqrt(np.mean(np.square(features, dtype=np.float64), axis=0) + 1e-12)
    columns = []
    for signal, name in enumerate(names):
        known = mask[:, signal]
        x, y = features[known] * scale, labels[known, signal].astype(np.float64)
        columns.append(_SOLVERS[SIGNALS[name].scale.link](x, y, ridge))
    return (scale[:, None] * np.stack(columns, axis=1)).astype(np.float32)


def _least_squares(x: np.ndarray, y: np.ndarray, ridge: float) -> np.ndarray:
    """Of the logarithms of numbers of tokens."""
    y = np.log(np.maximum(y, 1.0))
    return np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y)


def _logistic(x: np.ndarray, y: np.ndarray, ridge: float) -> np.ndarray:
    """Ridge logistic regression by Newton's method with step halving; y in [0, 1]."""
    w = np.zeros(x.shape[1])
    loss = _loss(x, y, w, ridge)
    for _ in range(_NEWTON_STEPS):
        p = 1.0 / (1.0 + np.exp(-(x @ w)))
        gradient = x.T @ (p - y) + ridge * w
        curvature = (x * (p * (1.0 - p))[:, None]).T @ x + ridge * np.eye(len(w))
        step, length = np.linalg.solve(curvature, gradient), 1.0
        while (tried := _loss(x, y, w - length * step, ridge)) > loss and length > 1e-6:
            length /= 2
        if tried > loss:
            break
        fall, w, loss = loss - tried, w - length * step, tried
        if fall < _GOOD * abs(loss):
            break
    return w


def _loss(x: np.ndarray, y: np.ndarray, w: np.ndarray, ridge: float) -> float:
    raw = x @ w
    return float(np.sum(np.logaddexp(0.0, raw) - raw * y) + ridge / 2 * w @ w)


_SOLVERS = {"logit": _logistic, "log": _least_squares}  # by the link of a signal's scale
