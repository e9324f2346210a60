"""The figures of one chunk of features on both sides of the split."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from conceptatlas.ranking import kernels
from conceptatlas.ranking.columns import ItemColumns
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.kernels import F64, SortedColumns

W_PEARSON, W_SEPARATION, W_RATES = 0.4, 0.3, 0.3
CONFOUNDED_BELOW = 0.5

Figures = dict[str, npt.NDArray[np.float64]]

# Every figure of a feature, in the order in which they are stored; each float64 [F].
FIGURES = (
    "interpretability_score",
    "pearson_corr",
    "spearman_corr",
    "separation_score",
    "tpr",
    "fpr",
    "mean_label_0",
    "mean_label_1",
    "mean_label_2",
    "mean_label_3",
    "monotonic",
    "n_active",
    "auroc",
    "pearson_holdout",
    "auroc_holdout",
    "tpr_holdout",
    "fpr_holdout",
    "threshold",
    "falling",
    "partial_corr",
)


def score_columns(columns: ItemColumns, design: Design, *, direction: str = "up") -> Figures:
    """Return every figure of ``FIGURES`` for the features of ``columns``, float64 [F]; empty ones are NaN.

    ``interpretability_score = 0.4·pearson + 0.3·separation + 0.3·(tpr − fpr)`` with separation = (mean of the highest
    grade − mean of the lowest) / population standard deviation over discovery, threshold = 95th percentile of the
    lowest grade, tpr and fpr the shares of highest- and lowest-grade items strictly above it. The hold-out's rates
    are taken at the discovery threshold.

    A feature that *falls* with the concept (every one with ``direction="down"``, those of negative Pearson with
    ``"both"``) is judged with the grades turned round: its threshold is the 95th percentile of the highest grade, its
    tpr the share of lowest-grade items above it, and Pearson and separation enter the score with their signs turned.
    The stored Pearson, Spearman, separation, AUROC and means keep their own signs.

    A feature that is constant on discovery has NaN for its score.
    """
    discovery, held = kernels.sort_columns(columns, design.labels, design.holdout)
    found = kernels.moments(discovery)
    means, low, high = found.mean_by_grade, design.low, design.high
    falling = falling_features(found.pearson, direction)
    contrast = kernels.separation(discovery, low=low, high=high)
    assert contrast is not None  # a Design holds only grades that discovery has
    std = np.sqrt(found.variance_sum / discovery.n_items)
    with np.errstate(divide="ignore", invalid="ignore"):
        separation = np.where(found.constant, np.nan, (means[:, high] - means[:, low]) / std)
    threshold = _threshold(discovery, falling, design)
    tpr, fpr = _rates(discovery, threshold, falling, design)
    tpr_holdout, fpr_holdout = _rates(held, threshold, falling, design)
    sign = np.where(falling, -1.0, 1.0)
    present = discovery.grade_counts > 0
    monotonic = np.where(
        falling,
        kernels.is_monotonic(means, present, falling=True),
        kernels.is_monotonic(means, present, falling=False),
    )
    return {
        "interpretability_score": W_PEARSON * sign * found.pearson
        + W_SEPARATION * sign * separation
        + W_RATES * (tpr - fpr),
        "pearson_corr": found.pearson,
        "spearman_corr": kernels.spearman(discovery, found.constant),
        "separation_score": separation,
        "tpr": tpr,
        "fpr": fpr,
        **{f"mean_label_{grade}": means[:, grade] for grade in range(kernels.N_GRADES)},
        "monotonic": monotonic.astype(np.float64),
        "n_active": discovery.stored.sum(axis=1),
        "auroc": contrast,
        **_held_out(held, design),
        "tpr_holdout": tpr_holdout,
        "fpr_holdout": fpr_holdout,
        "threshold": threshold,
        "falling": falling.astype(np.float64),
        "partial_corr": partial_correlation(columns, design, found.variance_sum),
    }


def falling_features(pearson: F64, direction: str) -> npt.NDArray[np.bool_]:
    """Return which features are judged as falling with the concept, bool [F]."""
    return pearson < 0 if direction == "both" else np.full(len(pearson), direction == "down")


def _threshold(discovery: SortedColumns, falling: npt.NDArray[np.bool_], design: Design) -> F64:
    if not falling.any():
        return kernels.grade_percentile(discovery, design.low)
    fallen = kernels.grade_percentile(discovery, design.high)
    return fallen if falling.all() else np.where(falling, fallen, kernels.grade_percentile(discovery, design.low))


def _rates(data: SortedColumns, threshold: F64, falling: npt.NDArray[np.bool_], design: Design) -> tuple[F64, F64]:
    """Return (tpr, fpr) at ``threshold``: of the highest and lowest grade, or the other way round where falling."""
    above = kernels.share_above(data, threshold)
    high, low = above[:, design.high], above[:, design.low]
    return np.where(falling, low, high), np.where(falling, high, low)


def _held_out(held: SortedColumns, design: Design) -> Figures:
    contrast = kernels.separation(held, low=design.low, high=design.high)
    empty = np.full(held.n_features, np.nan)
    return {
        "pearson_holdout": kernels.moments(held).pearson if held.n_items else empty,
        "auroc_holdout": empty if contrast is None else contrast,
    }


def partial_correlation(columns: ItemColumns, design: Design, variance_sum: F64) -> F64:
    """Return Pearson's correlation with the grade given the confounds, on discovery, float64 [F].

    Both sides are residuals of a least-squares fit on a constant and the confounds (sentence length and token count);
    NaN where nothing is left of the feature or the label.
    """
    discovery = design.discovery
    y = design.labels[discovery] - design.labels[discovery].mean()
    basis = _orthonormal(design.confounds[discovery])
    residual = y - basis @ (basis.T @ y)
    norm = float(residual @ residual)
    if norm <= 1e-9 * float(y @ y):
        return np.full(columns.n_features, np.nan)
    weights = np.zeros((design.n_items, 1 + basis.shape[1]))
    weights[discovery] = np.column_stack([residual, basis])
    matrix = sp.csr_matrix(
        (columns.values.astype(np.float64), columns.items, columns.indptr), shape=(columns.n_features, design.n_items)
    )
    projected = matrix @ weights
    left = variance_sum - (projected[:, 1:] ** 2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        partial = np.clip(projected[:, 0] / np.sqrt(left * norm), -1, 1)
        return np.where(left > 1e-9 * variance_sum, partial, np.nan)


def _orthonormal(confounds: F64) -> F64:
    """Return an orthonormal basis of the centred columns (those that are constant or repeat others give none)."""
    centred = confounds - confounds.mean(axis=0)
    scale = np.linalg.norm(centred, axis=0)
    centred = centred[:, scale > 0] / scale[scale > 0]
    if not centred.shape[1]:
        return np.zeros((len(confounds), 0))
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    return np.asarray(left[:, singular > 1e-9])


def is_confounded(pearson: F64, partial: F64) -> npt.NDArray[np.bool_]:
    """Return where the effect falls by more than half once the confounds are held fixed, bool [F].

    Where nothing is left of the feature (or of the grade) beside the confounds, the partial correlation is NaN: it is all
    confound. A feature without a correlation is not confounded.
    """
    with np.errstate(invalid="ignore"):
        holds = partial * np.sign(pearson) >= CONFOUNDED_BELOW * np.abs(pearson)
    return np.asarray(~holds & ~np.isnan(pearson))
