"""Logistic regression with an L2 penalty, by Newton's method: small, exact, and the same everywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from conceptatlas.statistics.auroc import F64

_STEPS, _TOLERANCE = 100, 1e-8


@dataclass(frozen=True)
class Logistic:
    """Weights [D] and intercept of a fitted model."""

    weights: F64
    intercept: float

    def scores(self, x: npt.NDArray[np.floating]) -> F64:
        """Return the log-odds of each line of ``x`` [N, D], float64 [N]."""
        return np.asarray(x @ self.weights + self.intercept)


def fit_logistic(x: npt.NDArray[np.floating], y: npt.NDArray[np.bool_], *, c: float = 1.0) -> Logistic:
    """Fit ½‖w‖² + C·Σ log-loss, the intercept free (scikit-learn's ``LogisticRegression(C=c)``).

    Args:
        x: Features, [N, D]; D may be far above N (the fit then runs in the span of the items).
        y: The class, bool [N]; both must occur.
        c: C, the inverse of the penalty's strength.
    """
    x = x.astype(np.float64)
    if x.shape[1] > len(x):
        # w lies in the span of the items: rotate to it (the penalty does not change), fit there, rotate back.
        values, vectors = np.linalg.eigh(x @ x.T)
        some = values > 1e-12 * max(float(values[-1]), 0.0)
        root, vectors = np.sqrt(values[some]), vectors[:, some]
        inner = fit_logistic(vectors * root, y, c=c)
        return Logistic(x.T @ (vectors @ (inner.weights / root)), inner.intercept)
    design = np.column_stack([x, np.ones(len(x))])
    penalty = np.append(np.full(x.shape[1], 1 / c), 0.0)
    w = np.zeros(design.shape[1])
    w[-1] = np.log(y.mean() / (1 - y.mean()))
    sign = np.where(y, 1.0, -1.0)
    loss = _loss(design, sign, w, penalty)
    for _ in range(_STEPS):
        p = expit(design @ w)
        gradient = design.T @ (p - y) + penalty * w
        if np.abs(gradient).max() < _TOLERANCE * max(1.0, len(y)):
            break
        hessian = (design * (p * (1 - p))[:, None]).T @ design + np.diag(penalty)
        hessian[-1, -1] += 1e-12  # the intercept has no penalty; keeps a saturated fit solvable
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-10:  # halve until the loss falls: far from the optimum a whole step may overshoot
            tried = w - size * step
            new = _loss(design, sign, tried, penalty)
            if new <= loss:
                w, loss = tried, new
                break
            size /= 2
        else:
            break
    return Logistic(w[:-1], float(w[-1]))


def _loss(design: F64, sign: F64, w: F64, penalty: F64) -> float:
    return float(np.logaddexp(0, -sign * (design @ w)).sum() + 0.5 * (penalty * w * w).sum())
