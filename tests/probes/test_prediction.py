"""Predicting: new sentences are read exactly as the recorded ones were."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skops.io import dump

from conceptatlas.base.errors import InputError
from conceptatlas.concepts import build_concept
from conceptatlas.probes.config import ProbeConfig
from conceptatlas.probes.datasets import prepare_probe
from conceptatlas.probes.prediction import predict_probe
from conceptatlas.probes.training import train_probe
from conceptatlas.probes.versions import ProbeRun
from conceptatlas.recording import record
from tests.helpers.cli import invoke
from tests.helpers.tiny_models import D_MODEL, tiny_model
from tests.helpers.tiny_saes import write_saelens

ENDS = ["the rain", "some money", "my friend", "a stranger"]
STARTS = ["I saw", "she carried", "they told me of", "what about", "he believed in", "nobody found", "we like"]
QUICK = {"bootstrap": 10, "shuffles": 0, "cv_folds": 3}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("predict")
    model = tiny_model("gemma2", folder / "models")
    write_saelens(folder / "saes" / "one", d_in=D_MODEL, d_sae=80, hook="blocks.1.hook_resid_post")
    texts = [f"{start} {end}" for start in STARTS for end in ENDS]
    labels = [grade for _ in STARTS for grade in range(4)]
    concept = build_concept("ends", texts, labels)
    record(concept, str(model), str(folder / "saes"), folder / "rec", hidden="all", device="cpu")
    yield folder
    torch.set_num_threads(before)


def trained(place, name, *, model="logistic", **options):
    path = place / f"{name}.npz"
    data = prepare_probe(place / "rec", path, cv_folds=3, **options)
    config = ProbeConfig.model_validate({"model_type": model, "training": QUICK})
    return data, train_probe(data, place / "runs", name=name, config=config)


def strongest(place):
    from conceptatlas.recording import Recording

    rec = Recording.open(place / "rec")
    slug = rec.saes[0].slug
    return int(np.argmax(rec.columns(slug).counts()))


STRATEGIES = {
    "final": {"strategy": "hidden-to-concept", "layers": 1},
    "mean": {"strategy": "hidden-to-concept", "layers": 1, "pool": "mean", "normalize": "minmax"},
    "features": {"strategy": "feature-to-concept", "k": 5, "pool": "max"},
    "embedding": {"strategy": "embedding-to-feature", "pool": "mean"},
    "rows": {"strategy": "hidden-to-feature", "rows": "all"},
}


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_old_sentences_are_predicted_as_they_were(place, name):
    options = dict(STRATEGIES[name])
    if options["strategy"].endswith("feature"):
        options |= {"target_layer": 1, "target_feature": strongest(place)}
    data, run = trained(place, name, **options)
    texts = [f"{start} {end}" for start in STARTS for end in ENDS]
    said = predict_probe(run, texts, device="cpu")
    raw = data.raw()
    if data.columns() is not None:
        raw = raw[:, data.columns()]
    expected = run.predict(raw)
    assert said.table.height == len(data.y)
    np.testing.assert_allclose(said.table["predicted"].to_numpy(), expected, atol=2e-3)
    assert said.notes == []
    if name == "rows":
        assert said.table.columns == ["sentence", "position", "token", "predicted"]
        assert said.calibration is None
    if name == "final":
        assert said.table.columns == ["sentence", "predicted", "p_0", "p_1", "p_2", "p_3", "expected_grade"]
        np.testing.assert_allclose(said.table.select("p_0", "p_1", "p_2", "p_3").sum_horizontal(), 1)
        assert said.calibration["brier"] >= 0


def test_the_command_reads_files_and_shows_the_calibration(place, tmp_path):
    _, run = trained(place, "cli", **STRATEGIES["final"])
    (tmp_path / "s.txt").write_text("I saw the rain\n\nthey like a stranger\n")
    shown = invoke("probe", "predict", run.path, tmp_path / "s.txt", "--device", "cpu", "--json")
    assert shown.code == 0, shown.stderr
    rows = json.loads(shown.stdout)
    assert [row["sentence"] for row in rows] == ["I saw the rain", "they like a stranger"]
    assert "Brier score on the test part" in shown.stderr
    table = invoke("probe", "predict", run.path, "--text", "I saw the rain", "--device", "cpu")
    assert table.code == 0, table.stderr
    assert "Calibration on the probe's test part" in table.stdout


def test_other_weights_are_told(place, tmp_path):
    _, run = trained(place, "weights", **STRATEGIES["final"])
    other = tiny_model("gemma2", tmp_path, seed=1)
    said = predict_probe(run, ["I saw the rain"], model=str(other), device="cpu")
    assert "do not trust them unless the weights are the same" in said.notes[0]


def test_what_cannot_be_predicted_is_told(place, tmp_path):
    _, run = trained(place, "bad", **STRATEGIES["features"])
    with pytest.raises(InputError, match=r"There is no file .*none\.txt"):
        predict_probe(run, tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(InputError, match=r"empty\.txt is empty"):
        predict_probe(run, tmp_path / "empty.txt")
    moved = ProbeRun(run.path, json.loads(json.dumps(run.results)), run.config)
    moved.results["metadata"] |= {"sae_specs": [], "sae_references": []}
    with pytest.raises(InputError, match=r"is not found any more under any name; put it back"):
        predict_probe(moved, ["I saw the rain"])


def test_an_untrusted_model_stops_before_the_subject_is_loaded(place, tmp_path):
    _, run = trained(place, "evil", **STRATEGIES["final"])
    shutil.copytree(run.path, tmp_path / "v1_evil")
    (tmp_path / "v1_evil" / "model.skops").chmod(0o644)
    dump(make_pipeline(FunctionTransformer(json.dumps), LogisticRegression()), tmp_path / "v1_evil" / "model.skops")
    found = invoke("probe", "predict", tmp_path / "v1_evil", "--text", "a", "--model", "no-such-model")
    assert found.code == 2
    assert "holds types that are not trusted" in found.stderr
