"""What a sceptic would ask for beside the best feature: the simpler ways to tell the same items apart.

All of them tell the highest grade from the lowest, are fitted on discovery only, and report AUROC: on discovery by
cross-validation over groups where something is fitted, on hold-out with its interval; and on hold-out the concordance
over all grades and the AUROC of each two neighbouring grades. Here: the items on which they are judged, and the entry.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from conceptatlas.ranking.design import Design
from conceptatlas.ranking.kernels import F64
from conceptatlas.statistics import adjacent_aurocs, auroc_interval, concordance
from conceptatlas.statistics.folds import group_folds, mean_auroc
from conceptatlas.statistics.logistic import fit_logistic

PENALTIES = (0.001, 0.01, 0.1, 1.0)
# Scores are rounded to so many digits below the largest: what is a tie in exact arithmetic stays one on every processor.
_DIGITS = 9

# Baselines in which nothing is fitted, so that their AUROC on discovery is not cross-validated.
NOT_FITTED = ("random_directions", "length")

# (training features, training class, features to score) → scores of the latter
Fit = Callable[[npt.NDArray[np.floating], npt.NDArray[np.bool_], npt.NDArray[np.floating]], F64]


@dataclass(frozen=True)
class Baseline:
    """One baseline at one site (or of the text alone: ``site`` is empty)."""

    baseline: str
    """``difference_of_means``, ``difference_of_means_whitened``, ``logistic``, ``random_directions``, ``frozen_decoder``,
    ``k_sparse``, ``bag_of_words``, ``word_ngrams``, ``char_ngrams``, ``sentence_embedding`` or ``length``."""
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
    concordance_holdout: float | None = None
    """C-index over all grades on hold-out."""
    concordance_low: float | None = None
    concordance_high: float | None = None
    adjacent: list[dict[str, Any]] = field(default_factory=list)
    """AUROC of neighbouring grades on hold-out: ``high`` and ``low`` (the grades), ``auroc``, ``ci_low``, ``ci_high``."""
    pool: str = ""
    """How its rows were pooled: as the features' are, or empty for a baseline of the text."""
    comparable: bool = True
    """Whether it reads what the features read."""
    why_not: str = ""
    draws: int | None = None
    """How many random draws there were; the figures are those of the draw with the median hold-out AUROC."""
    draws_min: float | None = None
    draws_max: float | None = None
    slug: str | None = None
    """Where it reads one feature alone (k-sparse, k = 1): the slug of that feature's SAE."""
    feature_id: int | None = None
    """Likewise, the feature's index."""
    scores: F64 | None = field(default=None, repr=False, compare=False)
    """The score of every item, float64 [N], for paired comparisons; never written."""

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as it stands in ``baselines.json``."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "scores"}

    @classmethod
    def missing(cls, baseline: str, name: str, site: str, why_not: str) -> Baseline:
        """Return the entry of a baseline that cannot read what the features read: no figures, and the reason."""
        empty = (None, None, None, None)
        return cls(baseline, name, site, layer_of(site), None, *empty, comparable=False, why_not=why_not)


def layer_of(site: str) -> int | None:
    """Return the layer in a site's name, or None (``embed``)."""
    found = re.match(r"blocks\.(\d+)\.", site)
    return int(found.group(1)) if found else None


class Contest:
    """The items on which baselines are judged, and how."""

    def __init__(self, design: Design, seed: int) -> None:
        self.design = design
        self.seed = seed
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

    def fitted_sets(self) -> list[npt.NDArray[np.int64]]:
        """Return the items that each fit may see: all training items, then those of each of ``splits``."""
        return [self.train, *(self.train[inside] for inside, _ in self.splits())]

    def out_of_fold(self, by_fit: F64) -> tuple[float, list[float]]:
        """Return the mean AUROC over folds, and each fold's, of the scores that each fit gives.

        Args:
            by_fit: [N, S], the scores of all items by each of ``fitted_sets``.
        """
        y, found = self.is_high[self.train], []
        for s, (_, outside) in enumerate(self.splits(), start=1):
            held = by_fit[self.train[outside], s]
            found.append(mean_auroc(held, y[outside], np.zeros(len(held), dtype=np.int64)))
        found = [value for value in found if not np.isnan(value)]
        return (float(np.mean(found)) if found else float("nan")), found

    def cross_validated(self, x: npt.NDArray[np.floating], fit: Fit) -> float:
        """Return the mean AUROC over folds of ``fit`` on the training items' ``x`` [n, D]."""
        y = self.is_high[self.train]
        scores, judged = np.zeros(len(y)), np.zeros(len(y), dtype=bool)
        for inside, outside in self.splits():
            scores[outside] = rounded(fit(x[inside], y[inside], x[outside]))
            judged |= outside
        return mean_auroc(scores[judged], y[judged], self.fold[judged])

    def held_out(self, scores: F64) -> dict[str, Any]:
        """Return the hold-out figures of item scores [N]: AUROC, concordance, neighbouring grades, with intervals."""
        design, held = self.design, np.flatnonzero(self.design.holdout)
        auroc = auroc_interval(scores[self.test], self.is_high[self.test], design.groups[self.test])
        grades, groups = design.labels[held], design.groups[held]
        overall = concordance(scores[held], grades, groups)
        steps = adjacent_aurocs(scores[held], grades, groups)
        return {
            **dict(zip(("auroc_holdout", "low", "high"), map(_known, auroc), strict=True)),
            **dict(
                zip(("concordance_holdout", "concordance_low", "concordance_high"), map(_known, overall), strict=True)
            ),
            "adjacent": [
                {"high": high, "low": low} | dict(zip(("auroc", "ci_low", "ci_high"), map(_known, found), strict=True))
                for (high, low), found in steps.items()
            ],
        }

    def entry(self, baseline: str, name: str, scores: F64, discovery: float, **more: Any) -> Baseline:
        """Return the baseline whose final model gives all items ``scores`` [N] (only the hold-out's are judged).

        ``more`` are further fields of :class:`Baseline`.
        """
        scores = rounded(scores)
        site = more.pop("site", "")
        return Baseline(
            baseline=baseline,
            name=name,
            site=site,
            layer=layer_of(site),
            auroc_discovery=_known(discovery),
            scores=scores,
            **self.held_out(scores),
            **({"k": None} | more),
        )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def rounded(scores: npt.NDArray[np.floating]) -> F64:
    """Return scores rounded to nine digits below the largest, float64."""
    wide: F64 = np.asarray(scores, dtype=np.float64)
    largest = float(np.abs(wide).max(initial=0.0))
    return np.asarray(np.round(wide / largest, _DIGITS) * largest) if largest > 0 else wide


def logistic(c: float) -> Fit:
    """Return the fit of a logistic regression with penalty ``c``."""

    def fit(x: npt.NDArray[np.floating], y: npt.NDArray[np.bool_], new: npt.NDArray[np.floating]) -> F64:
        return fit_logistic(x, y, c=c).scores(new)

    return fit


def standardised(x: F64, train: npt.NDArray[np.int64]) -> F64:
    """Return ``x`` [N, D] with mean 0 and deviation 1 over the items ``train`` (constant columns become 0)."""
    mean, std = x[train].mean(axis=0), x[train].std(axis=0)
    return np.where(std > 0, (x - mean) / np.where(std > 0, std, 1), 0.0)
