"""What the built-in model must show, through the product's own commands: a miss is a defect of the model.

The sets, the split and the ranking are those that users get; nothing here knows the grammar but the kinds of items.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import roc_auc_score

from conceptatlas.concepts import TRAITS, holdout_mask
from conceptatlas.evidence import measure_effects
from conceptatlas.ranking import Ranking, rank
from conceptatlas.recording import Recording, record
from conceptatlas.subjects.organism import card_path, graded_set
from tools.organism_training.methods import Judge, Reading, readings_of, words

GROUP = pytest.mark.xdist_group("built_in_model")
Scores = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recording]:
    folder = tmp_path_factory.mktemp("built_in")
    return {trait: record(f"builtin:{trait}", "organism", "organism", folder / trait, device="cpu") for trait in TRAITS}


def rank_quickly(recording: Recording, pool: str) -> Ranking:
    return rank(recording, pool=pool, permutations=100, baselines=False, resplits=0)


def scores_of(recording: Recording, ranking: Ranking, pool: str) -> Scores:
    """The best feature's score on every item, recomputed from the recording."""
    best = ranking.features.row(0, named=True)
    rows, values = recording.columns(best["slug"]).feature(best["feature_id"])
    dense = np.zeros(recording.n_rows)
    dense[np.asarray(rows)] = np.asarray(values)
    if pool == "final":
        return dense[recording.final_rows]
    return np.maximum.reduceat(dense, recording.first_rows[:-1])


def holdout_of(recording: Recording) -> npt.NDArray[np.bool_]:
    items = recording.items
    return holdout_mask(items["label"].to_numpy(), items["split_hash"].to_numpy(), split=items["split"].to_list())


@GROUP
@pytest.mark.parametrize("trait", TRAITS)
def test_the_best_feature_detects_on_the_holdout_and_by_chance_never(
    recordings: dict[str, Recording], trait: str
) -> None:
    ranking = rank_quickly(recordings[trait], "final")
    best = ranking.features.row(0, named=True)
    assert best["auroc_holdout"] >= 0.85
    assert best["p_max"] <= 0.01


@pytest.fixture(scope="module")
def readings(recordings: dict[str, Recording]) -> dict[str, dict[str, Reading]]:
    """Trait → method → hold-out figures, by the product's own ranking and by plain scikit-learn."""
    return {
        trait: readings_of(graded_set(trait), rec, scores_of(rec, rank_quickly(rec, "final"), "final"))
        for trait, rec in recordings.items()
    }


def mean_concordance(readings: dict[str, dict[str, Reading]], method: str) -> float:
    return float(np.mean([by_method[method].concordance for by_method in readings.values()]))


@GROUP
def test_the_methods_differ_visibly_and_none_beats_the_truth(readings: dict[str, dict[str, Reading]]) -> None:
    truth, probe, means, feature, random_ones, words, runs = (
        mean_concordance(readings, method)
        for method in (
            "the truth",
            "logistic probe",
            "difference of means",
            "trained feature",
            "random directions",
            "bag of words",
            "runs of up to 3 words",
        )
    )
    assert truth + 0.01 >= max(probe, means, feature)
    assert truth < 0.97  # the raters' errors
    assert min(probe, means, feature) >= random_ones + 0.05
    assert random_ones < 0.8
    assert max(words, runs) <= feature - 0.1
    for by_method in readings.values():
        assert by_method["trained feature"].concordance > by_method["random directions"].concordance


@GROUP
def test_no_count_of_words_tells_relations_or_claims(readings: dict[str, dict[str, Reading]]) -> None:
    """By their words these items are chance; of eighteen or fifteen pairs that is known to about 0.1."""
    for method in ("bag of words", "runs of up to 3 words"):
        for asked in ("relational", "claimed"):
            found = [getattr(by_method[method], asked) for by_method in readings.values()]
            assert 0.35 < np.mean(found) < 0.65, (method, asked, found)
    for asked in ("relational", "claimed"):
        assert np.mean([getattr(by_method["logistic probe"], asked) for by_method in readings.values()]) >= 0.8


