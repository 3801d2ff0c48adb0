"""`ceiling`: the best causal exit that the captured features allow, a large offline probe of P(forced answer agrees).

Two stages, on two splits. A small network on the features of one boundary is fitted on the draft's training split: features are
the frozen target's, and no training has seen them. Gradient boosted trees and a larger network then see its score, the past
of that score, the features and their past, and what the policy compares. These signals come from the draft, which knows the
traces that it was trained on too well. So the second stage is fitted on the development split, in folds of whole problems. The
better of the two models, or their mean, by AUC on problems left out, is the probe. Its threshold is chosen on the development
split like that of every exit (`bounds.choose_threshold`), from scores of problems left out.
"""

import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from specexit_jax.evaluation.bounds import Boundaries
from specexit_jax.evaluation.principal import whitening
from specexit_jax.evaluation.score_quality import auc

_PAST = 32  # leading components whose past is also an input
_FOLDS = 5
_BLOCK = 4096  # boundaries that are projected at a time


@dataclasses.dataclass(frozen=True)
class Reading:
    """The first stage, on the features of one boundary: standardised, rotated, whitened, and a network on them."""

    centre: np.ndarray
    projection: np.ndarray  # [A, P]
    network: MLPClassifier

    def columns(self, boundaries: Boundaries) -> np.ndarray:
        """float32 [n, F], the inputs of the second stage (`causal_columns`)."""
        parts = [(features - self.centre) @ self.projection for features in _blocks(boundaries.features)]
        projected = np.concatenate([np.zeros((0, self.projection.shape[1]), np.float32), *parts])
        first = _logit(self.network, projected) if len(projected) else np.zeros(0)
        return causal_columns(boundaries, projected, first)


@dataclasses.dataclass(frozen=True)
class Ceiling:
    """The second stage. held_out: AUC on problems left out, by model; left_out: float64 [n], the scores of the boundaries that it
    was fitted on, each from models that have not seen its problem."""

    models: tuple[Any, ...]
    held_out: dict[str, float]
    chosen: str
    left_out: np.ndarray

    def scores(self, columns: np.ndarray) -> np.ndarray:
        """float64 [n]: P(agree) at each boundary, from the columns of its own trace up to that boundary alone."""
        if not len(columns):
            return np.zeros(0)
        return _share(np.mean([_logit(model, columns) for model in self.models], axis=0))


def fit_reading(train: Boundaries, seed: int = 0) -> Reading:
    """On boundaries of the draft's training split; only their features are read.

    A trace that never closed its thinking has no answer to agree with, and is left out. Raises ValueError without features, or
    when all boundaries agree or none does.
    """
    if train.features.shape[1] == 0:
        raise ValueError("the ceiling needs captured features at every boundary; none were given")
    known = train.closed[train.row]
    _require_both(train.agree[known])
    centre, projection = whitening(train.features)
    projected = np.concatenate([(features - centre) @ projection for features in _blocks(train.features)])
    return Reading(centre, projection, _fit(_network((64,), seed), projected, train.agree, known))


def fit_ceiling(
    columns: np.ndarray, table: Boundaries, most: int = 100_000, seed: int = 0, trees: int = 150
) -> Ceiling:
    """On boundaries [n] that neither the draft nor the first stage was fitted on; columns: theirs, of `Reading.columns`.

    most: boundaries of whole problems that one model is fitted on, about; trees: boosting rounds. Raises ValueError when all
    boundaries agree or none does.
    """
    known = table.closed[table.row]
    _require_both(table.agree[known])
    fold, order = _folds_and_order(table, seed)
    boosted = HistGradientBoostingClassifier(
        max_iter=trees, learning_rate=0.08, l2_regularization=1.0, early_stopping=False, random_state=seed
    )
    models = {"trees": boosted, "network": _network((96, 48), seed)}
    logits = {name: np.zeros(len(fold)) for name in models}
    for left in range(int(fold.max()) + 1):
        chosen = _up_to(known & (fold != left), order, most)
        for name, model in models.items():
            logits[name][fold == left] = _logit(_fit(model, columns, table.agree, chosen), columns[fold == left])
    logits["both"] = np.mean(list(logits.values()), axis=0)
    held_out = {name: auc(table.agree[known], values[known]) for name, values in logits.items()}
    chosen = max(held_out, key=held_out.get)
    kept = tuple(models.values()) if chosen == "both" else (models[chosen],)
    whole = _up_to(known, order, most)
    return Ceiling(tuple(_fit(m, columns, table.agree, whole) for m in kept), held_out, chosen, _share(logits[chosen]))


