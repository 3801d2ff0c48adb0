"""Solves the signals to their optimum at boundaries; all other parameters stay as trained.

Placed at `fc`, the signals are linear in the captured features and share no weight with the draft; placed at `draft`, in the
normed hidden of the pair before the token. A logistic regression for each share and least squares for each number of
tokens, all convex. Gradient steps may end short of the optimum (at `fc`, AUC of confidence 0.87 after 1,000 Muon steps, 0.92
solved). They have seen every trace many times, though, and the solution only some. So each signal has the columns that are
better on held-out traces.
"""

import dataclasses
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
from specexit_jax.models.draft import draft_of
from specexit_jax.parallel.distributed import is_first
from specexit_jax.parallel.sharding import whole
from specexit_jax.training.features import TokenReader, features_in
from specexit_jax.training.ridge import Regressions
from specexit_jax.training.signal_positions import Positions, spread_positions
from specexit_jax.training.ttt import run_steps, shift_left

RIDGES = tuple(10.0**power for power in range(5, -2, -1))  # that are tried, of inputs scaled to unit mean square
FOLDS = 5
_SPARE = 4  # the share of both budgets, one in this many, that the held-out traces have


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
    (hidden,), _ = run_steps(draft_of(draft), params, features, embedded, batch, 1)
    return shift_left(draft_of(draft).apply({"params": params}, hidden, method="normed"), -1)


@dataclasses.dataclass(frozen=True)
class Solved:
    """columns float32 [A, S]. ridge: of each signal. cross_validated: its mean loss on the problems of folds left out, by ridge."""

    columns: np.ndarray
    ridge: dict[str, float]
    cross_validated: dict[str, dict[float, float]]


