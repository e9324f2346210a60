"""What each method reads off the graded sets, beside the truth: the same items, the same final rows, the same split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from conceptatlas.recording import Recording
from conceptatlas.statistics import concordance
from conceptatlas.subjects.organism import Item

Floats = npt.NDArray[np.float64]

DRAWS = 5
DIRECTIONS = 512
PENALTY = 0.03


@dataclass(frozen=True)
class Reading:
    """Hold-out figures of one method on one trait's set.

    Attributes:
        auroc: Grade 3 against grade 0.
        near: Grade 3 against items of grade 0 whose act only resembles the trait.
        concordance: Over all pairs of items of different grade, the share in which the higher grade scores higher.
        relational: Relational items against their controls of the same words.
        claimed: Claimed items that took place against those that did not.
    """

    auroc: float
    near: float
    concordance: float
    relational: float
    claimed: float


@dataclass(frozen=True)
class Judge:
    """The items of a set as arrays."""

    grades: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.str_]
    held: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, items: Sequence[Item]) -> Judge:
        """The items' grades, kinds and sides."""
        return cls(
            np.array([item.grade for item in items]),
            np.array([item.kind for item in items]),
            np.array([item.split == "holdout" for item in items]),
        )

    @property
    def train(self) -> npt.NDArray[np.int64]:
        """Discovery items of grade 0 and 3."""
        return np.flatnonzero(~self.held & np.isin(self.grades, (0, 3)))

    def reading(self, scores: Floats) -> Reading:
        """The hold-out figures of scores [N]."""
        high, low = self.held & (self.grades == 3), self.held & (self.grades == 0)
        return Reading(
            auroc=_auroc(scores, high, low),
            near=_auroc(scores, high, low & (self.kinds == "near")),
            concordance=concordance(scores[self.held], self.grades[self.held]).concordance,
            relational=_auroc(scores, self.held & (self.kinds == "relational"), self.held & (self.kinds == "control")),
            claimed=_auroc(scores, self.held & (self.kinds == "claimed"), self.held & (self.kinds == "denied")),
        )


def _auroc(scores: Floats, high: npt.NDArray[np.bool_], low: npt.NDArray[np.bool_]) -> float:
    asked = high | low
    return float(roc_auc_score(high[asked], scores[asked]))


def _logistic() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, max_iter=3000))


def probe(judge: Judge, hidden: Sequence[Floats]) -> Floats:
    """Scores of a logistic probe on the final row; the layer by cross-validation on discovery."""
    train, y = judge.train, judge.grades[judge.train] == 3
    folds = StratifiedKFold(5, shuffle=True, random_state=0)

    def on_discovery(x: Floats) -> float:
        return float(
            roc_auc_score(y, cross_val_predict(_logistic(), x[train], y, cv=folds, method="decision_function"))
        )

    x = max(hidden, key=on_discovery)
    scores: Floats = _logistic().fit(x[train], y).decision_function(x)
    return scores


def difference_of_means(judge: Judge, hidden: Sequence[Floats]) -> Floats:
    """Scores along the difference of the two classes' means; the layer by its AUROC on discovery."""

    def along(x: Floats) -> Floats:
        return x @ (x[~judge.held & (judge.grades == 3)].mean(0) - x[~judge.held & (judge.grades == 0)].mean(0))

    train, y = judge.train, judge.grades[judge.train] == 3
    return max((along(x) for x in hidden), key=lambda scores: roc_auc_score(y, scores[train]))


def random_directions(judge: Judge, hidden: Sequence[Floats]) -> list[Floats]:
    """Scores along the best (on discovery) of ``DIRECTIONS`` random directions, any layer, for each of ``DRAWS`` draws."""
    train, y = judge.train, judge.grades[judge.train] == 3
    found = []
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        candidates = [x @ rng.standard_normal((x.shape[1], DIRECTIONS // len(hidden))) for x in hidden]
        scores = np.concatenate(candidates, axis=1)
        found.append(scores[:, int(np.argmax([roc_auc_score(y, column) for column in scores[train].T]))])
    return found


def words(judge: Judge, texts: Sequence[str], longest: int) -> Floats:
    """Scores of a logistic regression on counts of runs of up to ``longest`` words."""
    vectorizer = CountVectorizer(
        tokenizer=lambda text: re.findall(r"\w+|[.,]", text), token_pattern=None, ngram_range=(1, longest)
    )
    train = judge.train
    counts = vectorizer.fit_transform([texts[i] for i in train])
    fitted = LogisticRegression(C=1.0, max_iter=3000).fit(counts, judge.grades[train] == 3)
    scores: Floats = fitted.decision_function(vectorizer.transform(texts))
    return scores


def mean_reading(readings: Sequence[Reading]) -> Reading:
    """The mean of each figure."""
    return Reading(*(float(np.mean([getattr(r, name) for r in readings])) for name in Reading.__dataclass_fields__))


def readings_of(items: Sequence[Item], recording: Recording, feature: Floats) -> dict[str, Reading]:
    """Every method's hold-out figures on a recorded set; ``feature`` are the top-ranked feature's scores [N]."""
    judge = Judge.of(items)
    hidden = [
        recording.hidden_final(f"blocks.{layer}.hook_resid_post").astype(np.float64)
        for layer in sorted({sae.layer for sae in recording.saes})
    ]
    texts = [item.sentence for item in items]
    return {
        "the truth": judge.reading(np.array([item.degree for item in items])),
        "trained feature": judge.reading(feature),
        "logistic probe": judge.reading(probe(judge, hidden)),
        "difference of means": judge.reading(difference_of_means(judge, hidden)),
        "bag of words": judge.reading(words(judge, texts, 1)),
        "runs of up to 3 words": judge.reading(words(judge, texts, 3)),
        "random directions": mean_reading([judge.reading(scores) for scores in random_directions(judge, hidden)]),
    }
