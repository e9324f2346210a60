"""How well something trivial alone tells the highest grade from the lowest: length, and a bag of words. With intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from conceptatlas.concepts.model import Concept

FOLDS = 5
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Confound:
    """How well something trivial alone predicts the label.

    Attributes:
        auroc: Highest grade of the data against the lowest, ties ½; None where it could not be judged.
        spearman: Rank correlation with the grade over all items; None where it could not be judged.
        why_not: Why it could not be judged, else empty.
        auroc_low, auroc_high: The 95% interval of the AUROC (see `auroc_bounds`); None without one.
    """

    auroc: float | None
    spearman: float | None
    why_not: str = ""
    auroc_low: float | None = None
    auroc_high: float | None = None


def auroc_of(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> float | None:
    """Return the AUROC of ``scores`` [N], the highest label of the data against the lowest (ties ½); None for one label."""
    high, low = scores[labels == labels.max(initial=0)], scores[labels == labels.min(initial=99)]
    if not len(high) or not len(low) or labels.max() == labels.min():
        return None
    ranks = stats.rankdata(np.concatenate([high, low]))[: len(high)]
    return float((ranks.sum() - len(high) * (len(high) + 1) / 2) / (len(high) * len(low)))


def auroc_bounds(auroc: float, n_high: int, n_low: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of an AUROC (Newcombe 2006, Statistics in Medicine 25:559, method 5).

    The bounds are the θ at which (auroc − θ)² = z²·V(θ), with the variance of Hanley and McNeil (1982) under exponential
    scores, V(θ) = θ(1 − θ)/(mn) · [1 + N*·((1 − θ)/(2 − θ) + θ/(1 + θ))] and N* = (m + n)/2 − 1 in both terms.

    Args:
        auroc: 0 to 1.
        n_high: Independent units (groups) of the high class, m.
        n_low: Of the low class, n.
        confidence: Coverage aimed at.
    """
    z = float(special.ndtri(0.5 + confidence / 2))
    star = (n_high + n_low) / 2 - 1

    def beyond(theta: float) -> float:
        shape = 1 + star * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return float((auroc - theta) ** 2 - z * z * theta * (1 - theta) / (n_high * n_low) * shape)

    inner = min(max(auroc, 1e-9), 1 - 1e-9)  # at 0 and 1 the figure itself solves the equation, too
    low = 0.0 if auroc <= 0 else float(optimize.brentq(beyond, 0.0, inner, xtol=1e-12))
    high = 1.0 if auroc >= 1 else float(optimize.brentq(beyond, inner, 1.0, xtol=1e-12))
    return low, high


def confound(
    scores: npt.NDArray[np.floating], labels: Ints, groups: npt.NDArray[np.generic], spearman: float | None
) -> Confound:
    """Return the AUROC of ``scores`` [N] with its interval; the units are the groups, [N]."""
    auroc = auroc_of(scores, labels)
    if auroc is None:
        return Confound(None, spearman, "all items have the same label")
    m, n = (len(np.unique(groups[labels == grade])) for grade in (labels.max(), labels.min()))
    return Confound(auroc, spearman, "", *auroc_bounds(auroc, m, n))


def rank_correlation(scores: npt.NDArray[np.floating], labels: Ints) -> float | None:
    """Return Spearman's correlation, None where either is constant."""
    constant = len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(labels) == 0
    return None if constant else float(stats.spearmanr(scores, labels).statistic)


def length_confound(concept: Concept, words: npt.NDArray[np.float64], labels: Ints) -> Confound:
    """Return how well the number of words [N] alone tells the grades apart."""
    return confound(words, labels, concept.items["split_hash"].to_numpy(), rank_correlation(words, labels))


def bag_of_words(concept: Concept, labels: Ints, seed: int) -> Confound:
    """Return out-of-fold figures, folds by group.

    Logistic regression tells the highest grade from the lowest, ridge regression gives the grade.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge

    if not any(char.isalnum() for text in concept.texts for char in text):
        return Confound(None, None, "the texts hold no words")
    counts = CountVectorizer(binary=True, token_pattern=r"(?u)\w+").fit_transform(concept.texts)
    groups = concept.items["split_hash"].to_numpy()
    ends = np.flatnonzero((labels == labels.min(initial=99)) | (labels == labels.max(initial=0)))
    judged, spearman = None, None
    folds = _folds(labels[ends], groups[ends], seed)
    if folds:
        scores = np.zeros(len(ends))
        for train, test in folds:
            model = LogisticRegression(max_iter=2000).fit(counts[ends[train]], labels[ends[train]])
            scores[test] = model.decision_function(counts[ends[test]])
        judged = scores
    folds = _folds(labels, groups, seed)
    if folds:
        scores = np.zeros(len(labels))
        for train, test in folds:
            scores[test] = Ridge(alpha=1.0, solver="lsqr").fit(counts[train], labels[train]).predict(counts[test])
        spearman = rank_correlation(scores, labels)
    if judged is None:
        return Confound(None, spearman, f"it takes {FOLDS} groups each of the highest and the lowest label")
    return confound(judged, labels[ends], groups[ends], spearman)


def _folds(
    labels: npt.NDArray[np.int64], groups: npt.NDArray[np.uint64], seed: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Return stratified folds by group; none where a grade has too few groups, or a fold would lack one."""
    from sklearn.model_selection import StratifiedGroupKFold

    present = np.unique(labels)
    if len(present) < 2 or any(len(np.unique(groups[labels == grade])) < FOLDS for grade in present):
        return []
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    folds = list(splitter.split(np.zeros(len(labels)), labels, groups))
    return folds if all(len(np.unique(labels[train])) == len(present) for train, _ in folds) else []
