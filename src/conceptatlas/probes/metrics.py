"""Figures of merit with weights, so that a bootstrap is one matrix product.

Letters: B resamples, n samples, C classes. Weights are how often each sample was drawn, [B, n]; the figure itself is
the case B = 1 with weights 1. Every figure equals scikit-learn's (or SciPy's) on the resampled rows; where a figure is
not defined (one class, no variance) it is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from conceptatlas.statistics import auroc_interval

F64 = npt.NDArray[np.float64]

# Entries of the weights held at once: 32 MB in float64.
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Outcome:
    """What a probe said of n samples, beside the truth.

    Attributes:
        truth: Class or value, [n].
        predicted: Class or value, [n].
        scores: Of each class, higher is likelier, [n, C]; None for a regression.
        classes: The C classes, ascending; None for a regression.
    """

    truth: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.float64]
    scores: F64 | None = None
    classes: npt.NDArray[np.int64] | None = None


Metric = Callable[[Outcome, F64], F64]


def _divide(a: F64, b: F64) -> F64:
    return np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=b != 0)


def _mean(values: F64, weights: F64) -> F64:
    return _divide(weights @ values, weights.sum(axis=1))


def weighted_midranks(values: F64, weights: F64) -> F64:
    """Return the mid-rank that each sample has among the resampled ones, [B, n] (ties share their mean rank)."""
    order = np.argsort(values, kind="stable")
    in_order = values[order]
    first = np.ones(len(values), dtype=bool)
    first[1:] = in_order[1:] != in_order[:-1]
    starts = np.flatnonzero(first)
    mass = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks = np.cumsum(mass, axis=1) - mass + (mass + 1) / 2
    place = np.empty(len(values), dtype=np.int64)
    place[order] = np.cumsum(first) - 1
    return ranks[:, place]


def weighted_auroc(scores: F64, positive: npt.NDArray[np.bool_], weights: F64) -> F64:
    """Return the area under the ROC curve, [B]: Mann–Whitney U over pairs, ties count ½."""
    ranks = weighted_midranks(scores, weights)
    n_positive = weights[:, positive].sum(axis=1)
    n_negative = weights[:, ~positive].sum(axis=1)
    u = (weights[:, positive] * ranks[:, positive]).sum(axis=1) - n_positive * (n_positive + 1) / 2
    return _divide(u, n_positive * n_negative)


def accuracy(outcome: Outcome, weights: F64) -> F64:
    """Share of samples given their own class."""
    return _mean((outcome.truth == outcome.predicted).astype(np.float64), weights)


def f1_macro(outcome: Outcome, weights: F64) -> F64:
    """F1, averaged over the classes that occur or are predicted."""
    parts = []
    for label in np.union1d(outcome.truth, outcome.predicted):
        true, said = outcome.truth == label, outcome.predicted == label
        hits = weights @ (true & said).astype(np.float64)
        parts.append(_divide(2 * hits, weights @ true.astype(np.float64) + weights @ said.astype(np.float64)))
    stacked = np.stack(parts)
    present = ~np.isnan(stacked)
    return _divide(np.where(present, stacked, 0).sum(axis=0), present.sum(axis=0).astype(np.float64))


def roc_auc(outcome: Outcome, weights: F64) -> F64:
    """AUROC of the higher class with two classes, else the mean over one class against the rest (all must occur)."""
    if outcome.scores is None or outcome.classes is None:
        raise ValueError("roc_auc needs the scores of classes.")
    if len(outcome.classes) == 2:
        return weighted_auroc(outcome.scores[:, 1], outcome.truth == outcome.classes[1], weights)
    parts = [weighted_auroc(outcome.scores[:, i], outcome.truth == c, weights) for i, c in enumerate(outcome.classes)]
    return np.mean(parts, axis=0)


def mae(outcome: Outcome, weights: F64) -> F64:
    """Mean absolute error, in the target's unit."""
    return _mean(np.abs(outcome.truth - outcome.predicted), weights)


def mse(outcome: Outcome, weights: F64) -> F64:
    """Mean squared error."""
    return _mean((outcome.truth - outcome.predicted) ** 2, weights)


def r2(outcome: Outcome, weights: F64) -> F64:
    """Coefficient of determination: 1 - squared error / squared deviation from the mean."""
    mean = _mean(outcome.truth, weights)
    total = (weights * (outcome.truth - mean[:, None]) ** 2).sum(axis=1)
    return 1 - _divide(weights @ ((outcome.truth - outcome.predicted) ** 2), total)


def quadratic_kappa(outcome: Outcome, weights: F64) -> F64:
    """Cohen's kappa with weights that grow with the square of the distance (Cohen 1968).

    Predictions that are not whole grades are rounded and kept within the grades that occur.
    """
    labels = np.unique(outcome.truth)
    predicted = outcome.predicted
    if outcome.classes is None:
        predicted = np.clip(np.floor(predicted + 0.5), labels[0], labels[-1])
    observed = weights @ (outcome.truth - predicted) ** 2
    total = weights.sum(axis=1)
    mean_true, mean_said = _mean(outcome.truth, weights), _mean(predicted, weights)
    # Chance agreement: E(t - p)^2 with truth and prediction independent = var t + var p + (mean t - mean p)^2.
    spread = _mean(outcome.truth**2, weights) - mean_true**2 + _mean(predicted**2, weights) - mean_said**2
    expected = total * (spread + (mean_true - mean_said) ** 2)
    return 1 - _divide(observed, np.where(expected < 1e-12 * total, 0.0, expected))