def causal_columns(boundaries: Boundaries, projected: np.ndarray, first: np.ndarray) -> np.ndarray:
    """float32[n, F]: what is known at each boundary, from its own trace's prefix only.

    projected: [n, P] features; first: [n] first-stage logits. Columns: the features, their mean over the boundaries so
    far and their step since the last one, counts of boundaries and tokens, for the score and every extra column its value,
    previous value, running maximum, mean of the last three and running mean, and the statistics.
    """
    starts = boundaries.starts[boundaries.row]
    here = np.arange(len(starts)) - starts  # number of earlier boundaries
    past = projected[:, :_PAST]
    previous = np.where(here == 0, -1, np.arange(len(starts)) - 1)
    lead = np.where(here == 0, boundaries.index + 1, boundaries.index - boundaries.index[previous])
    columns = [
        projected,
        _running_mean(past, here),
        past - _shift(past, here, 1),
        np.stack([here / 10.0, np.log1p(boundaries.index), np.log1p(lead)], axis=1) - [0.0, 5.0, 3.0],
    ]
    for score in [first, *boundaries.extra.T]:
        column = score[:, None]
        recent = np.mean([_shift(column, here, k) for k in (0, 1, 2)], axis=0)
        highest = np.empty_like(column)
        for trace in np.split(np.arange(len(here)), np.flatnonzero(here == 0)[1:]):
            highest[trace] = np.maximum.accumulate(column[trace], axis=0)
        columns += [column, _shift(column, here, 1), highest, recent, _running_mean(column, here)]
    return np.concatenate([*columns, boundaries.statistics], axis=1, dtype=np.float32)


def _shift(values: np.ndarray, here: np.ndarray, steps: int) -> np.ndarray:
    """Values of `steps` boundaries ago, or the first boundary's if there are fewer."""
    return values[np.arange(len(values)) - np.minimum(here, steps)]


def _running_mean(values: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Mean over the trace's boundaries up to and including each one, [n, C]."""
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=np.float64)])
    end = np.arange(len(values)) + 1
    return (total[end] - total[end - 1 - here]) / (here + 1)[:, None]


def _folds_and_order(table: Boundaries, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(fold, place of the problem in a random order) of each boundary: samples of a problem have the same."""
    problems, problem = np.unique(np.asarray(table.problems), return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(problems))[problem][table.row]
    return place % min(_FOLDS, len(problems)), place


def _up_to(chosen: np.ndarray, order: np.ndarray, most: int) -> np.ndarray:
    """Of the chosen boundaries those of whole problems, in their order, until there are `most`; at least one problem."""
    counts = np.bincount(order[chosen], minlength=int(order.max()) + 1)
    reached = np.cumsum(counts)
    first = np.flatnonzero(counts)[0]
    return chosen & ((reached[order] <= most) | (order == first))


def _require_both(agree: np.ndarray) -> None:
    if len(agree) == 0 or agree.all() or not agree.any():
        raise ValueError(f"the ceiling needs boundaries that agree and others that do not; all {len(agree)} are alike")


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    return (values[start : start + _BLOCK] for start in range(0, len(values), _BLOCK))


def _share(logits: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-logits))


def _network(widths: tuple[int, ...], seed: int) -> MLPClassifier:
    return MLPClassifier(
        widths, alpha=1e-2, batch_size=256, learning_rate_init=1e-3, max_iter=30, early_stopping=True,
        n_iter_no_change=4, random_state=seed,
    )  # fmt: skip


def _fit(model: Any, columns: np.ndarray, agree: np.ndarray, chosen: np.ndarray) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping at a fixed number of epochs is intended
        return model.fit(columns[chosen], agree[chosen])


def _logit(model: Any, columns: np.ndarray) -> np.ndarray:
    p = np.clip(model.predict_proba(columns)[:, 1].astype(np.float64), 1e-6, 1 - 1e-6)
    return np.log(p) - np.log1p(-p)
