"""`ceiling`: the best causal exit that the captured features allow, a large offline probe of P(forced answer agrees).

Two stages. A small network on the features of the boundary token gives a first score, cross-fitted by problem; gradient
boosted trees and a larger network then see that score, its past, and the features and their past. The better of the
two, or their mean, by AUC on held-out problems of the training split, is the probe. It is thresholded like every exit
(`bounds.choose_threshold` on the development split).
"""

import dataclasses
import warnings
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from specexit_jax.evaluation.bounds import Boundaries, select
from specexit_jax.evaluation.score_quality import auc

_COMPONENTS = 320  # principal components of the boundary token's features, all of them where there are fewer
_PAST = 32  # leading components whose past is also an input
_HELD_OUT = 7  # one problem in this many is held out to choose between the models


@dataclasses.dataclass(frozen=True)
class Ceiling:
    """A fitted probe; `scores` are its P(agree). held_out: AUC on held-out training traces, by model."""

    centre: np.ndarray
    projection: np.ndarray  # [A, components]: standardise, rotate, whiten
    first_stage: tuple[MLPClassifier, ...]
    models: tuple[Any, ...]
    held_out: dict[str, float]
    chosen: str

    def scores(self, boundaries: Boundaries) -> np.ndarray:
        """float64[n]: each from the boundary's own trace, up to that boundary alone."""
        projected = (boundaries.features - self.centre) @ self.projection
        first = np.mean([_logit(model, projected) for model in self.first_stage], axis=0)
        columns = causal_columns(boundaries, projected, first)
        return 1.0 / (1.0 + np.exp(-np.mean([_logit(model, columns) for model in self.models], axis=0)))


def fit_ceiling(train: Boundaries, max_boundaries: int = 100_000, seed: int = 0, trees: int = 150) -> Ceiling:
    """Fits the probe on boundaries of the draft-training split, whole traces subsampled to about `max_boundaries`.

    trees: boosting rounds. Raises ValueError without features, or when all boundaries agree or none does.
    """
    if train.features.shape[1] == 0:
        raise ValueError("the ceiling needs captured features at every boundary; none were given")
    rng = np.random.default_rng(seed)
    train, order = _subset(train, rng, max_boundaries)
    if len(train.agree) == 0 or train.agree.all() or not train.agree.any():
        raise ValueError(
            f"the ceiling needs boundaries that agree and others that do not; all {len(train.agree)} are alike"
        )
    centre, projection = _whitening(train.features)
    projected = (train.features - centre) @ projection
    fitted = order % _HELD_OUT != 0
    even = order % 2 == 0
    first_stage, first = [], np.zeros(len(order))
    for side in (even, ~even):  # every boundary is scored by the network that has not seen its trace
        model = _fit(_network((64,), seed), projected, train.agree, fitted & ~side)
        first[side] = _logit(model, projected[side])
        first_stage.append(model)
    columns = causal_columns(train, projected, first)
    boosted = HistGradientBoostingClassifier(
        max_iter=trees, learning_rate=0.08, l2_regularization=1.0, early_stopping=False, random_state=seed
    )
    models = {"trees": boosted, "network": _network((96, 48), seed)}
    logits = {}
    for name, model in models.items():
        logits[name] = _logit(_fit(model, columns, train.agree, fitted), columns[~fitted])
    logits["both"] = np.mean(list(logits.values()), axis=0)
    held_out = {name: auc(train.agree[~fitted], values) for name, values in logits.items()}
    chosen = max(held_out, key=held_out.get)
    kept = tuple(models.values()) if chosen == "both" else (models[chosen],)
    return Ceiling(centre, projection, tuple(first_stage), kept, held_out, chosen)


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


def _subset(train: Boundaries, rng: np.random.Generator, most: int) -> tuple[Boundaries, np.ndarray]:
    """Whole traces, in random order of problems until `most` boundaries, and the place of each boundary's problem in that order.

    A trace that never closed its thinking has no answer to agree with, and is left out.
    """
    problems, problem = np.unique(np.asarray(train.problems), return_inverse=True)
    place = rng.permutation(len(problems))[problem]
    counts = np.diff(train.starts) * train.closed
    reached = np.empty(len(counts), np.int64)
    order = np.argsort(place, kind="stable")
    reached[order] = np.cumsum(counts[order])
    chosen = train.closed & (reached <= max(most, counts.max(initial=0)))
    subset = select(train, chosen[train.row])
    return subset, place[subset.row]


def _whitening(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(centre [A], projection [A, P]): standardised, rotated to principal axes, each of unit variance."""
    centre, scale = features.mean(axis=0), features.std(axis=0) + 1e-6
    standard = ((features - centre) / scale).astype(np.float64)
    values, vectors = np.linalg.eigh(standard.T @ standard / len(standard))
    kept = np.argsort(values)[::-1][:_COMPONENTS]
    floor = 1e-4 * values.max()  # directions without variance are not amplified
    projection = vectors[:, kept] / np.sqrt(np.maximum(values[kept], floor)) / scale[:, None]
    return centre, projection.astype(np.float32)


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
