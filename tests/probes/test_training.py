"""Training: an independent script finds the same scores, nothing leaks, and equal seeds give equal bits."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC, SVR

from conceptatlas.base.errors import InputError
from conceptatlas.probes.config import ProbeConfig, load_config, parse_config
from conceptatlas.probes.dataset_file import ProbeDataset
from conceptatlas.probes.datasets import prepare_probe
from conceptatlas.probes.models import RowSpace, build_pipeline, fit, fit_logistic
from conceptatlas.probes.training import fit_and_judge, train_probe
from conceptatlas.probes.versions import ProbeRun
from tests.probes.synthetic import planted_recording

QUICK = {"bootstrap": 50, "shuffles": 1}


@pytest.fixture(scope="module")
def rec(tmp_path_factory):
    return planted_recording(tmp_path_factory.mktemp("planted") / "rec")


@pytest.fixture(scope="module")
def concept_data(rec, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "concept.npz"
    return prepare_probe(rec, path, strategy="hidden-to-concept", layers="1-2")


@pytest.fixture(scope="module")
def feature_data(rec, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "feature.npz"
    return prepare_probe(
        rec, path, strategy="hidden-to-feature", target_layer=1, target_feature=3, rows="all", normalize="minmax"
    )


def config(model="logistic", *, hyperparams=None, grid=None, task="auto", **training):
    return ProbeConfig.model_validate(
        {
            "model_type": model,
            "hyperparams": hyperparams or {},
            "grid": grid or {},
            "task": task,
            "training": QUICK | training,
        }
    )


def read(path):
    """What a stranger with NumPy alone would read: raw inputs, targets, groups, split."""
    with np.load(path, allow_pickle=False) as file:
        f = {name: file[name] for name in file.files}
    X = f["X"].astype(np.float64)
    if "norm_mean" in f:
        X = X * f["norm_std"] + f["norm_mean"]
    elif "norm_min" in f:
        span = f["norm_max"] - f["norm_min"]
        X = X * np.where(span == 0, 1, span) + f["norm_min"]
    return X, f["y"], f["meta_grades"], f["meta_groups"], f["train_index"], f["test_index"]


@pytest.mark.parametrize(
    ("name", "oracle", "hyperparams"),
    [
        ("logistic", LogisticRegression(C=0.5, max_iter=2000), {"C": 0.5}),
        ("random_forest", RandomForestClassifier(n_estimators=20, random_state=7), {"n_estimators": 20}),
        ("svm", SVC(kernel="linear"), {"kernel": "linear"}),
        ("svm", SVC(kernel="rbf"), {}),
        ("svm", SVC(kernel="poly", degree=2), {"kernel": "poly", "degree": 2}),
    ],
)
def test_an_independent_script_finds_the_same_scores(concept_data, tmp_path, name, oracle, hyperparams):
    run = train_probe(
        concept_data.path,
        tmp_path,
        name="x",
        config=config(name, hyperparams=hyperparams, random_state=7),
    )
    X, y, _, groups, train, test = read(concept_data.path)
    assert set(groups[train]).isdisjoint(groups[test])
    model = make_pipeline(StandardScaler(), oracle)
    folds = StratifiedGroupKFold(n_splits=5, shuffle=True, random_state=7)
    cv = []
    for fit_on, check in folds.split(X[train], y[train], groups[train]):
        model.fit(X[train][fit_on], y[train][fit_on])
        cv.append(model.score(X[train][check], y[train][check]))
    model.fit(X[train], y[train])
    said = model.predict(X[test])
    results = run.results
    assert results["cv_scores"] == pytest.approx(cv)
    assert results["cv_mean"] == pytest.approx(np.mean(cv))
    assert results["cv_std"] == pytest.approx(np.std(cv))
    assert results["test_accuracy"] == pytest.approx(sk.accuracy_score(y[test], said))
    assert results["train_accuracy"] == pytest.approx(model.score(X[train], y[train]))
    assert results["test_f1"] == pytest.approx(sk.f1_score(y[test], said, average="macro"))
    assert results["confusion_matrix"] == sk.confusion_matrix(y[test], said).tolist()
    assert results["test_mae"] == pytest.approx(sk.mean_absolute_error(y[test], said))
    assert results["test_quadratic_kappa"] == pytest.approx(sk.cohen_kappa_score(y[test], said, weights="quadratic"))
    if name == "svm":
        scores = model.decision_function(X[test])
        auc = np.mean([sk.roc_auc_score(y[test] == c, scores[:, c]) for c in range(4)])
    else:
        auc = sk.roc_auc_score(y[test], model.predict_proba(X[test]), multi_class="ovr")
    assert results["test_roc_auc"] == pytest.approx(auc)


@pytest.mark.parametrize(("name", "oracle"), [("logistic", Ridge()), ("svm", SVR())])
def test_an_independent_script_finds_the_same_regression(feature_data, tmp_path, name, oracle):
    run = train_probe(feature_data, tmp_path, name="x", config=config(name))
    X, y, _, groups, train, test = read(feature_data.path)
    y = y.astype(np.float64)
    model = make_pipeline(MinMaxScaler(), oracle)
    folds = StratifiedGroupKFold(n_splits=5, shuffle=True, random_state=0)
    cv = []
    for fit_on, check in folds.split(X[train], y[train] > 0, groups[train]):
        cv.append(model.fit(X[train][fit_on], y[train][fit_on]).score(X[train][check], y[train][check]))
    said = model.fit(X[train], y[train]).predict(X[test])
    assert run.results["cv_scores"] == pytest.approx(cv, abs=1e-6)
    assert run.results["test_r2"] == pytest.approx(sk.r2_score(y[test], said), abs=1e-6)
    assert run.results["test_mae"] == pytest.approx(sk.mean_absolute_error(y[test], said), rel=1e-5)
    assert run.results["test_mse"] == pytest.approx(sk.mean_squared_error(y[test], said), rel=1e-5)
    assert run.results["test_active_auroc"] == pytest.approx(sk.roc_auc_score(y[test] > 0, said), abs=1e-6)
    assert "confusion_matrix" not in run.results


CONTRACT = """n_samples_total n_samples_train n_samples_test n_features model_type cv_scores cv_mean cv_std
    training_time_sec config metadata"""


def test_results_hold_the_contract_s_keys(concept_data, feature_data, tmp_path):
    run = train_probe(concept_data, tmp_path, name="a", config=config())
    assert set(CONTRACT.split()) <= set(run.results)
    assert {"test_accuracy", "test_f1", "test_roc_auc", "confusion_matrix", "train_accuracy"} <= set(run.results)
    assert run.results["metadata"]["data_hash"] == concept_data.data_hash()
    assert run.results["config"]["model_type"] == "logistic"
    assert len(run.results["cv_scores"]) == 5
    low, high = run.results["intervals"]["test_accuracy"]
    assert low <= run.results["test_accuracy"] <= high
    assert run.results["test_accuracy"] > 0.8
    assert run.results["controls"]["shuffled"]["mean"] < 0.6
    values = train_probe(feature_data, tmp_path, name="b", config=config())
    assert {"test_mae", "test_mse", "test_r2"} <= set(values.results)
    assert values.results["test_r2"] > 0.5
    assert values.results["controls"]["shuffled"]["mean"] < 0.3
    assert {p.name for p in run.path.iterdir()} == {
        "results.json", "model.skops", "config.yaml", "README.md", "run.json",
    }  # fmt: skip


def test_an_activation_can_be_classified_as_active(feature_data, tmp_path):
    run = train_probe(feature_data, tmp_path, name="a", config=config(task="classification"))
    assert run.results["metadata"]["classes"] == [0, 1]
    assert run.results["test_roc_auc"] > 0.95
    assert "test_quadratic_kappa" not in run.results


@pytest.mark.parametrize("model", ["logistic", "random_forest", "svm"])
def test_equal_seeds_give_equal_bits(concept_data, tmp_path, model):
    hyper = {"n_estimators": 20} if model == "random_forest" else {}
    settings = config(model, hyperparams=hyper)
    runs = [train_probe(concept_data, tmp_path / str(i), name="x", config=settings) for i in range(2)]
    a, b = (dict(run.results) for run in runs)
    assert a.pop("training_time_sec") > 0
    b.pop("training_time_sec")
    assert a == b
    assert (runs[0].path / "model.skops").read_bytes() == (runs[1].path / "model.skops").read_bytes()
    other = train_probe(concept_data, tmp_path / "o", name="x", config=config(model, hyperparams=hyper, random_state=5))
    assert other.results["cv_scores"] != a["cv_scores"]


def strategy_options(strategy):
    if strategy.endswith("feature"):
        return {"strategy": strategy, "target_layer": 1, "target_feature": 3}
    return {"strategy": strategy, "layers": "0-1"} if strategy == "hidden-to-concept" else {"strategy": strategy}


@pytest.mark.parametrize("model", ["logistic", "random_forest", "svm"])
@pytest.mark.parametrize("normalize", ["standardize", "minmax", "none"])
@pytest.mark.parametrize(
    "strategy", ["embedding-to-feature", "hidden-to-feature", "hidden-to-concept", "feature-to-concept"]
)
def test_nothing_leaks(noise, tmp_path, strategy, normalize, model):
    """Random targets, groups of eight near-duplicates: whoever sees a group on both sides scores far above chance."""
    data = prepare_probe(noise, tmp_path / "x.npz", normalize=normalize, **strategy_options(strategy))
    hyper = {"random_forest": {"n_estimators": 15}, "svm": {"C": 100.0}}.get(model, {})
    found = fit_and_judge(data, config(model, hyperparams=hyper, bootstrap=0, shuffles=0)).results
    if strategy.endswith("concept"):
        # 48 test items in groups of 8 and chance ¼: the share of right groups is binomial(≥ 6 groups).
        assert found["cv_mean"] < 0.25 + 3 * np.sqrt(0.25 * 0.75 / 40)
        assert found["test_accuracy"] <= 0.75
    else:
        assert found["cv_mean"] < 0.15
        assert found["test_r2"] < 0.3
    leaky = leaked(data, config(model, hyperparams=hyper, bootstrap=0, shuffles=0))
    assert leaky > found["cv_mean"] + 0.3, "the test would not notice a leak"


def leaked(data, settings):
    """The cross-validation when every item is taken for its own group: near-duplicates stand on both sides."""
    arrays = data.arrays | {"meta_groups": np.arange(len(data.y)).astype(np.uint64)}
    arrays = {key: value for key, value in arrays.items() if key not in ("meta_fold_of", "meta_chosen_columns")}
    return fit_and_judge(replace(data, arrays=arrays), settings).results["cv_mean"]


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    return planted_recording(
        tmp_path_factory.mktemp("noise") / "rec",
        n_items=320,
        group_size=8,
        strength=0,
        n_layers=2,
        hidden_rows="final",
        keep="final",
        seed=4,
    )


def test_features_chosen_once_for_all_folds_would_leak(tmp_path):
    """The reason why each fold chooses its own: chosen on all, cross-validation beats chance on random labels."""
    rec = planted_recording(tmp_path / "r", n_items=100, group_size=1, strength=0, n_features=2000, n_layers=1, seed=3)
    data = prepare_probe(rec, tmp_path / "x.npz", strategy="feature-to-concept", k=20)
    honest = fit_and_judge(data, config(bootstrap=0, shuffles=0)).results["cv_mean"]
    arrays = {key: value for key, value in data.arrays.items() if key not in ("meta_fold_of", "meta_chosen_columns")}
    columns = data.columns()
    once = replace(data, arrays=arrays | {"norm_mean": arrays["norm_mean"][columns], "norm_std": arrays["norm_std"][columns]},
                   X=data.X[:, columns])  # fmt: skip
    leaky = fit_and_judge(once, config(bootstrap=0, shuffles=0)).results["cv_mean"]
    assert honest < 0.4
    assert leaky > honest + 0.2


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("C", [1e-3, 1.0, 100.0])
def test_the_row_space_gives_the_same_probe(n_classes, C):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 300))
    X[:, 7] = 1.0  # a constant column
    X[31] = X[30]  # rank below n
    y = np.arange(60) % n_classes
    fast, slow = (LogisticRegression(C=C, max_iter=5000, tol=1e-10) for _ in range(2))
    fit_logistic(fast, RowSpace.of(X), y)
    slow.fit(X, y)
    assert fast.coef_.shape == slow.coef_.shape
    scale = np.abs(slow.coef_).max()
    np.testing.assert_allclose(fast.coef_, slow.coef_, atol=1e-3 * scale)
    fresh = rng.normal(size=(50, 300))
    np.testing.assert_allclose(fast.predict_proba(fresh), slow.predict_proba(fresh), atol=1e-3)
    assert fast.n_features_in_ == 300


def test_a_wide_pipeline_takes_the_row_space():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 90)) * 5 + 2, np.arange(40) % 3
    pipeline = fit(build_pipeline("logistic", "classification", "standardize", {}, seed=0), X, y)
    plain = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(X, y)
    fresh = rng.normal(size=(30, 90)) * 5
    np.testing.assert_allclose(pipeline.predict_proba(fresh), plain.predict_proba(fresh), atol=1e-2)


def test_a_grid_is_searched_inside_the_training_part(concept_data, tmp_path):
    grid = {"C": [1e-6, 1.0]}
    run = train_probe(concept_data, tmp_path, name="x", config=config(grid=grid, hyperparams={"max_iter": 3000}))
    assert run.results["best_params"] == {"max_iter": 3000, "C": 1.0}
    fixed = train_probe(concept_data, tmp_path, name="x", config=config(hyperparams={"C": 1.0, "max_iter": 3000}))
    assert run.results["test_accuracy"] == fixed.results["test_accuracy"]


def test_probabilities_come_with_every_classifier(concept_data, tmp_path):
    for model in ("logistic", "random_forest", "svm"):
        hyper = {"n_estimators": 30} if model == "random_forest" else {}
        run = train_probe(concept_data, tmp_path, name=model, config=config(model, hyperparams=hyper))
        raw = concept_data.raw()[concept_data.test_index]
        p = run.probabilities(raw)
        assert p.shape == (len(raw), 4)
        np.testing.assert_allclose(p.sum(axis=1), 1)
        accuracy = np.mean(run.predict(raw) == concept_data.y[concept_data.test_index])
        assert accuracy == pytest.approx(run.results["test_accuracy"])
        calibration = run.results["calibration"]
        assert calibration["brier"] < calibration["brier_of_class_shares"]
        assert sum(each["n"] for each in calibration["reliability"]) == run.results["n_samples_test"]
        assert np.mean(p.argmax(axis=1) == run.predict(raw)) > 0.8


def test_a_fit_that_does_not_converge_is_noted(concept_data):
    found = fit_and_judge(concept_data, config(hyperparams={"max_iter": 1})).results
    assert any("stopped before they converged; raise max_iter" in note for note in found["notes"])


REFUSED = [
    ({"model": "logit"}, r"^Unknown model 'logit'; nearest: logistic"),
    ({"hyperparams": {"c": 1}}, r"^Unknown hyperparameter of LogisticRegression 'c'; nearest: "),
    ({"hyperparams": {"random_state": 1}}, r"^The hyperparameter 'random_state' is decided by conceptatlas"),
    ({"hyperparams": {"C": -1}}, r"^scikit-learn refuses a hyperparameter: The 'C' parameter"),
    ({"model": "svm", "hyperparams": {"kernel": "precomputed"}}, r"^Unknown kernel 'precomputed'; nearest: "),
    ({"cv_folds": 60}, r"training items? or groups for 60 folds; add items"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_a_wrong_setting_is_refused(concept_data, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        train_probe(concept_data, tmp_path / "runs", name="x", config=config(**options))
    assert not (tmp_path / "runs").exists()


def test_one_class_only(concept_data, tmp_path):
    same = replace(concept_data, arrays=concept_data.arrays | {"y": np.full_like(concept_data.y, 2)})
    with pytest.raises(InputError, match=r"^Every training sample of .*concept\.npz is of class 2; a probe"):
        train_probe(same, tmp_path, name="x", config=config())


def test_other_folds_than_prepared(rec, tmp_path):
    data = prepare_probe(rec, tmp_path / "x.npz", strategy="feature-to-concept", k=3, cv_folds=4)
    with pytest.raises(InputError, match=r"was prepared for 4 folds, each with features of its own choice, and 5 are"):
        train_probe(data, tmp_path / "runs", name="x", config=config())
    run = train_probe(data, tmp_path / "runs", name="x", config=config(cv_folds=4))
    assert run.results["n_features"] == 3
    assert run.metadata["input_features"] == data.arrays["meta_input_features"][data.columns()].tolist()


def test_another_test_split_than_prepared(concept_data, tmp_path):
    with pytest.raises(InputError, match=r"wants a test split of 0\.3, and .* was split with 0\.2; prepare it again"):
        train_probe(concept_data, tmp_path, name="x", config=config(test_split=0.3))


def test_option_and_configuration_must_agree(concept_data, tmp_path):
    with pytest.raises(InputError, match=r"says model_type 'svm' and the option says 'logistic'; drop one"):
        train_probe(concept_data, tmp_path, name="x", model="logistic", config=config("svm"))


def test_a_class_that_training_never_saw_is_told(concept_data, tmp_path):
    y = concept_data.y.copy()
    y[concept_data.test_index[0]] = 9
    changed = replace(concept_data, arrays=concept_data.arrays | {"y": y})
    run = train_probe(changed, tmp_path, name="x", config=config())
    assert "The test part has classes that training had not: 9." in run.results["notes"]
    assert len(run.results["confusion_matrix"]) == 5


YAML = [
    ("model_typ: svm", r"model_typ: is not a key of a probe's configuration; mend it"),
    ("training: {cv_folds: 1}", r"training\.cv_folds: .* greater than or equal to 2 \(given: 1\)"),
    ("training: {test_split: 0}", r"^The test split must lie between 0 and 1, and 0 was given"),
    ("- a", r"holds no mapping; write keys such as"),
    ("a: [", r"is not YAML in UTF-8"),
]


@pytest.mark.parametrize(("text", "message"), YAML)
def test_a_wrong_configuration_is_refused(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_config(tmp_path / "c.yaml")


def test_a_configuration_survives_writing(tmp_path):
    with pytest.raises(InputError, match=r"^There is no configuration .*none\.yaml; check the path"):
        load_config(tmp_path / "none.yaml")
    before = config("svm", hyperparams={"kernel": "poly", "C": 0.5}, grid={"gamma": ["scale", 0.1]}, test_split=0.2)
    (tmp_path / "c.yaml").write_text(before.to_yaml())
    assert load_config(tmp_path / "c.yaml") == before
    assert parse_config({}, where="x") == ProbeConfig()


def test_results_are_json_without_nan(concept_data, tmp_path):
    run = train_probe(concept_data, tmp_path, name="x", config=config())
    text = (run.path / "results.json").read_text()
    assert "NaN" not in text
    assert json.loads(text) == run.results
    shutil.copytree(run.path, tmp_path / "elsewhere")
    assert ProbeRun.open(tmp_path / "elsewhere").predict(concept_data.raw()[:3]).shape == (3,)
    assert isinstance(ProbeDataset.open(concept_data.path).X, np.memmap)
