"""Ridge regressions on one matrix of inputs, many at a time: logistic ones and least squares, for a path of ridges.

The matrix may take gigabytes (30,000 x 12,288), so it is never copied. Each ridge has one Cholesky factor L of the Gram matrix
plus ridge, and L-BFGS (scipy) runs on u = L^T w, where every loss curves nearly alike in all directions. That takes some tens
of passes over the matrix for all regressions together; a Newton step of one alone would cost as much as the Gram matrix.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.linalg import blas, lapack
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

_SMALL = 2**25  # numbers in a matrix that is computed in float64; larger ones stay in float32, with losses in float64
_QUICK = 2**21  # numbers in a matrix for which threads cost more than they spare: on a busy machine 100 times more
_STEPS = 300


class Regressions:
    """C regressions on inputs [N, A]: of targets [N, C], with weights [N, C], by links ("logit" or "log") [C].

    A logistic loss is divided by the variance of its label, so that a ridge means the same for all. A ridge applies to inputs
    scaled to unit mean square. An input that hardly varies (a constant of the residual stream) serves as the intercept.
    """

    def __init__(self, inputs: np.ndarray, targets: np.ndarray, weights: np.ndarray, links: Sequence[str]):
        self._x = inputs if inputs.size > _SMALL else inputs.astype(np.float64)
        square = np.einsum("na,na->a", inputs, inputs, dtype=np.float64) / len(inputs)
        if not np.isfinite(square).all():
            raise ValueError(
                "the inputs of the signals hold values that are not finite: the target or the draft is broken"
            )
        self._scale = 1.0 / np.sqrt(square + 1e-12)
        self._targets, self._logistic = targets.astype(np.float64), np.asarray(links) == "logit"
        self._weights = weights / np.where(self._logistic, _variance(self._targets, weights), 1.0)

    def solve(self, ridges: Sequence[float]) -> Iterator[np.ndarray]:
        """For each ridge, the columns [A, C] in float64 that minimise weights * loss, summed over N, + ridge / 2 |scaled|^2."""
        gram, columns = self._gram(), np.zeros((self._x.shape[1], self._targets.shape[1]))
        for ridge in ridges:
            with threadpool_limits(1 if self._x.size < _QUICK else None):
                columns = self._solve(gram, ridge, columns)
            yield self._scale[:, None] * columns

    def _solve(self, gram: np.ndarray, ridge: float, start: np.ndarray) -> np.ndarray:
        factor = gram.astype(np.float64, order="F")
        slack = np.finfo(self._x.dtype).eps * len(self._x) * len(gram) ** 0.5  # the Gram matrix is rounded
        factor[np.diag_indices_from(factor)] += ridge + slack
        factor, failed = lapack.dpotrf(factor, lower=1, clean=0, overwrite_a=1)
        if failed:
            raise ArithmeticError(f"the Gram matrix plus a ridge of {ridge:g} is not positive definite")
        return self._minimum(factor, ridge, start)

    def raw(self, columns: np.ndarray) -> np.ndarray:
        """float64 [N, C]: the outputs of columns [A, C]."""
        return (self._x @ columns.astype(self._x.dtype)).astype(np.float64)

    def _gram(self) -> np.ndarray:
        """[A, A] of the scaled inputs, its lower triangle."""
        product = blas.dsyrk if self._x.dtype == np.float64 else blas.ssyrk
        gram = product(1.0, self._x.T, lower=1)
        scale = self._scale.astype(gram.dtype)
        gram *= scale[:, None]
        gram *= scale[None]
        return gram

    def _minimum(self, factor: np.ndarray, ridge: float, start: np.ndarray) -> np.ndarray:
        """From the columns `start` on."""
        shape, scale = start.shape, self._scale[:, None]

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            columns = lapack.dtrtrs(factor, flat.reshape(shape), lower=1, trans=1)[0]
            value, slope = self._loss(self.raw(scale * columns))
            pull = scale * (self._x.T @ slope.astype(self._x.dtype)).astype(np.float64) + ridge * columns
            gradient = lapack.dtrtrs(factor, pull, lower=1)[0]
            return value + ridge / 2 * float(np.sum(columns**2)), gradient.ravel()

        first = blas.dtrmm(1.0, factor, start, lower=1, trans_a=1).ravel()
        flat = minimize(loss, first, jac=True, method="L-BFGS-B", options=_options(self._x.dtype)).x
        return lapack.dtrtrs(factor, flat.reshape(shape), lower=1, trans=1)[0]

    def _loss(self, raw: np.ndarray) -> tuple[float, np.ndarray]:
        """The weighted loss, and its slope in each output [N, C]."""
        own, apart = self._logistic, raw - self._targets
        value, slope = apart**2 / 2, apart
        value[:, own] = np.logaddexp(0.0, raw[:, own]) - raw[:, own] * self._targets[:, own]
        slope[:, own] = 1.0 / (1.0 + np.exp(-raw[:, own])) - self._targets[:, own]
        return float(np.sum(self._weights * value)), self._weights * slope


def _variance(targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    mean = np.clip(np.sum(weights * targets, axis=0) / np.maximum(np.sum(weights, axis=0), 1e-12), 0.0, 1.0)
    return np.maximum(mean * (1.0 - mean), 1e-2)


def _options(dtype: np.dtype) -> dict:
    """L-BFGS ends when a step lets the loss fall by less than this share of it."""
    return {"maxiter": _STEPS, "maxcor": 20, "ftol": 1e-11 if dtype == np.float64 else 1e-7, "gtol": 0.0}
