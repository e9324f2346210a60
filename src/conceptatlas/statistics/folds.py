"""Folds by group for cross-validation within discovery, and the AUROC that they report."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from conceptatlas.statistics.auroc import auroc

N_FOLDS = 5


def group_folds(
    labels: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], rng: np.random.Generator, count: int = N_FOLDS
) -> npt.NDArray[np.int64]:
    """Return the fold of each item, int64 [N]: whole groups, dealt out label by label in random order.

    A group belongs to the label that most of its items have (the higher one at a tie).
    """
    units, inverse = np.unique(groups, return_inverse=True)
    votes = np.zeros((len(units), int(labels.max(initial=0)) + 1))
    np.add.at(votes, (inverse, labels), 1)
    label_of_unit = votes.shape[1] - 1 - np.argmax(votes[:, ::-1], axis=1)
    fold = np.zeros(len(units), dtype=np.int64)
    begin = 0
    for label in np.unique(label_of_unit):
        members = rng.permutation(np.flatnonzero(label_of_unit == label))
        fold[members] = (begin + np.arange(len(members))) % count
        begin += len(members)
    return fold[inverse]


def mean_auroc(scores: npt.NDArray[np.floating], is_high: npt.NDArray[np.bool_], fold: npt.NDArray[np.int64]) -> float:
    """Return the mean over folds of the AUROC within the fold (NaN where no fold holds both classes).

    Scores of different folds come from different fits, and are not compared with each other.
    """
    found = [auroc(scores[fold == f], is_high[fold == f]) for f in np.unique(fold)]
    found = [value for value in found if not np.isnan(value)]
    return float(np.mean(found)) if found else float("nan")
