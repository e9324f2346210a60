"""The laboratory end to end, small, and its bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conceptatlas.base.errors import InputError
from conceptatlas.evidence.edits import reconstruct
from conceptatlas.images import LaboratoryConfig, accuracy, load_pair, run_laboratory
from conceptatlas.images.analysis import FeatureEvidence, worksheet
from conceptatlas.images.saved import shipped_path
from conceptatlas.saes.training import TrainingPlan
from conceptatlas.subjects.images import load_images
from tests.helpers.cli import invoke

SUMMARY_KEYS = {
    "target_actives",
    "achieved_actives_val",
    "lambda",
    "baseline_acc",
    "recon_acc_jumprelu",
    "recon_acc_boolean",
    "delta_acc_jumprelu",
    "delta_acc_boolean",
    "threshold_shift",
    "recon_acc_after_shift",
    "sae_latents",
    "normalize_z",
}
REPORT_KEYS = {
    "feature",
    "mean_active",
    "label_mode_when_active",
    "label_histogram",
    "logit_boost_class",
    "logit_delta_vector",
    "top_examples",
}


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("laboratory")
    outcome = invoke(
        "images", "run", "--dataset", "digits", "--latents", 96, "--hidden-dim", 48, "--target-l0", "12",
        "--features", "0,1,2", "--device", "cpu", "--out", folder, "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.stderr
    (printed,) = json.loads(outcome.stdout)
    assert printed["target_actives"] == 12
    return folder


def test_summary(laboratory: Path) -> None:
    (summary,) = json.loads((laboratory / "summary.json").read_text())
    assert summary.keys() >= SUMMARY_KEYS
    assert summary["baseline_acc"] >= 0.94
    assert abs(summary["achieved_actives_val"] - 12) <= 0.5
    assert summary["recon_acc_after_shift"] >= summary["baseline_acc"] - 0.05
    assert summary["delta_acc_jumprelu"] == pytest.approx(summary["recon_acc_jumprelu"] - summary["baseline_acc"])
    run = json.loads((laboratory / "run.json").read_text())
    assert run["options"]["latents"] == 96


def test_every_feature_is_reported(laboratory: Path) -> None:
    report = json.loads((laboratory / "feature_report.json").read_text())
    assert [entry["feature"] for entry in report] == list(range(96))
    assert all(entry.keys() == REPORT_KEYS for entry in report)
    firing = [entry for entry in report if entry["mean_active"] > 0]
    assert len(firing) > 48
    for entry in firing:
        histogram = {int(label): count for label, count in entry["label_histogram"].items()}
        assert histogram[entry["label_mode_when_active"]] == max(histogram.values())
        assert entry["logit_boost_class"] == int(np.argmax(entry["logit_delta_vector"]))
    sheet = (laboratory / "hypotheses.md").read_text()
    assert sheet.count("- Hypothesis: ") == 96


def test_pictures(laboratory: Path) -> None:
    pattern = np.load(laboratory / "feature_1_pattern.npy", allow_pickle=False)
    assert pattern.shape == (8, 8)
    for name in ("gallery", "pattern"):
        with Image.open(laboratory / f"feature_1_{name}.png") as picture:
            assert picture.width > 300
    assert not (laboratory / "feature_3_gallery.png").exists()


def test_confidence_follows_from_agreement() -> None:
    def entry(histogram: dict[str, int], mode: int | None, boosted: int) -> FeatureEvidence:
        return FeatureEvidence(0, 0.1, mode, histogram, boosted, [0.0] * 10, [])

    assert entry({"3": 9, "5": 1}, 3, 3).confidence == "high"
    assert entry({"3": 4, "5": 3, "7": 3}, 3, 3).confidence == "medium"
    assert entry({"3": 9}, 3, 5).confidence.startswith("low")
    dead = entry({}, None, 5)
    assert dead.confidence.startswith("none")
    assert worksheet([dead, entry({"3": 9}, 3, 3)]).index("high") < worksheet([dead, entry({"3": 9}, 3, 3)]).index(
        "none"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target-l0", "600"], "600 active latents is not between 0 and the width, 512"),
        (["--target-l0", "many"], "--target-l0 'many' is not a list of numbers"),
        (["--ffn", "swish"], "no hidden layer 'swish'"),
        (["--features", "512"], "no feature 512; the SAE has the features 0 to 511"),
        (["--features", "some"], "neither all nor a list"),
        (["--dataset", "digitz"], "nearest: digits"),
    ],
)
def test_bad_options(tmp_path: Path, arguments: list[str], message: str) -> None:
    outcome = invoke("images", "run", "--out", tmp_path / "out", *arguments)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_a_plan_without_room_is_refused() -> None:
    with pytest.raises(InputError, match="between 0 and the width"):
        TrainingPlan(d_sae=8, target_l0=8)


def test_what_was_saved_is_what_was_trained(laboratory: Path) -> None:
    pair = load_pair(laboratory / "models.safetensors")
    data = load_images(pair.dataset)
    (summary,) = json.loads((laboratory / "summary.json").read_text())
    assert accuracy(pair.subject, data) == pytest.approx(summary["baseline_acc"])
    assert accuracy(pair.subject, data, reconstruct(pair.sae)) == pytest.approx(summary["recon_acc_after_shift"])


def test_files_that_are_no_pair(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(InputError, match="images run` writes one"):
        load_pair(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InputError, match="not a safetensors file"):
        load_pair(tmp_path / "text")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="holds no classifier and SAE"):
        load_pair(tmp_path / "other.safetensors")


def test_the_demo_runs_the_analysis_on_the_shipped_pair(tmp_path: Path) -> None:
    outcome = invoke("images", "demo", "--out", tmp_path, "--n-eval", 100)
    assert outcome.code == 0, outcome.stderr
    report = json.loads((tmp_path / "feature_report.json").read_text())
    assert len(report) == 512
    assert (tmp_path / "feature_0_gallery.png").is_file()
    shipped = load_pair(shipped_path())
    data = load_images(shipped.dataset)
    assert accuracy(shipped.subject, data) >= 0.95
    assert accuracy(shipped.subject, data, reconstruct(shipped.sae)) >= accuracy(shipped.subject, data) - 0.02


@pytest.mark.realdata
def test_real_mnist(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2].parent / "shared" / "data" / "mnist"
    if not folder.is_dir():
        pytest.skip("the official MNIST test set is not beside this checkout (../shared/data/mnist)")
    config = LaboratoryConfig(dataset=str(folder), target_l0=(20.0,), features="0,1", n_eval=500)
    summary = run_laboratory(config, tmp_path).summaries[0]
    assert summary.baseline_acc >= 0.93
    assert abs(summary.achieved_actives_val - 20) <= 0.5
    assert summary.recon_acc_after_shift >= summary.baseline_acc - 0.015


def test_the_saved_pair_has_the_same_bytes_in_every_process(laboratory):
    """The library writes the metadata in an order that differs from process to process."""
    content = (laboratory / "models.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    assert size % 8 == 0
    assert list(header) == sorted(header)
    assert list(header["__metadata__"]) == ["dataset", "height", "kind", "width"]
