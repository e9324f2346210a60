"""What the shipped model and SAEs show, by the product's own commands: record, rank and effect, as users run them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from conceptatlas.concepts import Concept, build_concept
from conceptatlas.evidence import BAR_FACTOR, Dose, Effect, FeatureEffect, measure_effects, shared_dose
from conceptatlas.ranking import Ranking, rank
from conceptatlas.recording import Recording, record
from conceptatlas.subjects.organism import TRAITS, Item, Trait, graded_set, verdict_words

from .methods import Judge, Reading, readings_of

Pool = Literal["final", "max"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """The top-ranked latent (chosen on discovery), and what the hold-out says of it."""

    sae_id: str
    latent: int
    passes_holdout: bool
    score: float
    pearson: float
    pearson_holdout: float
    means: list[float]
    reading: Reading


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
        splits=[item.split for item in items],
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
            "final": rank(recording, pool="final", permutations=0, resplits=0, baselines=False),
            "max": rank(recording, pool="max", permutations=0, resplits=0, baselines=False),
        }
        studies[trait] = Study(items, recording, rankings)
    return studies


def scores_of(study: Study, pool: Pool) -> Floats:
    """The top-ranked latent's score on every item, [N]."""
    recording, best = study.recording, study.rankings[pool].features.row(0, named=True)
    slug, latent = best["slug"], best["feature_id"]
    rows, values = recording.columns(slug).feature(latent)
    dense = np.zeros(recording.n_rows)
    dense[np.asarray(rows)] = np.asarray(values)
    if pool == "final":
        return dense[recording.final_rows]
    return np.maximum.reduceat(dense, recording.first_rows[:-1])


def found_in(study: Study, pool: Pool) -> Found:
    """The top-ranked latent of a trait."""
    best = study.rankings[pool].features.row(0, named=True)
    judge = Judge.of(study.items)
    scores = scores_of(study, pool)
    means = [float(scores[judge.held & (judge.grades == grade)].mean()) for grade in range(4)]
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
        means=[round(mean, 3) for mean in means],
        reading=judge.reading(scores),
    )


def methods_of(study: Study) -> dict[str, Reading]:
    """Every method's hold-out figures."""
    return readings_of(study.items, study.recording, scores_of(study, "final"))


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