def spearman(outcome: Outcome, weights: F64) -> F64:
    """Spearman's rank correlation of truth and prediction."""
    a, b = weighted_midranks(outcome.truth, weights), weighted_midranks(outcome.predicted, weights)
    total = weights.sum(axis=1, keepdims=True)
    a = a - (weights * a).sum(axis=1, keepdims=True) / total
    b = b - (weights * b).sum(axis=1, keepdims=True) / total
    scale = np.sqrt((weights * a**2).sum(axis=1) * (weights * b**2).sum(axis=1))
    return _divide((weights * a * b).sum(axis=1), scale)


def active_auroc(outcome: Outcome, weights: F64) -> F64:
    """AUROC of the predicted activation for telling active (above 0) from inactive samples."""
    return weighted_auroc(outcome.predicted, outcome.truth > 0, weights)


def point(metric: Metric, outcome: Outcome) -> float | None:
    """Return the figure itself, or None where it is not defined."""
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(metric(outcome, np.ones((1, len(outcome.truth))))[0])
    return None if np.isnan(value) else value


Bounds = tuple[float, float]


def accuracy_bounds(outcome: Outcome, groups_n: npt.NDArray[np.integer], level: float) -> Bounds:
    """Return Clopper and Pearson's bounds on the effective number of samples (Korn and Graubard 1998).

    The number of samples is divided by the design effect (variance by group over that of independent samples; at least 1)
    and is never more than (Σ sizes)² / Σ sizes², which is the number of groups where they are of one size: so that one
    error less never lowers a bound, and no error at all has an interval, too.
    """
    right = outcome.truth == outcome.predicted
    n, share = len(right), float(right.mean())
    sizes = np.bincount(groups_n)
    sizes = sizes[sizes > 0]
    sums = np.bincount(groups_n, right - share)
    independent = share * (1 - share) / max(n - 1, 1)
    clustered = len(sizes) / max(len(sizes) - 1, 1) * float(sums @ sums) / n**2
    effect = max(1.0, clustered / independent) if independent > 0 else 1.0
    # Each of the two variances was estimated with one degree of freedom less.
    effective = min(1 + (n - 1) / effect, n**2 / float(sizes @ sizes))
    hits, tail = share * effective, (1 - level) / 2
    low = float(beta.ppf(tail, hits, effective - hits + 1)) if share > 0 else 0.0
    return low, float(beta.ppf(1 - tail, hits + 1, effective - hits)) if share < 1 else 1.0


def roc_auc_bounds(outcome: Outcome, groups_n: npt.NDArray[np.integer], level: float) -> Bounds:
    """Return the bounds of ``auroc_interval``; with more than two classes the means of the bounds of each.

    The latter are right where the classes' errors go together, and else too wide.
    """
    assert outcome.scores is not None
    assert outcome.classes is not None
    pairs = list(zip(outcome.scores.T, outcome.classes, strict=True))
    found = [
        auroc_interval(scores, outcome.truth == label, groups_n, confidence=level)
        for scores, label in (pairs[1:] if len(pairs) == 2 else pairs)
    ]
    return float(np.mean([each.low for each in found])), float(np.mean([each.high for each in found]))


def active_auroc_bounds(outcome: Outcome, groups_n: npt.NDArray[np.integer], level: float) -> Bounds:
    """Return the bounds of ``auroc_interval``."""
    found = auroc_interval(outcome.predicted, outcome.truth > 0, groups_n, confidence=level)
    return found.low, found.high


# Figures near 1 more often than not, where a bootstrap is too narrow (at 1 it has no width at all).
_BOUNDS: dict[Metric, Callable[[Outcome, npt.NDArray[np.integer], float], Bounds]] = {
    accuracy: accuracy_bounds,
    roc_auc: roc_auc_bounds,
    active_auroc: active_auroc_bounds,
}


def interval(
    metric: Metric,
    outcome: Outcome,
    groups_n: npt.NDArray[np.integer],
    *,
    resamples: int,
    rng: np.random.Generator,
    level: float = 0.95,
) -> Bounds | None:
    """Return the interval of a figure, by group; None where it is not defined, or where none is asked for.

    For accuracy and AUROC see ``accuracy_bounds`` and ``roc_auc_bounds``. For the others it is the percentile bootstrap over
    groups (Efron and Tibshirani 1993, ch. 13): whole groups are drawn, because the items of one are not independent. None
    where no resample differs from another.

    Args:
        metric: The figure.
        outcome: What the probe said.
        groups_n: The group of each sample, [n].
        resamples: B; 0 asks for no interval, whatever the figure.
        rng: Draws the groups.
        level: Coverage.
    """
    if resamples < 1 or point(metric, outcome) is None:
        return None
    groups, dense = np.unique(groups_n, return_inverse=True)
    if metric in _BOUNDS:
        return _BOUNDS[metric](outcome, dense, level)
    values = []
    step = max(1, _BLOCK // max(len(dense), len(groups), 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        for start in range(0, resamples, step):
            size = min(step, resamples - start)
            draws = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=size)
            values.append(metric(outcome, draws[:, dense].astype(np.float64)))
    drawn = np.concatenate(values)
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn) < max(1, resamples // 2):
        return None  # in most resamples the figure is not defined
    tail = (1 - level) / 2
    low, high = (float(each) for each in np.quantile(drawn, [tail, 1 - tail]))
    return (low, high) if high > low else None  # no resample differs: the bootstrap says nothing
