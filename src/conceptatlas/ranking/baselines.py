"""What a sceptic would ask for beside the best feature: the simpler ways to tell the same items apart.

All of them tell the highest grade from the lowest, are fitted on discovery only, and report AUROC: on discovery by
cross-validation over groups where something is fitted, on hold-out with its interval. Per site: difference of means
(Marks & Tegmark 2023), a logistic probe on the hidden state of the final row, the best feature of a frozen-random SAE
of the same shape and L0, and k-sparse probes on the SAEs' features (Gurnee et al. 2023). Of the text alone: bag of
words (TF-IDF and logistic regression) and its length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from conceptatlas.ranking.design import Design
from conceptatlas.ranking.kernels import F64
from conceptatlas.statistics import auroc, auroc_interval
from conceptatlas.statistics.folds import group_folds, mean_auroc
from conceptatlas.statistics.logistic import fit_logistic

PENALTIES = (0.001, 0.01, 0.1, 1.0)

# (training features, training class, features to score) → scores of the latter
Fit = Callable[[npt.NDArray[np.floating], npt.NDArray[np.bool_], npt.NDArray[np.floating]], F64]


@dataclass(frozen=True)
class Baseline:
    """One baseline at one site (or of the text alone: ``site`` is empty)."""

    baseline: str
    """``difference_of_means``, ``logistic``, ``random_sae``, ``k_sparse``, ``bag_of_words`` or ``length``."""
    name: str
    site: str
    layer: int | None
    k: int | None
    auroc_discovery: float | None
    """AUROC on discovery: the mean over cross-validation folds; of what is only chosen, on all of discovery."""
    auroc_holdout: float | None
    low: float | None
    """Lower bound of the 95% interval of ``auroc_holdout``."""
    high: float | None
    detail: str = ""

    def as_dict(self) -> dict[str, object]:
        """Return the entry as it stands in ``baselines.json``."""
        return asdict(self)


def layer_of(site: str) -> int | None:
    """Return the layer in a site's name, or None (``embed``)."""
    found = re.match(r"blocks\.(\d+)\.", site)
    return int(found.group(1)) if found else None


class Contest:
    """The items on which baselines are judged, and how."""

    def __init__(self, design: Design, seed: int) -> None:
        self.design = design
        pair = np.isin(design.labels, (design.low, design.high))
        self.is_high = design.labels == design.high
        self.train = np.flatnonzero(pair & design.discovery)
        self.test = np.flatnonzero(pair & design.holdout)
        self.fold = group_folds(design.labels[self.train], design.groups[self.train], np.random.default_rng([seed, 1]))

    def splits(self) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
        """Yield (fitted on, judged on) over the training items, bool [n] each; both classes are fitted on."""
        y = self.is_high[self.train]
        for f in np.unique(self.fold):
            inside = self.fold != f
            if y[inside].any() and not y[inside].all():
                yield inside, ~inside

    def cross_validated(self, x: npt.NDArray[np.floating], fit: Fit) -> float:
        """Return the mean AUROC over folds of ``fit`` on the training items' ``x`` [n, D]."""
        y = self.is_high[self.train]
        scores, judged = np.zeros(len(y)), np.zeros(len(y), dtype=bool)
        for inside, outside in self.splits():
            scores[outside] = fit(x[inside], y[inside], x[outside])
            judged |= outside
        return mean_auroc(scores[judged], y[judged], self.fold[judged])

    def entry(
        self,
        baseline: str,
        name: str,
        scores: F64,
        discovery: float,
        *,
        site: str = "",
        k: int | None = None,
        detail: str = "",
    ) -> Baseline:
        """Return the baseline whose final model gives all items ``scores`` [N] (only the hold-out's are read)."""
        held = auroc_interval(scores[self.test], self.is_high[self.test], self.design.groups[self.test])
        found, middle, low, high = (None if np.isnan(value) else float(value) for value in (discovery, *held))
        return Baseline(baseline, name, site, layer_of(site), k, found, middle, low, high, detail)


def difference_of_means(contest: Contest, hidden: npt.NDArray[np.floating], site: str) -> Baseline:
    """Score by the projection on (mean of the highest grade − mean of the lowest), no whitening."""

    def fit(x: npt.NDArray[np.floating], y: npt.NDArray[np.bool_], new: npt.NDArray[np.floating]) -> F64:
        return np.asarray(new @ (x[y].mean(axis=0) - x[~y].mean(axis=0)), dtype=np.float64)

    return _fitted(contest, hidden.astype(np.float64), fit, "difference_of_means", "difference of means", site)


