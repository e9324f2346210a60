"""Sweeps: each layer's probe is the one that ``train`` would make, and the curve emerges where it was planted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from conceptatlas.base.errors import InputError
from conceptatlas.probes.config import ProbeConfig
from conceptatlas.probes.datasets import prepare_probe
from conceptatlas.probes.plots import emergence_figure
from conceptatlas.probes.sweep import Sweep, sweep_probes
from conceptatlas.probes.training import fit_and_judge
from tests.helpers.recordings import write_synthetic_recording
from tests.probes.synthetic import planted_recording

QUICK = ProbeConfig.model_validate({"training": {"bootstrap": 50, "shuffles": 2}})


@pytest.fixture(scope="module")
def rec(tmp_path_factory):
    return planted_recording(tmp_path_factory.mktemp("planted") / "rec", n_items=160, strength=4.0)


@pytest.fixture(scope="module")
def swept(rec, tmp_path_factory):
    return sweep_probes(rec, tmp_path_factory.mktemp("sweep"), config=QUICK)


def test_the_concept_emerges_where_it_was_planted(swept):
    assert swept.table["layer"].to_list() == [-1, 0, 1, 2]
    test = swept.table["test"].to_list()
    assert max(test[:2]) < 0.55
    assert min(test[2:]) > 0.85
    assert swept.facts["best_layer"] in (1, 2)
    assert swept.best["cv_mean"] == swept.table["cv_mean"].max()
    assert max(swept.table["shuffled_mean"]) < 0.55
    assert (swept.table["test_low"] <= swept.table["test"]).all()
    assert (swept.table["test_high"] >= swept.table["test"]).all()


def test_each_layer_is_what_train_would_make(rec, swept, tmp_path):
    for layer in (0, 2):
        data = prepare_probe(rec, tmp_path / f"{layer}.npz", strategy="hidden-to-concept", layers=layer)
        alone = fit_and_judge(data, QUICK).results
        row = swept.table.row(layer + 1, named=True)
        assert row["cv_mean"] == pytest.approx(alone["cv_mean"], abs=0.01)
        assert row["test"] == pytest.approx(alone["test_accuracy"], abs=0.04)
        assert row["quadratic_kappa"] == pytest.approx(alone["test_quadratic_kappa"], abs=0.05)


def test_the_files_hold_what_was_returned(swept):
    again = Sweep.open(swept.path)
    assert again.table.equals(swept.table)
    assert again.facts == swept.facts
    assert {path.name for path in swept.path.iterdir()} == {
        "sweep.parquet", "sweep.json", "emergence.png", "run.json", "artefact.json",
    }  # fmt: skip
    layers = json.loads((swept.path / "sweep.json").read_text())["layers"]
    assert layers == swept.table.to_dicts()
    assert (swept.path / "emergence.png").read_bytes()[:4] == b"\x89PNG"


def test_the_number_of_workers_changes_nothing(rec, swept):
    parallel = sweep_probes(rec, config=QUICK, workers=2)
    assert parallel.table.equals(swept.table)
    assert parallel.path is None


def test_a_feature_can_be_swept(rec):
    found = sweep_probes(
        rec, strategy="hidden-to-feature", target_layer=1, target_feature=3, rows="all", config=QUICK, layers="0-1"
    )
    assert found.facts["metric"] == "r2"
    low, high = found.table["test"].to_list()
    assert high > 0.5 > low
    assert found.table["active_auroc"][1] > 0.95
    assert found.facts["majority"] is None
    figure = emergence_figure(found.table, found.facts | {"concept": "a $b$ c"})
    assert figure.axes[0].get_title(loc="left").count(r"\$") == 2


def test_another_model_can_be_swept(rec):
    found = sweep_probes(rec, config=QUICK, model="svm", layers=2)
    assert found.facts["model_type"] == "svm"
    assert found.table["test"][0] > 0.8


REFUSED = [
    ({"strategy": "feature-to-concept"}, r"^feature-to-concept has no layers to sweep; use hidden-to-concept"),
    ({"layers": "1-9"}, r"^No hidden states of layers 3-9 were recorded; recorded: 0-2\."),
    ({"model": "tree"}, r"^Unknown model 'tree'; nearest: "),
    ({"test_split": 0}, r"^The test split must lie between 0 and 1, and 0 was given"),
    ({"strategy": "hidden-to-feature", "target_layer": 1, "target_feature": 99}, r"^layer_1 has features 0-29"),
    ({"pool": "median"}, r"^Unknown pooling 'median'"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_cannot_be_is_refused_before_the_work(rec, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        sweep_probes(rec, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_no_hidden_states(tmp_path):
    rec = write_synthetic_recording(tmp_path / "r", {"s": np.eye(8)}, [0, 1] * 4, [1] * 8)
    with pytest.raises(InputError, match=r"holds no hidden states; record again with --hidden final or --hidden all"):
        sweep_probes(rec)


def test_not_a_sweep(tmp_path):
    with pytest.raises(InputError, match=r"There is no sweep of probes in "):
        Sweep.open(tmp_path)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(InputError, match=r"has no artefact\.json: an earlier conceptatlas made it; run `"):
        Sweep.open(tmp_path)
