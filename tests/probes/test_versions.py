"""Versions: numbered once, written once, read only when they are what was written."""

from __future__ import annotations

import io
import json
import sys
import threading
import types
import zipfile

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skops.io import dump

from conceptatlas.base.errors import InputError, WorkError
from conceptatlas.probes.comparison import compare_probes
from conceptatlas.probes.config import ProbeConfig, load_config
from conceptatlas.probes.datasets import prepare_probe
from conceptatlas.probes.persist import dump_model, load_model
from conceptatlas.probes.training import train_probe
from conceptatlas.probes.versions import ProbeRun, find_versions, list_versions, new_config, new_version
from tests.probes.synthetic import planted_recording


def config(model="logistic", **hyperparams):
    return ProbeConfig.model_validate(
        {"model_type": model, "hyperparams": hyperparams, "training": {"bootstrap": 20, "shuffles": 1}}
    )


@pytest.fixture(scope="module")
def rec(tmp_path_factory):
    return planted_recording(tmp_path_factory.mktemp("planted") / "rec")


@pytest.fixture(scope="module")
def data(rec, tmp_path_factory):
    return prepare_probe(rec, tmp_path_factory.mktemp("data") / "d.npz", strategy="hidden-to-concept", layers="1")


@pytest.fixture(scope="module")
def runs(rec, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    train_probe(data, folder, name="first", config=config(C=1.0), message="The beginning.")
    train_probe(data, folder, name="tight", config=config(C=1e-5).model_copy(update={"parent": "v1_first"}))
    other = prepare_probe(rec, folder / "r.npz", strategy="hidden-to-feature", target_layer=1, target_feature=3)
    train_probe(other, folder, name="size", config=config())
    return folder


def test_versions_are_numbered_and_never_written_again(runs):
    assert list_versions(runs) == ["v1_first", "v2_tight", "v3_size"]
    files = list((runs / "v1_first").iterdir())
    assert files
    for path in files:
        assert path.stat().st_mode & 0o222 == 0


def test_a_number_is_never_given_twice(tmp_path):
    for name in ("a", "b"):
        with new_version(tmp_path, name) as claim:
            (claim.folder / "results.json").write_text("{}")
    (tmp_path / "v2_b" / "results.json").unlink()
    (tmp_path / "v2_b").rmdir()
    with new_version(tmp_path, "c") as claim:
        assert claim.version == "v3_c"
    (tmp_path / "v7_from_elsewhere").mkdir()
    with new_version(tmp_path, "d") as claim:
        assert claim.number == 8


def test_processes_at_once_get_different_numbers(tmp_path):
    start, got = threading.Barrier(8), []

    def work(i):
        start.wait()
        with new_version(tmp_path, f"n{i}") as claim:
            got.append(claim.number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(1, 9))


def test_a_version_appears_whole_or_not_at_all(tmp_path):
    def fail():
        with new_version(tmp_path, "a") as claim:
            (claim.folder / "results.json").write_text("{}")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list_versions(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == [".versions"]


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "a b", "ü"])
def test_a_name_must_be_fit_for_a_folder(data, tmp_path, name):
    with pytest.raises(InputError, match="cannot name a probe; use letters, digits"):
        train_probe(data, tmp_path, name=name, config=config())
    assert not list(tmp_path.iterdir())


def test_the_readme_tells_what_was_done(runs):
    text = (runs / "v1_first" / "README.md").read_text()
    results = ProbeRun.open(runs / "v1_first").results
    assert text.startswith("# v1_first\n\nThe beginning.\n")
    assert f"| accuracy, test | {results['test_accuracy']:.3f} |" in text
    assert results["metadata"]["data_hash"] in text
    assert "blocks.1.hook_resid_post" in text
    assert "always saying the commonest class" in text
    assert "Configuration copied from v1_first." in (runs / "v2_tight" / "README.md").read_text()
    assert "the activation of feature 3 of layer_1" in (runs / "v3_size" / "README.md").read_text()


def test_run_json_holds_what_the_rest_must_not(runs):
    run = json.loads((runs / "v1_first" / "run.json").read_text())
    assert run["command"] == "probe train"
    assert "host" in run


def test_a_configuration_is_copied_forward(runs, tmp_path):
    found = new_config(runs, "v2_tight", tmp_path / "next.yaml")
    assert found.parent == "v2_tight"
    assert load_config(tmp_path / "next.yaml") == found
    assert found.hyperparams == {"C": 1e-5}
    with pytest.raises(InputError, match=r"next\.yaml is there already; choose another --out"):
        new_config(runs, "v1", tmp_path / "next.yaml")
    with pytest.raises(InputError, match=r"^Unknown version 'v2_tigth'; nearest: v2_tight"):
        new_config(runs, "v2_tigth", tmp_path / "other.yaml")
    new_config(runs, "v1", tmp_path / "nowhere" / "n.yaml")


def test_versions_are_compared(runs):
    found = compare_probes(runs)
    assert found.table["version"].to_list() == ["v1_first", "v2_tight", "v3_size"]
    run = ProbeRun.open(runs / "v1_first").results
    row = found.table.row(0, named=True)
    assert row["gap_cv_test"] == pytest.approx(run["cv_mean"] - run["test_accuracy"])
    assert row["gap_train_test"] == pytest.approx(run["train_accuracy"] - run["test_accuracy"])
    assert any("different data sets" in note for note in found.notes)
    assert any("some regressions" in note for note in found.notes)
    only = compare_probes(runs, versions=["v3", "v1_first"])
    assert only.table["version"].to_list() == ["v3_size", "v1_first"]
    assert "delta_test" not in only.table.columns


