"""What the probes must show on the built-in model, measured: used by the tests and by the benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from conceptatlas.probes import ProbeConfig, Sweep, prepare_probe, sweep_probes, train_probe
from conceptatlas.probes.sources import correlations, item_scores
from conceptatlas.recording import RecordedSAE, Recording

QUICK = ProbeConfig.model_validate({"training": {"bootstrap": 0, "shuffles": 1}})
# The penalty is chosen inside the training part.
TUNED = ProbeConfig.model_validate({"grid": {"C": [0.01, 0.1, 1.0, 10.0]}, "training": {"bootstrap": 0, "shuffles": 1}})


@dataclass(frozen=True)
class ConceptFigures:
    """Of ``hidden-to-concept`` at the layer that cross-validation chose.

    Attributes:
        layer: That layer.
        accuracy: On the test items, four grades.
        majority: Of always saying the commonest grade.
        shuffled: Of the control.
        relational: Accuracy on the relational test items and their controls.
        bag_of_words: Of a bag of words on these very items, trained on the same training items.
        n_relational: How many these are.
        sweep: The whole sweep.
    """

    layer: int
    accuracy: float
    majority: float
    shuffled: float
    relational: float
    bag_of_words: float
    n_relational: int
    sweep: Sweep


def concept_figures(rec: Recording, folder: Path) -> ConceptFigures:
    """Sweep the layers, train at the best one, and look at the relational items apart."""
    sweep = sweep_probes(rec, config=QUICK, workers=1)
    layer = sweep.facts["best_layer"]
    data = prepare_probe(rec, folder / "concept.npz", strategy="hidden-to-concept", layers=layer)
    run = train_probe(data, folder / "runs", name="concept", config=TUNED)
    test = data.test_index
    said = run.predict(data.raw()[test])
    texts = np.array(rec.items["text"].to_list(), dtype=object)
    words = make_pipeline(CountVectorizer(), LogisticRegression(max_iter=2000))
    words.fit(texts[data.train_index], data.y[data.train_index])
    apart = rec.items["kind"].is_in(["relational", "control"]).to_numpy()[test]
    return ConceptFigures(
        layer=layer,
        accuracy=run.results["test_accuracy"],
        majority=run.results["controls"]["majority_accuracy"],
        shuffled=run.results["controls"]["shuffled"]["mean"],
        relational=float(np.mean(said[apart] == data.y[test][apart])),
        bag_of_words=float(np.mean(words.predict(texts[test])[apart] == data.y[test][apart])),
        n_relational=int(apart.sum()),
        sweep=sweep,
    )


def best_feature(rec: Recording, train: np.ndarray) -> tuple[RecordedSAE, int]:
    """Return the feature that goes best with the grade on the training items, final rows."""
    grades = rec.items["label"].to_numpy()
    members = np.zeros(rec.n_items, dtype=bool)
    members[train] = True
    best: tuple[float, RecordedSAE, int] | None = None
    for sae in rec.saes:
        r = correlations(item_scores(rec, rec.columns(sae.slug), "final"), grades, members)
        top = int(np.argmax(r))
        if best is None or r[top] > best[0]:
            best = (float(r[top]), sae, top)
    assert best is not None
    return best[1], best[2]


@dataclass(frozen=True)
class FeatureFigures:
    """Of ``hidden-to-feature`` over all rows, for the best feature, on its own layer (ridge)."""

    sae: str
    feature: int
    active_auroc: float
    r2: float
    r2_shuffled: float
    share_active: float


def feature_figures(rec: Recording, folder: Path) -> FeatureFigures:
    """Read the best feature from the hidden state of its own layer, at every position, split by item."""
    some = prepare_probe(rec, folder / "split.npz", strategy="hidden-to-concept", layers=rec.saes[0].layer)
    sae, feature = best_feature(rec, some.train_index)
    data = prepare_probe(
        rec,
        folder / "feature.npz",
        strategy="hidden-to-feature",
        sae=sae.slug,
        target_layer=sae.layer,
        target_feature=feature,
        rows="all",
    )
    run = train_probe(data, folder / "runs", name="feature", config=QUICK)
    return FeatureFigures(
        sae=sae.slug,
        feature=feature,
        active_auroc=run.results["test_active_auroc"],
        r2=run.results["test_r2"],
        r2_shuffled=run.results["controls"]["shuffled"]["mean"],
        share_active=float(np.mean(data.y > 0)),
    )