def logistic_probe(contest: Contest, hidden: npt.NDArray[np.floating], site: str) -> Baseline:
    """Score by a logistic probe on the standardised hidden state; its penalty is chosen by the same folds."""
    x = standardised(hidden.astype(np.float64), contest.train)
    x = _rotated(x, contest.train)
    return best_penalty(contest, x, "logistic", "logistic probe", site)


def best_penalty(contest: Contest, x: F64, kind: str, name: str, site: str = "") -> Baseline:
    """Return the logistic baseline on ``x`` [N, D] with the penalty of best cross-validated AUROC (strongest at ties)."""
    y = contest.is_high[contest.train]
    found = {c: contest.cross_validated(x[contest.train], _logistic(c)) for c in PENALTIES}
    best = max(found, key=lambda c: (np.nan_to_num(found[c], nan=-1.0), -c))
    scores = _logistic(best)(x[contest.train], y, x)
    return contest.entry(kind, name, scores, found[best], site=site, detail=f"C = {best:g}")


def _logistic(c: float) -> Fit:
    def fit(x: npt.NDArray[np.floating], y: npt.NDArray[np.bool_], new: npt.NDArray[np.floating]) -> F64:
        return fit_logistic(x, y, c=c).scores(new)

    return fit


def _fitted(contest: Contest, x: F64, fit: Fit, kind: str, name: str, site: str = "", k: int | None = None) -> Baseline:
    scores = fit(x[contest.train], contest.is_high[contest.train], x)
    return contest.entry(kind, name, scores, contest.cross_validated(x[contest.train], fit), site=site, k=k)


def standardised(x: F64, train: npt.NDArray[np.int64]) -> F64:
    """Return ``x`` [N, D] with mean 0 and deviation 1 over the items ``train`` (constant columns become 0)."""
    mean, std = x[train].mean(axis=0), x[train].std(axis=0)
    return np.where(std > 0, (x - mean) / np.where(std > 0, std, 1), 0.0)


def _rotated(x: F64, train: npt.NDArray[np.int64]) -> F64:
    """Rotate to the span of the training items where that is smaller: an L2-penalised fit does not change."""
    if x.shape[1] <= len(train):
        return x
    _, _, right = np.linalg.svd(x[train], full_matrices=False)
    return x @ right.T


def bag_of_words(contest: Contest, texts: Sequence[str]) -> Baseline:
    """Score by logistic regression on TF-IDF of words; vocabulary and weights from the items fitted on."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    lines = np.array(texts, dtype=object)

    def vectors(on: npt.NDArray[np.int64], new: npt.NDArray[np.int64]) -> tuple[F64, F64]:
        vectoriser = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", sublinear_tf=True)
        try:
            fitted = vectoriser.fit_transform(lines[on])
        except ValueError:  # no word at all in these texts
            return np.zeros((len(on), 0)), np.zeros((len(new), 0))
        return fitted.toarray(), vectoriser.transform(lines[new]).toarray()

    y, everything = contest.is_high[contest.train], np.arange(contest.design.n_items)
    scores, judged = np.zeros(len(y)), np.zeros(len(y), dtype=bool)
    c = 10.0  # TF-IDF rows have unit norm, so a weak penalty is the usual choice
    for inside, outside in contest.splits():
        x, new = vectors(contest.train[inside], contest.train[outside])
        scores[outside] = fit_logistic(x, y[inside], c=c).scores(new)
        judged |= outside
    x, new = vectors(contest.train, everything)
    final = fit_logistic(x, y, c=c).scores(new)
    discovery = mean_auroc(scores[judged], y[judged], contest.fold[judged])
    return contest.entry("bag_of_words", "bag of words", final, discovery, detail=f"TF-IDF, C = {c:g}")


def sentence_length(contest: Contest) -> Baseline:
    """Score by the number of characters alone, in the direction that is better on discovery."""
    length = contest.design.confounds[:, 0]
    found = auroc(length[contest.train], contest.is_high[contest.train])
    sign = -1.0 if found < 0.5 else 1.0
    return contest.entry("length", "sentence length", sign * length, max(found, 1 - found))
