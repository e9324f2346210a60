"""How well something trivial alone tells the highest grade from the lowest: length, and a bag of words. With intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from conceptatlas.concepts.model import Concept
from conceptatlas.statistics import auroc_interval

FOLDS = 5
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Confound:
    """How well something trivial alone predicts the label.

    Attributes:
        auroc: Highest grade of the data against the lowest, ties ½; None where it could not be judged.
        spearman: Rank correlation with the grade over all items; None where it could not be judged.
        why_not: Why it could not be judged, else empty.
        auroc_low, auroc_high: The 95% interval of the AUROC (`statistics.auroc_interval`); None without one.
    """

    auroc: float | None
    spearman: float | None
    why_not: str = ""
    auroc_low: float | None = None
    auroc_high: float | None = None


def confound(
    scores: npt.NDArray[np.floating], labels: Ints, groups: npt.NDArray[np.generic], spearman: float | None
) -> Confound:
    """Return the AUROC of ``scores`` [N] with its interval; the units are the groups, [N]."""
    low, high = labels.min(initial=99), labels.max(initial=0)
    if low >= high:
        return Confound(None, spearman, "all items have the same label")
    ends = (labels == low) | (labels == high)
    units = np.unique(groups, return_inverse=True)[1]
    found = auroc_interval(scores[ends].astype(np.float64), labels[ends] == high, units[ends])
    return Confound(float(found.auroc), spearman, "", float(found.low), float(found.high))


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
