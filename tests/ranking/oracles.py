"""The slow, obvious computation of everything the ranking kernels compute, one feature at a time."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
from scipy import stats
from sklearn.metrics import roc_auc_score

from conceptatlas.ranking.columns import ItemColumns


def columns_of(dense: np.ndarray) -> ItemColumns:
    items, features = [], []
    indptr = [0]
    for f in range(dense.shape[1]):
        rows = np.flatnonzero(dense[:, f])
        items.append(rows)
        features.append(dense[rows, f])
        indptr.append(indptr[-1] + len(rows))
    return ItemColumns(
        np.array(indptr, dtype=np.int64),
        np.concatenate(items).astype(np.int32) if items else np.zeros(0, np.int32),
        np.concatenate(features).astype(np.float32) if features else np.zeros(0, np.float32),
    )


def slow_figures(x: np.ndarray, labels: np.ndarray, *, low: int = 0, high: int = 3) -> dict[str, float] | None:
    """All classic figures of one feature (x float [N]); None where it is constant."""
    x = x.astype(np.float64)
    if np.all(x == x[0]):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pearson = stats.pearsonr(x, labels)[0]
        spearman = stats.spearmanr(x, labels)[0]
    means = [x[labels == k].mean() if (labels == k).any() else np.nan for k in range(4)]
    present = [m for m in means if not np.isnan(m)]
    slack = 1e-12 * max(abs(m) for m in present)
    threshold = np.percentile(x[labels == low], 95)
    tpr = (x[labels == high] > threshold).mean()
    fpr = (x[labels == low] > threshold).mean()
    separation = (means[high] - means[low]) / x.std()
    pair = (labels == low) | (labels == high)
    return {
        "pearson": pearson,
        "spearman": spearman,
        **{f"mean_{k}": means[k] for k in range(4)},
        "threshold": threshold,
        "tpr": tpr,
        "fpr": fpr,
        "separation": separation,
        "monotonic": float(all(b - a >= -slack for a, b in itertools.pairwise(present))),
        "score": 0.4 * pearson + 0.3 * separation + 0.3 * (tpr - fpr),
        "auroc": roc_auc_score(labels[pair] == high, x[pair]),
        "n_active": float((x != 0).sum()),
    }
