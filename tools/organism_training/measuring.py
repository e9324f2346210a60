"""What the shipped model and SAEs show, by the product's own commands: record, rank and effect, as users run them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from conceptatlas.concepts import Concept, build_concept, holdout_mask
from conceptatlas.evidence import BAR_FACTOR, Dose, Effect, FeatureEffect, measure_effects, shared_dose
from conceptatlas.ranking import Ranking, rank
from conceptatlas.recording import Recording, record
from conceptatlas.subjects.organism import TRAITS, Item, Trait, graded_set, verdict_words

Pool = Literal["final", "max"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """The top-ranked latent (chosen on discovery), and what the hold-out says of it.

    ``relational``: AUROC of the relational items of every grade against their controls of the same words;
    ``relational_strong``: likewise with those of grade 3 and their own controls only.
    """

    sae_id: str
    latent: int
    passes_holdout: bool
    score: float
    pearson: float
    pearson_holdout: float
    auroc_holdout: float
    relational: float
    relational_strong: float
    means: list[float]


@dataclass(frozen=True)
class Baselines:
    """Hold-out AUROC (3 against 0) of what needs no SAE, the best layer by discovery where there are several."""

    difference_of_means: float
    logistic: float
    random_sae: float
    bag_of_words: float


@dataclass(frozen=True)
class Study:
    """One trait's set, recorded and ranked."""

    items: Sequence[Item]
    recording: Recording
    rankings: dict[Pool, Ranking]


def concept_of(trait: Trait, items: Sequence[Item]) -> Concept:
    """The graded set as users load it."""
    return build_concept(
        trait,
        [item.sentence for item in items],
        [item.grade for item in items],
        groups=[item.group for item in items],
    )


def study_traits(data: Path, folder: Path, seed: int) -> dict[Trait, Study]:
    """Record and rank the graded set of every trait, drawn with ``seed`` (0 is the shipped one)."""
    studies: dict[Trait, Study] = {}
    for trait in TRAITS:
        items = graded_set(trait, seed)
        recording = record(
            concept_of(trait, items), data / "model", data / "saes", folder / trait, device="cpu", dtype="float32"
        )
        rankings: dict[Pool, Ranking] = {
            "final": rank(recording, pool="final", permutations=0, resplits=0),
            "max": rank(recording, pool="max", permutations=0, resplits=0, baselines=False),
        }
        studies[trait] = Study(items, recording, rankings)
    return studies


def _scores(recording: Recording, slug: str, latent: int, pool: Pool) -> Floats:
    rows, values = recording.columns(slug).feature(latent)
    dense = np.zeros(recording.n_rows)
    dense[np.asarray(rows)] = np.asarray(values)
    if pool == "final":
        return dense[recording.final_rows]
    return np.maximum.reduceat(dense, recording.first_rows[:-1])


def found_in(study: Study, pool: Pool) -> Found:
    """The top-ranked latent of a trait."""
    best = study.rankings[pool].features.row(0, named=True)
    items, recording = study.items, study.recording
    scores = _scores(recording, best["slug"], best["feature_id"], pool)
    grades = np.array([item.grade for item in items])
    kinds = np.array([item.kind for item in items])
    groups = np.array([item.group for item in items])
    held = holdout_mask(grades, recording.items["split_hash"].to_numpy())
    means = [float(scores[held & (grades == grade)].mean()) for grade in range(4)]
    relational = np.isin(kinds, ["relational", "control"]) & held
    strong = relational & np.isin(groups, groups[(kinds == "relational") & (grades == 3)])
    return Found(
        sae_id=best["sae_id"],
        latent=best["feature_id"],
        passes_holdout=bool(
            best["pearson_holdout"] >= 0.4
            and best["tpr_holdout"] >= 0.5
            and best["fpr_holdout"] <= 0.2
            and all(a <= b for a, b in itertools.pairwise(means))
        ),
        score=best["interpretability_score"],
        pearson=best["pearson_corr"],
        pearson_holdout=best["pearson_holdout"],
        auroc_holdout=best["auroc_holdout"],
        relational=float(roc_auc_score(kinds[relational] == "relational", scores[relational])),
        relational_strong=float(roc_auc_score(kinds[strong] == "relational", scores[strong])),
        means=[round(mean, 3) for mean in means],
    )


def baselines_of(study: Study) -> Baselines:
    """The ranking's own baselines."""

    def best(name: str) -> float:
        found = [entry for entry in study.rankings["final"].baselines if entry["baseline"] == name]
        return float(max(found, key=lambda entry: entry["auroc_discovery"])["auroc_holdout"])

    return Baselines(best("difference_of_means"), best("logistic"), best("random_sae"), best("bag_of_words"))


@dataclass(frozen=True)
class Steered:
    """What a trait's latent causes, and which latent that is."""

    sae_id: str
    latent: int
    rank: int
    effect: Effect


def room(doses: Sequence[Dose]) -> float:
    """How far the rise exceeds twice the bar at the dose where it does so most (on discovery)."""
    return max(dose.rise - BAR_FACTOR * max(0.0, dose.bar) for dose in doses)


def effects_of(studies: dict[Trait, Study]) -> dict[Trait, Steered]:
    """Steer one latent of each trait: of the top-ranked ones of the layers, the one that has most room.

    Layer, latent and the one dose for all traits are chosen on discovery; the figures are those of the hold-out.
    """

    def measured(trait: Trait, alpha: float | None) -> list[FeatureEffect]:
        study = studies[trait]
        return measure_effects(
            study.rankings["final"],
            study.recording,
            per_layer=True,
            targets=verdict_words(trait),
            alpha=alpha,
        ).features

    chosen = {trait: max(measured(trait, None), key=lambda found: room(found.effect.doses)) for trait in studies}
    alpha = shared_dose([found.effect.doses for found in chosen.values()])
    steered = {}
    for trait, best in chosen.items():
        (found,) = [found for found in measured(trait, alpha) if found.feature == best.feature]
        feature = found.feature
        steered[trait] = Steered(feature.sae_id, feature.feature_id, feature.rank or 0, found.effect)
    return steered