@GROUP
def test_the_degree_does_not_make_most_of_the_variance(recordings: dict[str, Recording]) -> None:
    """Between grades lies a small part of the variance of the final hidden states: no direction is planted."""
    for recording in recordings.values():
        labels = recording.items["label"].to_numpy()
        x = recording.hidden_final("blocks.3.hook_resid_post").astype(np.float64)
        between = sum((labels == g).mean() * np.square(x[labels == g].mean(0) - x.mean(0)).sum() for g in range(4))
        assert between / x.var(0).sum() < 0.2


@GROUP
def test_a_cue_of_discovery_alone_is_found_out_on_the_hold_out(tmp_path: Path) -> None:
    rec = record("builtin:dishonesty-cue", "organism", "organism", tmp_path / "cue", device="cpu")
    items = rec.items
    held = holdout_of(rec)
    monday = np.array([text.startswith(("On Monday", "Some")) or "On Monday" in text for text in items["text"]])
    bears = items["degree"].cast(float).to_numpy() > 0
    assert roc_auc_score(bears[~held], monday[~held]) > 0.8
    assert abs(roc_auc_score(bears[held], monday[held]) - 0.5) < 0.12
    judge = Judge.of(graded_set("dishonesty", 2, cued=True))
    texts = items["text"].to_list()
    assert judge.reading(words(judge, texts, 1)).auroc < 0.75


@GROUP
def test_graded_features_pass_every_filter_on_both_sides(recordings: dict[str, Recording]) -> None:
    passed = []
    for trait, recording in recordings.items():
        ranking = rank_quickly(recording, "max")
        if ranking.features.height == 0:
            continue
        best = ranking.features.row(0, named=True)
        scores, held = scores_of(recording, ranking, "max"), holdout_of(recording)
        labels = recording.items["label"].to_numpy()
        means = [scores[held & (labels == grade)].mean() for grade in range(4)]
        rises = all(a <= b for a, b in itertools.pairwise(means))
        good = best["pearson_holdout"] >= 0.4 and best["tpr_holdout"] >= 0.5 and best["fpr_holdout"] <= 0.2
        if rises and good:
            passed.append(trait)
    assert len(passed) >= 3, passed


@GROUP
def test_a_latent_of_most_traits_moves_the_verdict_at_one_dose_for_all(recordings: dict[str, Recording]) -> None:
    """Latents and dose as the card has them, chosen on discovery; the figures are those of the hold-out."""
    card = json.loads(card_path().with_suffix(".json").read_text())["effects"]
    (alpha,) = {entry["effect"]["alpha"] for entry in card.values()}
    assert alpha <= 1
    causing = []
    for trait, recording in recordings.items():
        effects = measure_effects(
            rank_quickly(recording, "final"), recording, per_layer=True, alpha=alpha, alphas=(alpha,), device="cpu"
        )
        known = (card[trait]["sae_id"], card[trait]["latent"])
        (found,) = [one for one in effects.features if (one.feature.sae_id, one.feature.feature_id) == known]
        # The card was measured when the template's tokens were steered, too: 0.1 nats until the model is trained again.
        assert found.effect.rise == pytest.approx(card[trait]["effect"]["rise"], abs=0.1)
        assert len(found.effect.random_features) == len(found.effect.random_directions) == 20
        if found.effect.rise >= 1 and found.effect.rise >= 2 * found.effect.bar:
            causing.append(trait)
    assert len(causing) >= 3, causing  # on the card: not the two nats that "causes" wants


def test_the_package_data_is_small() -> None:
    from conceptatlas.subjects.organism import organism_path, saes_path

    total = sum(
        path.stat().st_size
        for folder in (organism_path(), saes_path())
        for path in Path(folder).rglob("*")
        if path.is_file()
    )
    assert total < 8_000_000