def fit_signals(
    reader: TokenReader,
    rows: RowSource,
    held_out: RowSource | None,
    trained: np.ndarray,
    names: Sequence[str],
    budget: tuple[int, int],
    seed: int,
    batch_size: int,
) -> tuple[np.ndarray, dict]:
    """(columns float32 [A, S], a report for signal_fit.json): each signal solved, or as trained where that is better held out.

    held_out: rows of traces that were not trained on; without them nothing is compared, and the solution is taken. trained
    [A, S]. budget: (positions, tokens) of `spread_positions`. The first process solves; to the others the columns are `trained`
    and the report is empty.
    """
    first = is_first()
    found = spread_positions(reader, rows, *budget, seed, batch_size, first)
    unseen = None
    if held_out is not None:
        try:
            unseen = spread_positions(reader, held_out, *(max(b // _SPARE, 1) for b in budget), seed, batch_size, first)
        except ValueError:  # held-out rows without a label
            unseen = None
    if not first:
        return trained, {}
    solved = solve_signals(found, names)
    columns, compared = chosen_columns(solved, trained, unseen, names)
    about = {"fitted_on": found.summary(), "held_out": None if unseen is None else unseen.summary()}
    return columns, about | {"signals": compared}


def solve_signals(found: Positions, names: Sequence[str] = PAPER, ridges: Sequence[float] = RIDGES) -> Solved:
    """The columns that minimise each signal's loss at the positions, with the ridge that is best on problems left out.

    Positions of one problem are in one fold. Of equal ridges the larger is taken. Deterministic.
    """
    fold = problem_folds(found.problem, FOLDS)
    count, signals, folds = len(fold), len(names), int(fold.max()) + 1
    links = [SIGNALS[name].scale.link for name in names]
    targets = np.stack([_OUTPUT[link](found.labels[:, i]) for i, link in enumerate(links)], axis=1)
    # For each signal one regression without each fold, and one on everything.
    seen = fold[:, None] != np.arange(folds + 1)[None]
    weights = (found.mask[:, :, None] & seen[:, None]).reshape(count, -1)
    problem = Regressions(found.inputs, np.repeat(targets, folds + 1, axis=1), weights, np.repeat(links, folds + 1))
    best, columns = np.full(signals, np.inf), np.zeros((found.inputs.shape[1], signals))
    ridge, path = np.zeros(signals), []
    for tried, solution in zip(ridges, problem.solve(ridges), strict=True):
        raw = problem.raw(solution).reshape(count, signals, folds + 1)
        loss = mean_losses(raw[np.arange(count), :, fold], targets, found.mask, links)
        better = loss < best
        best[better], ridge[better] = loss[better], tried
        columns[:, better] = solution.reshape(-1, signals, folds + 1)[:, better, folds]
        path.append(loss)
        if not better.any():  # smaller ones are worse still, and the slowest to solve
            break
    told = {name: {r: float(loss[i]) for r, loss in zip(ridges, path, strict=False)} for i, name in enumerate(names)}
    return Solved(columns.astype(np.float32), dict(zip(names, ridge.tolist(), strict=True)), told)


def chosen_columns(
    solved: Solved, trained: np.ndarray, held_out: Positions | None, names: Sequence[str]
) -> tuple[np.ndarray, dict]:
    """(float32 [A, S], a report by signal): of each signal the columns, solved or trained, of the lower mean loss held out."""
    links = [SIGNALS[name].scale.link for name in names]
    losses = {}
    if held_out is not None:
        targets = np.stack([_OUTPUT[link](held_out.labels[:, i]) for i, link in enumerate(links)], axis=1)
        for kind, columns in (("solved", solved.columns), ("trained", trained)):
            raw = (held_out.inputs @ columns).astype(np.float64)
            losses[kind] = mean_losses(raw, targets, held_out.mask, links)
    columns, report = solved.columns.copy(), {}
    for i, name in enumerate(names):
        known = {kind: float(loss[i]) for kind, loss in losses.items() if np.isfinite(loss[i])}
        kept = min(known, key=known.get) if known else "solved"  # the first, solved, where they are equal
        if not solved.ridge[name]:  # no position has this label
            kept = "trained"
        if kept == "trained":
            columns[:, i] = trained[:, i]
        report[name] = {
            "kept": kept,
            "held_out_loss": known or None,
            "ridge": solved.ridge[name],
            "cross_validated_loss": {f"{ridge:g}": loss for ridge, loss in solved.cross_validated[name].items()},
        }
    return columns, report


def sentence(told: dict) -> str:
    """The report of `fit_signals`, for people."""
    parts = []
    for name, found in told["signals"].items():
        losses = found["held_out_loss"]
        held = (
            "" if losses is None else ", held out " + ", ".join(f"{kind} {loss:.4f}" for kind, loss in losses.items())
        )
        parts.append(f"{name} {found['kept']} (ridge {found['ridge']:g}{held})")
    compared = (
        f"compared on {told['held_out']}"
        if told["held_out"]
        else "compared with nothing: no held-out traces have labels"
    )
    return f"signals fitted on {told['fitted_on']}; {compared}: {'; '.join(parts)}"


def problem_folds(problem: np.ndarray, folds: int) -> np.ndarray:
    """int [N]: the fold of each position, by its problem. There are at most `folds`, and no more than problems."""
    numbers, own = np.unique(problem, return_inverse=True)
    return (np.random.default_rng(0).permutation(len(numbers)) % folds)[own]


def mean_losses(raw: np.ndarray, targets: np.ndarray, mask: np.ndarray, links: Sequence[str]) -> np.ndarray:
    """float64 [S] of outputs and targets [N, S]: mean binary cross entropy, or squared error; NaN without a label."""
    logistic = np.asarray(links) == "logit"
    loss = np.where(logistic, np.logaddexp(0.0, raw) - raw * targets, (raw - targets) ** 2)
    known = mask.sum(axis=0)
    return np.where(known > 0, np.sum(loss * mask, axis=0) / np.maximum(known, 1), np.nan)


# What a regression's output is to be, by the link of a signal's scale.
_OUTPUT = {
    "logit": lambda labels: labels.astype(np.float64),
    "log": lambda labels: np.log(np.maximum(labels.astype(np.float64), 1.0)),
}
