"""The ``probe`` commands, as a user runs them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.helpers.cli import invoke
from tests.probes.synthetic import planted_recording

QUICK = "training: {bootstrap: 20, shuffles: 1}\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a recording, a data set, a configuration and two versions, made by the commands themselves."""
    folder = tmp_path_factory.mktemp("cli")
    planted_recording(folder / "rec", strength=4.0)
    (folder / "quick.yaml").write_text(QUICK)
    made = invoke("probe", "prepare", "--strategy", "hidden-to-concept", "--rec", folder / "rec", "--layer", "1",
                  "--out", folder / "x.npz")  # fmt: skip
    assert made.code == 0, made.stderr
    for name, model in (("first", "logistic"), ("second", "svm")):
        trained = invoke("probe", "train", folder / "x.npz", "--model", model, "--config", folder / "quick.yaml",
                         "--name", name, "--message", "Why.", "--out", folder / "runs")  # fmt: skip
        assert trained.code == 0, trained.stderr
    return folder


def test_prepare_says_what_it_made_and_what_comes_next(place):
    again = invoke("probe", "prepare", "--strategy", "hidden-to-feature", "--rec", place / "rec", "--target-layer", "1",
                   "--target-feature", "3", "--input-layer", "2", "--rows", "all", "--out", place / "y.npz",
                   "--json")  # fmt: skip
    assert again.code == 0, again.stderr
    (row,) = json.loads(again.stdout)
    assert row["strategy"] == "hidden-to-feature"
    assert row["train"] + row["test"] == row["samples"]
    assert "Next: conceptatlas probe train" in again.stderr
    with np.load(place / "y.npz", allow_pickle=False) as file:
        assert file["meta_input_layers"].tolist() == [2]


def test_train_prints_the_figures_with_their_intervals(place):
    done = invoke("probe", "train", place / "x.npz", "--config", place / "quick.yaml", "--name", "json", "--out",
                  place / "other", "--json")  # fmt: skip
    assert done.code == 0, done.stderr
    rows = {row["figure"]: row for row in json.loads(done.stdout)}
    assert rows["cv_accuracy"]["value"] > 0.8
    assert rows["test_accuracy"]["low"] <= rows["test_accuracy"]["value"] <= rows["test_accuracy"]["high"]
    assert (place / "other" / "v1_json" / "results.json").exists()


def test_compare_shows_versions_and_changes(place):
    shown = invoke("probe", "compare", place / "runs", "--detailed", "--versions", "v2_second", "v1_first", "--json")
    assert shown.code == 0, shown.stderr
    rows = json.loads(shown.stdout)
    assert [row["version"] for row in rows] == ["v2_second", "v1_first"]
    assert "model_type: svm → logistic" in rows[1]["changed"]
    table = invoke("probe", "compare", place / "runs")
    assert table.code == 0
    assert "v1_first" in table.stdout
    assert "cv-test" in table.stdout


def test_sweep_prints_a_row_per_layer(place):
    swept = invoke("probe", "sweep", "--rec", place / "rec", "--strategy", "hidden-to-concept", "--config",
                   place / "quick.yaml", "--out", place / "sweep", "--json")  # fmt: skip
    assert swept.code == 0, swept.stderr
    assert [row["layer"] for row in json.loads(swept.stdout)] == [-1, 0, 1, 2]
    assert "Best by cross-validation: layer" in swept.stderr
    assert (place / "sweep" / "emergence.png").exists()


def test_new_copies_a_configuration_forward(place):
    done = invoke("probe", "new", place / "runs", "--from", "v2_second", "--out", place / "next.yaml")
    assert done.code == 0, done.stderr
    trained = invoke("probe", "train", place / "x.npz", "--config", place / "next.yaml", "--name", "child", "--out",
                     place / "forward")  # fmt: skip
    assert trained.code == 0, trained.stderr
    results = json.loads((place / "forward" / "v1_child" / "results.json").read_text())
    assert results["metadata"]["parent"] == "v2_second"
    assert results["model_type"] == "svm"


REFUSED = [
    (("prepare", "--strategy", "hidden-to-concept", "--rec", "{}/rec", "--layer", "1", "--out", "{}/z.npz", "--test-split",
      "0"), "Error: The test split must lie between 0 and 1, and 0 was given"),
    (("prepare", "--strategy", "hidden-to-concept", "--rec", "{}/rec", "--layer", "9", "--out", "{}/z.npz"),
     "Error: No hidden states of layer 9 were recorded; recorded: 0-2."),
    (("prepare", "--strategy", "hidden-to-feature", "--rec", "{}/rec", "--target-layer", "1", "--target-feature", "77",
      "--out", "{}/z.npz"), "Error: layer_1 has features 0-29, and feature 77 was asked for."),
    (("prepare", "--strategy", "hidden-to-concept", "--rec", "{}/rec", "--layer", "1", "--layers", "1-2", "--out",
      "{}/z.npz"), "Error: --layer, --layers and --input-layer all say which layers are the input; give one of them."),
    (("train", "{}/quick.yaml", "--name", "x", "--out", "{}/none"), "quick.yaml cannot be read as an .npz file; a probe"),
    (("train", "{}/x.npz", "--model", "tree", "--name", "x", "--out", "{}/none"), "Error: Unknown model 'tree'; nearest: "),
    (("compare", "{}/nowhere"), "Error: There is no folder"),
    (("predict", "{}/runs/v1_first"), "Error: Give the sentences in a file, or with --text: one of the two."),
    (("predict", "{}/runs", "--text", "a"), "is not a version of a probe (it has no results.json)"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_bad_input_is_one_plain_sentence(place, arguments, message):
    found = invoke("probe", *(argument.format(place) for argument in arguments))
    assert found.code == 2
    assert message in found.stderr
    assert "Traceback" not in found.stderr
    assert not (place / "none").exists()
    assert not (place / "z.npz").exists()


def test_every_command_has_an_example():
    for command in ("prepare", "train", "sweep", "compare", "predict", "new"):
        shown = invoke("probe", command, "--help")
        assert shown.code == 0
        assert "Example: conceptatlas probe" in " ".join(shown.stdout.split())