def test_details_are_the_change_against_the_parent(runs):
    found = compare_probes(runs, detailed=True)
    first, tight, size = found.table.iter_rows(named=True)
    assert first["delta_test"] is None
    assert size["delta_test"] is None  # no other regression to compare with
    assert tight["against"] == "v1_first"
    assert tight["same_data"] is True
    assert tight["delta_test"] == pytest.approx(tight["test"] - first["test"])
    assert tight["changed"] == "hyperparams.C: 1.0 → 1e-05"


@pytest.mark.parametrize(("test", "flagged"), [(0.85, True), (0.86, False), (0.94, False), (0.96, True)])
def test_a_gap_of_more_than_five_points_is_flagged(runs, tmp_path, test, flagged):
    folder = tmp_path / "v1_x"
    folder.mkdir()
    results = json.loads((runs / "v1_first" / "results.json").read_text())
    results |= {"cv_mean": 0.905, "test_accuracy": test, "train_accuracy": 1.0}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "config.yaml").write_text("model_type: logistic")
    found = compare_probes(tmp_path)
    assert (found.table["flag"][0] == "cv-test gap") is flagged
    assert any("v1_x: cross-validation and test differ by" in note for note in found.notes) is flagged


def test_nothing_to_compare(tmp_path):
    with pytest.raises(InputError, match=r"^There is no version in .*; train a probe into it"):
        compare_probes(tmp_path)
    with pytest.raises(InputError, match=r"^There is no folder .*none; train a probe into it"):
        compare_probes(tmp_path / "none")
    (tmp_path / "v1_a").mkdir()
    with pytest.raises(InputError, match=r"is not a version of a probe \(it has no results\.json\)"):
        find_versions(tmp_path)


def test_untrusted_types_are_refused(runs, tmp_path):
    """The function of the pipeline would be called when it predicts; it must not even be loaded."""
    path = tmp_path / "model.skops"
    dump(make_pipeline(FunctionTransformer(json.dumps), LogisticRegression()), path)
    with pytest.raises(InputError, match=r"holds types that are not trusted: .*json.*dumps; it was not loaded"):
        load_model(path)


def test_a_model_of_somebody_else_is_refused(runs, tmp_path):
    folder = tmp_path / "v1_x"
    folder.mkdir()
    for name in ("results.json", "config.yaml"):
        (folder / name).write_bytes((runs / "v1_first" / name).read_bytes())
    run = ProbeRun.open(folder)
    with pytest.raises(InputError, match=r"^There is no model .*model\.skops"):
        _ = run.model
    (folder / "model.skops").write_bytes((runs / "v2_tight" / "model.skops").read_bytes())
    with pytest.raises(InputError, match="is not the file that was trained"):
        _ = run.model
    (folder / "model.skops").write_bytes(b"PK nonsense")
    with pytest.raises(InputError, match="is not a skops file, or it is damaged"):
        _ = run.model
    good = (runs / "v1_first" / "model.skops").read_bytes()
    (folder / "model.skops").write_bytes(good[: len(good) // 2])
    with pytest.raises(InputError, match="is not a skops file, or it is damaged"):
        _ = run.model
    with zipfile.ZipFile(folder / "model.skops", "w") as archive:
        archive.writestr("other.txt", "x")
    with pytest.raises(InputError, match="is not a skops file, or it is damaged"):
        _ = run.model


def test_a_model_survives_the_renaming_of_its_arrays():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(50, 4)), np.arange(50) % 3
    model = LogisticRegression().fit(X, y)
    again = LogisticRegression().fit(X, y)
    data = dump_model(model)
    assert data == dump_model(again)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert all(info.date_time[0] == 1980 for info in archive.infolist())


def test_wrong_inputs_are_told(runs):
    run = ProbeRun.open(runs / "v1_first")
    with pytest.raises(InputError, match=r"v1_first reads 12 inputs per sample, and an array of \(2, 3\) was given"):
        run.predict(np.ones((2, 3)))
    with pytest.raises(InputError, match="v3_size is a regression and has no probabilities"):
        ProbeRun.open(runs / "v3_size").probabilities(np.ones((2, 12)))


def test_mlflow_is_asked_for_before_the_work(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match=r"^MLflow is not installed; run `pip install 'conceptatlas\[mlflow\]'`"):
        train_probe(data, tmp_path / "runs", name="x", config=config(), mlflow="probes")
    assert not (tmp_path / "runs").exists()


def test_a_version_is_logged_to_mlflow(data, tmp_path, monkeypatch):
    logged = {}

    class Run:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    fake = types.ModuleType("mlflow")
    fake.set_experiment = lambda name: logged.update(experiment=name)
    fake.start_run = lambda run_name: logged.update(run=run_name) or Run()
    fake.log_params = lambda params: logged.update(params=params)
    fake.log_metrics = lambda values: logged.update(metrics=values)
    fake.log_artifacts = lambda path: logged.update(path=path)
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    run = train_probe(data, tmp_path / "runs", name="x", config=config(C=0.5), mlflow="probes")
    assert logged["experiment"] == "probes"
    assert logged["run"] == "v1_x"
    assert logged["params"]["hyperparams.C"] == 0.5
    assert logged["metrics"]["test_accuracy"] == run.results["test_accuracy"]
    assert logged["path"] == str(run.path)


def test_a_version_is_kept_when_mlflow_fails(data, tmp_path, monkeypatch):
    fake = types.ModuleType("mlflow")

    def refuse(name):
        raise ConnectionError("no server")

    fake.set_experiment = refuse
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    with pytest.raises(WorkError, match=r"v1_x is written, but MLflow could not log it \(ConnectionError: no server\)"):
        train_probe(data, tmp_path / "runs", name="x", config=config(), mlflow="probes")
    assert list_versions(tmp_path / "runs") == ["v1_x"]
