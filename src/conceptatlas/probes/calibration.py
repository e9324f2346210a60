"""How far a probe's probabilities can be believed: reliability curve, Brier score, and probabilities for the SVM."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

N_BINS = 10


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability curve.

    Attributes:
        low: Lower edge of the predicted probability (excluded, except 0).
        high: Upper edge (included).
        n: Samples in it.
        mean_probability: Their mean predicted probability.
        observed: The share of them that were so.
    """

    low: float
    high: float
    n: int
    mean_probability: float
    observed: float


def reliability(probability_n: F64, happened_n: npt.NDArray[np.bool_], *, n_bins: int = N_BINS) -> list[Bin]:
    """Return the reliability curve over equal bins, empty ones left out (Murphy and Winkler 1977)."""
    which = np.clip(np.ceil(probability_n * n_bins).astype(np.int64) - 1, 0, n_bins - 1)
    bins = []
    for b in np.unique(which):
        mine = which == b
        bins.append(
            Bin(
                low=float(b / n_bins),
                high=float((b + 1) / n_bins),
                n=int(mine.sum()),
                mean_probability=float(probability_n[mine].mean()),
                observed=float(happened_n[mine].mean()),
            )
        )
    return bins


def brier(probabilities_nC: F64, truth_n: npt.NDArray[Any], classes: npt.NDArray[Any]) -> float:
    """Return the Brier score: mean (p - y)² with two classes, else the mean over samples of the sum over classes.

    Brier (1950), eq. 2; 0 is perfect. A class that the probe never saw counts as predicted with probability 0.
    """
    if len(classes) == 2 and np.isin(truth_n, classes).all():
        return float(np.mean((probabilities_nC[:, 1] - (truth_n == classes[1])) ** 2))
    hit = truth_n[:, None] == classes[None, :]
    unseen = ~hit.any(axis=1)
    return float(np.mean(((probabilities_nC - hit) ** 2).sum(axis=1) + unseen))


def describe_calibration(probabilities_nC: F64, truth_n: npt.NDArray[Any], classes: npt.NDArray[Any]) -> dict[str, Any]:
    """Return Brier score, that of always saying the class shares, the reliability curve and its mean gap.

    With two classes the curve is that of the higher class; with more, that of the class said to be likeliest.
    """
    if len(classes) == 2:
        probability, happened, of = probabilities_nC[:, 1], truth_n == classes[1], f"class {classes[1]}"
    else:
        best = probabilities_nC.argmax(axis=1)
        probability = probabilities_nC[np.arange(len(best)), best]
        happened, of = classes[best] == truth_n, "the likeliest class"
    bins = reliability(probability, happened)
    shares = np.array([(truth_n == label).mean() for label in classes])
    return {
        "brier": brier(probabilities_nC, truth_n, classes),
        "brier_of_class_shares": brier(np.broadcast_to(shares, probabilities_nC.shape), truth_n, classes),
        "curve_of": of,
        "expected_calibration_error": sum(b.n * abs(b.mean_probability - b.observed) for b in bins) / len(truth_n),
        "reliability": [asdict(each) for each in bins],
    }


@dataclass(frozen=True)
class SigmoidMap:
    """Turns the scores of a probe that has no probabilities into such: softmax(scores · coefᵀ + intercept).

    Fitted on the scores of the cross-validation's validation samples (Platt 1999, with several classes at once).

    Attributes:
        coef: [C, S] for S scores per sample (1 with two classes).
        intercept: [C].
    """

    coef: F64
    intercept: F64

    @staticmethod
    def fitted(scores_nS: F64, truth_n: npt.NDArray[Any], classes: npt.NDArray[Any]) -> SigmoidMap:
        """Fit the map on out-of-fold scores; every class must occur."""
        from sklearn.linear_model import LogisticRegression

        if not np.array_equal(np.unique(truth_n), classes):
            raise ValueError("Every class must occur among the scores that calibrate.")
        spread = scores_nS.std(axis=0)
        unit = np.where(spread == 0, 1.0, spread)
        fit = LogisticRegression(C=10.0, max_iter=2000).fit(scores_nS / unit, truth_n)
        coef, intercept = fit.coef_ / unit, fit.intercept_
        if len(classes) == 2:
            coef, intercept = np.concatenate([0 * coef, coef]), np.concatenate([0 * intercept, intercept])
        return SigmoidMap(coef, intercept)

    def apply(self, scores_nS: F64) -> F64:
        """Return probabilities, [n, C]."""
        logits = scores_nS @ self.coef.T + self.intercept
        logits -= logits.max(axis=1, keepdims=True)
        weights = np.exp(logits)
        return weights / weights.sum(axis=1, keepdims=True)

    def as_json(self) -> dict[str, Any]:
        """Return the map as plain lists."""
        return {"coef": self.coef.tolist(), "intercept": self.intercept.tolist()}

    @staticmethod
    def from_json(value: dict[str, Any]) -> SigmoidMap:
        """Read what ``as_json`` wrote."""
        return SigmoidMap(np.array(value["coef"], dtype=np.float64), np.array(value["intercept"], dtype=np.float64))
