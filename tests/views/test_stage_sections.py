"""The report's parts for effects, chat prompts and images: from the stages' own files, hostile text escaped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from conceptatlas.base.kinds import EFFECTS, IMAGES, PROMPTS
from conceptatlas.evidence import FeatureRef
from conceptatlas.views import report
from conceptatlas.views.sections.effects import effect
from conceptatlas.views.sections.effects import effects as effects_section
from conceptatlas.views.sections.images import agreement
from conceptatlas.views.sections.prompts import followed_features, heat_rows
from conceptatlas.views.study_folder import Study
from conceptatlas.views.svg.maps import Marked, detect_cause_map
from tests.helpers.artefacts import seal

HOSTILE = "<script>alert(1)</script>{{7*7}}"


def effect_entry() -> dict[str, object]:
    return {
        "rank": 1, "slug": "sae-1", "sae_id": "a/b", "layer": 2, "feature_id": 7, "alpha": 0.4, "amount": 3.0,
        "own_p95": 1.5, "base_logprob": -9.0, "rise": 4.5, "rise_flipped": -1.0, "random_features_p95": 0.5,
        "random_directions_p95": 0.25, "difference_of_means_rise": None, "direct_rise": 0.5, "kl": 0.25,
        "ablation_change": -0.5, "ablation_random": 0.0, "promoted": [[HOSTILE, 2.0]], "suppressed": [["b", -2.0]],
        "direct_promoted": [["c", 1.0]], "doses": [{"alpha": 0.1, "rise": 1.0, "bar": 0.1},
        {"alpha": 0.4, "rise": 4.0, "bar": 0.4}], "random_features": [0.5], "random_directions": [0.25], "bar": 0.5,
        "causal": True, "verdict": "It detects and it causes.", "generated":
        [{"item": 3, "text": HOSTILE, "without": "plain", "with": "steered"}],
        "attributions": [{"item": 3, "tokens": ["<bos>", HOSTILE], "input_times_gradient": [0.0, 1.0],
        "integrated_gradients": [0.0, 2.0], "leave_one_out": [0.0, 0.0], "score": 2.0, "baseline": 0.0}],
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for stage in ("effect", "prompts", "images"):
        (tmp_path / stage).mkdir()
    effects = {"targets": ["lie"], "readout": {"kind": "end", "append": ""}, "items": {"neutral": 5},
               "features": [effect_entry()]}  # fmt: skip
    (tmp_path / "effect" / "effects.json").write_text(json.dumps(effects))
    contrast = pl.DataFrame(
        {"feature_id": [3, 4], "source": ["m_trainer1_layer1"] * 2, "token": ["newline"] * 2, "share_a": [1.0, 0.5],
         "mean_a": [2.0, 0.1], "share_b": [0.0, 0.5], "mean_b": [0.0, 0.1], "p_value": [0.001, 0.9],
         "link": ["", ""], "q_value": [0.002, 0.9]}
    )  # fmt: skip
    contrast.write_csv(tmp_path / "prompts" / "universal_by_label.csv")
    pl.DataFrame({"feature_id": [3], "source": ["m_trainer1_layer1"], "token": ["newline"]}).write_csv(
        tmp_path / "prompts" / "universal.csv"
    )
    pl.DataFrame(
        {"prompt_idx": [0, 0, 1, 1], "prompt": [HOSTILE, HOSTILE, "calm", "calm"], "label": ["a", "a", "b", "b"],
         "feature_id": [3] * 4, "activation": [0.5, 2.0, 0.0, 1.0], "source": ["m_trainer1_layer1"] * 4,
         "token": ["asst", "newline"] * 2, "link": [""] * 4}
    ).write_csv(tmp_path / "prompts" / "specific.csv")  # fmt: skip
    target = {"target_actives": 20.0, "achieved_actives_val": 20.1, "baseline_acc": 0.97, "recon_acc_jumprelu": 0.96,
              "recon_acc_after_shift": 0.965, "recon_acc_boolean": 0.5, "sae_latents": 512}  # fmt: skip
    (tmp_path / "images" / "summary.json").write_text(json.dumps([target]))
    feature = {"feature": 5, "mean_active": 0.1, "label_histogram": {"3": 8, "5": 1}, "logit_boost_class": 3}
    silent = {"feature": 6, "mean_active": 0.0, "label_histogram": {}, "logit_boost_class": 1}
    (tmp_path / "images" / "feature_report.json").write_text(json.dumps([feature, silent]))
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "feature_5_gallery.png")
    for kind, stage in ((EFFECTS, "effect"), (PROMPTS, "prompts"), (IMAGES, "images")):
        seal(kind, tmp_path / stage)
    return tmp_path


def test_every_stage_has_its_part_and_nothing_is_run(folder: Path) -> None:
    page = report(folder).read_text(encoding="utf-8")
    for words in ("What they cause", "Chat prompts", "Images", "1 of 2 features fire", "feature 5: strongest images"):
        assert words in page
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "{{7*7}}" in page


def test_a_features_panel_is_found_by_sae_and_index(folder: Path) -> None:
    study = Study.open(folder)
    found = effect(study, FeatureRef("sae-1", "a/b", 2, 10.0, 7))
    assert found is not None
    assert "It detects and it causes." in found.body
    assert effect(study, FeatureRef("sae-1", "a/b", 2, 10.0, 8)) is None
    assert effect(study, FeatureRef("sae-2", "a/b", 2, 10.0, 7)) is None


def test_heat_and_followed_features(folder: Path) -> None:
    contrast = pl.read_csv(folder / "prompts" / "universal_by_label.csv")
    first, second = heat_rows(contrast, ["a", "b"])
    assert [step for _, step in first["cells"]] == [9, 0]
    assert [step for _, step in second["cells"]] == [9, 9]
    (followed,) = followed_features(pl.read_csv(folder / "prompts" / "specific.csv"))
    assert followed["token"] == "newline"
    assert [row["activation"] for row in followed["most"]] == [2.0, 1.0]


def test_agreement_does_not_favour_a_single_image() -> None:
    many = {"label_histogram": {"3": 8, "5": 1}, "logit_boost_class": 3}
    one = {"label_histogram": {"3": 1}, "logit_boost_class": 3}
    assert agreement(many) > agreement(one)


def test_an_effect_measured_by_an_earlier_version_is_shown_with_dashes(folder: Path) -> None:
    part = effects_section(Study.open(folder))
    assert part is not None
    assert "5 hold-out items of the lowest grade" in part.lead
    assert "1 of 1 measured features" in part.lead
    assert "–" in part.body


def test_the_effects_say_on_which_items_with_what_uncertainty_and_damage(folder: Path) -> None:
    path = folder / "effect" / "effects.json"
    found = json.loads(path.read_text())
    token = {"token": HOSTILE, "base_logprob": -9.0, "rise": 4.5, "percentile": 61.0}
    found["features"][0] |= {
        "rise_low": 3.25, "rise_high": 5.75, "n_items": 5, "n_groups": 4, "like_percentile": 61.0, "n_like": 200,
        "kl_other": 0.75, "loss": 3.0, "loss_rise": 0.125, "target_tokens": [token], "causal": False,
        "reasons": ["39% of the 200 tokens of like probability rise more"],
    }  # fmt: skip
    found["features"][0]["doses"][1] |= {"kl_other": 3.0, "loss_rise": 0.0}
    path.write_text(json.dumps(found))
    seal(EFFECTS, folder / "effect")
    study = Study.open(folder)
    part, card = effects_section(study), effect(study, FeatureRef("sae-1", "a/b", 2, 10.0, 7))
    assert part is not None
    assert card is not None
    for words in ("3.25–5.75", "0.75", "0.12", "not shown: 39% of the 200 tokens", ">61<"):
        assert words in part.body, words
    assert "in 4 groups" in part.lead
    assert "&lt;script&gt;" in card.body
    assert 'class="dots hole"' in card.body


def test_the_map_has_titles_on_both_axes_and_the_ranked_features(folder: Path) -> None:
    x, y = np.linspace(0.2, 1, 400), np.random.default_rng(0).normal(size=400)
    picture = detect_cause_map(
        x,
        y,
        [Marked(1, 1.0, 3.0), Marked(2, 0.3, 0.5), Marked(3, 0.3, 0.5)],
        x_title="AUROC",
        y_title="output score: lie",
    )
    for words in (">AUROC<", ">output score: lie<", ">#1<", ">#2, #3<", "400 features, 3 of them ranked"):
        assert words in picture, words
    assert picture.count("h0") <= 403
    assert detect_cause_map(x[:0], y[:0], [], x_title="", y_title="") == ""
