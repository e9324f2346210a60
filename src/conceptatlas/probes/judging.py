"""Judging a fitted probe on samples that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from conceptatlas.probes import metrics
from conceptatlas.probes.calibration import SigmoidMap, describe_calibration
from conceptatlas.probes.models import class_scores
from conceptatlas.probes.strategies import Strategy, Task

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

F64 = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

CLASSES: dict[str, metrics.Metric] = {
    "accuracy": metrics.accuracy,
    "f1": metrics.f1_macro,
    "roc_auc": metrics.roc_auc,
}
# With grades, being off by one is better than being off by three.
ORDINAL: dict[str, metrics.Metric] = {
    "mae": metrics.mae,
    "quadratic_kappa": metrics.quadratic_kappa,
    "spearman": metrics.spearman,
}
VALUES: dict[str, metrics.Metric] = {
    "mae": metrics.mae,
    "mse": metrics.mse,
    "r2": metrics.r2,
    "spearman": metrics.spearman,
}
ACTIVATION: dict[str, metrics.Metric] = {"active_auroc": metrics.active_auroc}
GRADE_VALUES: dict[str, metrics.Metric] = {"quadratic_kappa": metrics.quadratic_kappa}


def metrics_for(task: Task, strategy: Strategy) -> dict[str, metrics.Metric]:
    """Return the figures that fit a task and a target, by name."""
    graded = strategy.target == "concept"
    if task == "classification":
        return CLASSES | (ORDINAL if graded else {})
    return VALUES | (GRADE_VALUES if graded else ACTIVATION)


@dataclass(frozen=True)
class Judgement:
    """What a probe said of a part, ready for figures.

    Attributes:
        outcome: Truth, prediction and class scores.
        probabilities: [n, C], or None for a regression.
        table: The figures that fit.
    """

    outcome: metrics.Outcome
    probabilities: F64 | None
    table: dict[str, metrics.Metric]

    @property
    def unseen(self) -> list[int]:
        """Classes of this part that training had not."""
        if self.outcome.classes is None:
            return []
        return [int(each) for each in np.setdiff1d(self.outcome.truth, self.outcome.classes)]

    def figures(self) -> dict[str, float | None]:
        """Return every figure; None where it is not defined on this part."""
        return {name: metrics.point(metric, self.outcome) for name, metric in self.table.items()}

    def intervals(
        self, groups: npt.NDArray[np.integer], *, resamples: int, rng: np.random.Generator
    ) -> dict[str, list[float] | None]:
        """Return the interval of every figure, by group."""
        found = {}
        for name, metric in self.table.items():
            bounds = metrics.interval(metric, self.outcome, groups, resamples=resamples, rng=rng)
            found[f"test_{name}"] = None if bounds is None else list(bounds)
        return found

    def confusion(self) -> list[list[int]]:
        """Return how often each class (row, ascending) was called each class (column)."""
        labels = np.union1d(self.outcome.truth, [] if self.outcome.classes is None else self.outcome.classes)
        said = self.outcome.predicted[:, None] == labels
        return ((self.outcome.truth[:, None] == labels).T.astype(np.int64) @ said.astype(np.int64)).tolist()

    def trivial(self, train_y: Array) -> dict[str, float]:
        """Return the score of always saying the same: the commonest class of training (its mean has R² of about 0)."""
        if self.outcome.classes is None:
            return {}
        values, counts = np.unique(train_y, return_counts=True)
        return {"majority_accuracy": float(np.mean(self.outcome.truth == values[counts.argmax()]))}

    def notes(self) -> list[str]:
        """Return what a reader must know of these figures."""
        notes = []
        if self.unseen:
            notes.append(f"The test part has classes that training had not: {', '.join(map(str, self.unseen))}.")
        for name, value in self.figures().items():
            if value is None:
                notes.append(f"test_{name} is not defined on this test part (a class or all variation is missing).")
        return notes


def judge(
    model: Pipeline, X: F64, y: Array, task: Task, calibrator: SigmoidMap | None, *, strategy: Strategy
) -> Judgement:
    """Return what ``model`` says of ``X``, beside ``y``."""
    table = metrics_for(task, strategy)
    truth = y.astype(np.float64)
    said = np.asarray(model.predict(X), dtype=np.float64)
    if task == "regression":
        return Judgement(metrics.Outcome(truth, said), None, table)
    classes = np.asarray(model.classes_)
    scores, ready = class_scores(model, X)
    both = np.concatenate([-scores, scores], axis=1) if scores.shape[1] == 1 else scores
    if ready:
        probabilities: F64 | None = scores
    else:
        probabilities = None if calibrator is None else calibrator.apply(scores)
    return Judgement(metrics.Outcome(truth, said, both, classes), probabilities, table)


def describe_calibration_of(judgement: Judgement, calibrator: SigmoidMap | None) -> dict[str, Any] | None:
    """Return the calibration on this part with the map that made the probabilities, or None for a regression."""
    if judgement.probabilities is None or judgement.outcome.classes is None:
        return None
    found = describe_calibration(judgement.probabilities, judgement.outcome.truth, judgement.outcome.classes)
    return found | {"map": None if calibrator is None else calibrator.as_json()}
