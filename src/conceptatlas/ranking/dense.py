"""Dense baselines: directions in the hidden states, fitted on discovery and read as the features are pooled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from conceptatlas.ranking.baselines import PENALTIES, Baseline, Contest, rounded
from conceptatlas.ranking.hidden import Pooled
from conceptatlas.ranking.kernels import F64
from conceptatlas.statistics.logistic import fit_logistic

# (vectors of the items fitted on [n, D], their class) → a direction [D]
Direction = Callable[[F64, npt.NDArray[np.bool_]], F64]

DENSE = {
    "difference_of_means": "difference of means",
    "difference_of_means_whitened": "difference of means, whitened",
    "logistic": "logistic probe",
}


def mean_difference(x: F64, y: npt.NDArray[np.bool_]) -> F64:
    """Return mean of the highest grade − mean of the lowest, [D]."""
    return np.asarray(x[y].mean(axis=0) - x[~y].mean(axis=0))


def whitened_difference(x: F64, y: npt.NDArray[np.bool_]) -> F64:
    """Return Σ⁻¹ (mean of the highest grade − mean of the lowest), [D]: mass-mean probing (Marks & Tegmark 2023, §5).

    Σ is the covariance within classes, shrunk as Ledoit & Wolf (2004) do after each coordinate is scaled to unit
    variance, so that a coordinate of massive activations does not set the target of the shrinkage. It is inverted in
    the span of the n items (Woodbury), at a cost of n²·D.
    """
    centred = x - np.where(y[:, None], x[y].mean(axis=0), x[~y].mean(axis=0))
    scale = centred.std(axis=0)
    scale = np.where(scale > 1e-12 * np.abs(x).max(axis=0, initial=0), scale, np.inf)  # constant: not read
    centred, difference = centred / scale, mean_difference(x, y) / scale
    shrinkage, target = _ledoit_wolf(centred)
    n = len(x)
    if shrinkage * target <= 1e-12:
        return np.asarray(difference / scale)
    ridge, gram = shrinkage * target, (1 - shrinkage) / n * (centred @ centred.T)
    inner = np.linalg.solve(ridge * np.eye(n) + gram, centred @ difference)
    return np.asarray((difference - (1 - shrinkage) / n * (centred.T @ inner)) / ridge / scale)


def _ledoit_wolf(centred: F64) -> tuple[float, float]:
    """Return (shrinkage, target variance) of centred data [n, D], as ``sklearn.covariance.ledoit_wolf_shrinkage``.

    Everything is read off the Gram matrix, so that no D × D matrix is made.
    """
    n, d = centred.shape
    gram = centred @ centred.T
    norms = np.diag(gram)
    target = float(norms.sum() / (n * d))
    squares = float((gram**2).sum()) / n**2
    beta = (float((norms**2).sum()) / n - squares) / (d * n)
    delta = (squares - d * target**2) / d
    return (min(beta, delta) / delta if delta > 0 else 1.0), target


def logistic_direction(c: float) -> Direction:
    """Return the fit of a logistic probe on the standardised vectors, as a direction in the vectors themselves."""

    def fit(x: F64, y: npt.NDArray[np.bool_]) -> F64:
        scale = x.std(axis=0)
        scale = np.where(scale > 0, scale, np.inf)
        return np.asarray(fit_logistic((x - x.mean(axis=0)) / scale, y, c=c).weights / scale)

    return fit


def _judged(contest: Contest, pooled: Pooled, fits: list[Direction]) -> tuple[F64, list[float]]:
    """Return for each fit the scores of all items by the final direction [N, K], and its AUROC on discovery."""
    sets = contest.fitted_sets()
    found = [[fit(pooled.vectors[items], contest.is_high[items]) for items in sets] for fit in fits]
    scores = pooled.scores(np.column_stack([direction for by_set in found for direction in by_set]))
    by_fit = [scores[:, k * len(sets) : (k + 1) * len(sets)] for k in range(len(fits))]
    by_fit = [np.column_stack([rounded(column) for column in part.T]) for part in by_fit]
    return np.column_stack([part[:, 0] for part in by_fit]), [contest.out_of_fold(part)[0] for part in by_fit]


def difference_of_means(contest: Contest, pooled: Pooled, site: str, pool: str, *, whitened: bool = False) -> Baseline:
    """Score by the projection on the difference of the two grades' means, plain or ``whitened``."""
    kind = "difference_of_means_whitened" if whitened else "difference_of_means"
    scores, discovery = _judged(contest, pooled, [whitened_difference if whitened else mean_difference])
    return contest.entry(kind, DENSE[kind], scores[:, 0], discovery[0], site=site, pool=pool, detail=pooled.detail)


def logistic_probe(contest: Contest, pooled: Pooled, site: str, pool: str) -> Baseline:
    """Score by a logistic probe on the standardised hidden state; its penalty is chosen by the same folds."""
    scores, found = _judged(contest, pooled, [logistic_direction(c) for c in PENALTIES])
    best = max(range(len(PENALTIES)), key=lambda k: (np.nan_to_num(found[k], nan=-1.0), -k))
    detail = "; ".join(part for part in (f"C = {PENALTIES[best]:g}", pooled.detail) if part)
    return contest.entry(
        "logistic", DENSE["logistic"], scores[:, best], found[best], site=site, pool=pool, detail=detail
    )
