"""``probe train``: from a data set to a version.

1. Undo the scaling of the file, so that every fit below fits its own scaler on its own training samples.
2. Cross-validate on the training part, in folds that keep groups whole; with a grid, each fold searches within its own
   training samples (nested), so that the score is not that of the luckiest setting.
3. Fit on the whole training part, and look at the test part once.
4. The same on shuffled training targets, as a control.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import InputError
from conceptatlas.base.files import sha256_of, write_json, write_text
from conceptatlas.base.progress import Bar, progress_bar
from conceptatlas.base.provenance import write_run
from conceptatlas.probes import metrics
from conceptatlas.probes.calibration import SigmoidMap
from conceptatlas.probes.config import ProbeConfig, Value, load_config
from conceptatlas.probes.dataset_file import ProbeDataset
from conceptatlas.probes.judging import describe_calibration_of, judge
from conceptatlas.probes.models import build_pipeline, class_scores, find_model, fit, noted_convergence
from conceptatlas.probes.persist import save_model
from conceptatlas.probes.readme import version_readme
from conceptatlas.probes.splits import Fold, cross_validation_folds
from conceptatlas.probes.strategies import Task
from conceptatlas.probes.versions import (
    CONFIG_FILE,
    MODEL_FILE,
    README_FILE,
    RESULTS_FILE,
    ProbeRun,
    check_name,
    new_version,
)

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

F64 = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Problem:
    """The samples of one side or of a fold, ready for scikit-learn.

    Attributes:
        X: Raw inputs, float64 [n, D].
        y: Classes (int64) or values (float64), [n].
        strata: What folds balance, [n].
        groups: [n].
    """

    X: F64
    y: Array
    strata: npt.NDArray[np.int64]
    groups: npt.NDArray[np.uint64]

    def take(self, index: Array) -> Problem:
        """Return some of the samples."""
        return Problem(self.X[index], self.y[index], self.strata[index], self.groups[index])


def resolve_task(dataset: ProbeDataset, config: ProbeConfig) -> Task:
    """Return what to do: the strategy's own task, unless the configuration says otherwise."""
    return dataset.strategy.task if config.task == "auto" else config.task


def make_problem(dataset: ProbeDataset, task: Task) -> Problem:
    """Return all samples of a data set for ``task``; an activation is classified as active (above 0) or not."""
    activation = dataset.strategy.target == "feature"
    active = (dataset.y > 0).astype(np.int64)
    if task == "regression":
        y: Array = dataset.y.astype(np.float64)
    else:
        y = active if activation else dataset.y.astype(np.int64)
    strata = active if activation else dataset.grades
    return Problem(dataset.raw().astype(np.float64), y, strata, dataset.groups)


def train_probe(
    dataset: ProbeDataset | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    name: str,
    model: str | None = None,
    config: ProbeConfig | str | os.PathLike[str] | None = None,
    message: str = "",
    mlflow: str | None = None,
) -> ProbeRun:
    """Train a probe and write it as a new version.

    Args:
        dataset: A data set that ``prepare_probe`` made, or its file.
        out: The folder of versions; a new ``v{N}_{name}`` appears in it.
        name: What to call it.
        model: ``logistic``, ``random_forest`` or ``svm``; the configuration's when not given.
        config: A configuration, or its YAML file.
        message: Why this version was made; it goes into its README.
        mlflow: Log the version to this MLflow experiment, too (needs the extra ``conceptatlas[mlflow]``).

    Returns:
        The version, opened.

    Raises:
        InputError: Data, configuration and options do not go together; the message says which.
    """
    check_name(name)
    data = dataset if isinstance(dataset, ProbeDataset) else ProbeDataset.open(Path(dataset))
    settings = _settings(data, config, model)
    if mlflow is not None:
        from conceptatlas.probes.tracking import require_mlflow

        require_mlflow()
    started = time.perf_counter()
    fitted = fit_and_judge(data, settings)
    results = fitted.results | {"training_time_sec": round(time.perf_counter() - started, 3)}
    folder = Path(out)
    with new_version(folder, name) as claim:
        save_model(claim.folder / MODEL_FILE, fitted.model)
        metadata = results.pop("metadata")
        results["config"] = settings.model_dump()
        results["metadata"] = {
            "version": claim.version,
            "message": message,
            "parent": settings.parent,
            **metadata,
            "dataset": data.name,
            "data_hash": data.data_hash(),
            "model_sha256": sha256_of(claim.folder / MODEL_FILE),
        }
        write_json(claim.folder / RESULTS_FILE, results)
        write_text(claim.folder / CONFIG_FILE, settings.to_yaml())
        write_text(claim.folder / README_FILE, version_readme(claim.version, results))
        options = {"dataset": str(data.path), "name": name, "message": message, "model": settings.model_type}
        write_run(claim.folder, command="probe train", options=options)
        version = claim.version
    run = ProbeRun.open(folder / version)
    if mlflow is not None:
        from conceptatlas.probes.tracking import log_to_mlflow

        log_to_mlflow(run, experiment=mlflow)
    return run


def _settings(
    data: ProbeDataset, config: ProbeConfig | str | os.PathLike[str] | None, model: str | None
) -> ProbeConfig:
    """Return the configuration with everything that it leaves open filled in, checked against the data set."""
    given = (
        config if isinstance(config, ProbeConfig) else ProbeConfig() if config is None else load_config(Path(config))
    )
    if model is not None:
        said = "model_type" in given.model_fields_set and given.model_type != model
        if config is not None and said:
            raise InputError(
                f"The configuration says model_type {given.model_type!r} and the option says {model!r}; drop one."
            )
        given = given.model_copy(update={"model_type": model})
    find_model(given.model_type)
    share = float(data.arrays["meta_test_split"]) if "meta_test_split" in data.arrays else None
    wanted = given.training.test_split
    if share is not None and wanted is not None and abs(wanted - share) > 1e-9:
        raise InputError(
            f"The configuration wants a test split of {wanted:g}, and {data.path} was split with {share:g}; prepare it "
            f"again with --test-split {wanted:g}, or change test_split."
        )
    training = given.training.model_copy(update={"test_split": share})
    return given.model_copy(update={"training": training})


@dataclass(frozen=True)
class Fitted:
    """A fitted probe with its results, not yet on disk."""

    model: Pipeline
    results: dict[str, Any]


class _NoBar(Bar):
    """Shows nothing: a bar within a bar cannot be drawn."""

    def __init__(self) -> None:
        pass

    def advance(self, steps: float = 1) -> None:
        pass


def fit_and_judge(data: ProbeDataset, config: ProbeConfig, *, quiet: bool = False) -> Fitted:
    """Cross-validate, fit, and judge a probe; nothing is written (``quiet``: no progress bar either)."""
    task = resolve_task(data, config)
    problem = make_problem(data, task)
    train, test = problem.take(data.train_index), problem.take(data.test_index)
    _require_classes(data, train, task)
    trainer = Trainer(data, config, task)
    notes: list[str] = []
    folds = trainer.folds(train)
    steps = len(folds) + 1 + config.training.shuffles
    shown = nullcontext(_NoBar()) if quiet else progress_bar("Training", total=steps)
    with shown as bar, noted_convergence(notes):
        scores, held_out = trainer.cross_validate(train, folds, bar)
        columns = data.columns()
        own_train, own_test = _only(train, columns), _only(test, columns)
        params = trainer.choose(own_train)
        model = trainer.fitted(own_train, params)
        bar.advance()
        calibrator = _calibrator(model, own_train, train.y, held_out, task)
        controls = trainer.shuffled(own_train, own_test, params, bar)
    test_part = judge(model, own_test.X, own_test.y, task, calibrator, strategy=data.strategy)
    train_part = judge(model, own_train.X, own_train.y, task, calibrator, strategy=data.strategy)
    main = "test_accuracy" if task == "classification" else "test_r2"
    results: dict[str, Any] = {
        "n_samples_total": len(problem.y),
        "n_samples_train": len(train.y),
        "n_samples_test": len(test.y),
        "n_features": own_train.X.shape[1],
        "model_type": config.model_type,
        "task": task,
        "strategy": data.strategy.name,
        "cv_metric": main.removeprefix("test_"),
        "cv_scores": scores,
        "cv_mean": float(np.mean(scores)),
        "cv_std": float(np.std(scores)),
        **{f"test_{key}": value for key, value in test_part.figures().items()},
        **({"confusion_matrix": test_part.confusion()} if task == "classification" else {}),
        main.replace("test_", "train_"): train_part.figures()[main.removeprefix("test_")],
        "intervals": test_part.intervals(
            test.groups, resamples=config.training.bootstrap, rng=np.random.default_rng(config.training.random_state)
        ),
        "controls": {**test_part.trivial(train.y), "shuffled": controls},
        "best_params": dict(params),
        "calibration": describe_calibration_of(test_part, calibrator),
        "notes": notes + test_part.notes(),
    }
    return Fitted(model, results | {"metadata": _metadata(data, problem, task)})


def _require_classes(data: ProbeDataset, train: Problem, task: Task) -> None:
    found = np.unique(train.y)
    if task == "classification" and len(found) < 2:
        raise InputError(
            f"Every training sample of {data.path} is of class {found[0]}; a probe needs at least two classes, so add "
            "items of another one."
        )


def _only(problem: Problem, columns: npt.NDArray[np.int64] | None) -> Problem:
    return problem if columns is None else Problem(problem.X[:, columns], problem.y, problem.strata, problem.groups)


def _calibrator(model: Pipeline, train: Problem, truth: Array, held_out: F64 | None, task: Task) -> SigmoidMap | None:
    """Return the map from scores to probabilities, where the model has scores only."""
    if task != "classification" or held_out is None or class_scores(model, train.X[:1])[1]:
        return None
    return SigmoidMap.fitted(held_out, truth, np.unique(truth))


def _metadata(data: ProbeDataset, problem: Problem, task: Task) -> dict[str, Any]:
    classes = np.unique(problem.y[data.train_index]).tolist() if task == "classification" else None
    chosen = data.columns()
    found = data.metadata() | {
        "classes": classes,
        "n_groups_train": len(np.unique(problem.groups[data.train_index])),
        "n_groups_test": len(np.unique(problem.groups[data.test_index])),
        "normalize": data.scaler.method,
    }
    if chosen is not None:
        for key in ("input_saes", "input_features"):
            found[key] = [found[key][column] for column in chosen]
    return found


@dataclass(frozen=True)
class Trainer:
    """Fits probes of one configuration on parts of one data set."""

    data: ProbeDataset
    config: ProbeConfig
    task: Task

    @property
    def seed(self) -> int:
        """The seed of everything."""
        return self.config.training.random_state

    def folds(self, train: Problem) -> list[Fold]:
        """Return the folds of the training part: those in the file, else new ones.

        Raises:
            InputError: There are too few groups, or the file has another number of folds.
        """
        wanted = self.config.training.cv_folds
        fixed = self.data.folds
        if fixed is None:
            return cross_validation_folds(train.strata, train.groups, n_folds=wanted, seed=self.seed)
        if len(fixed) != wanted:
            raise InputError(
                f"{self.data.path} was prepared for {len(fixed)} folds, each with features of its own choice, and "
                f"{wanted} are asked for; set cv_folds to {len(fixed)}, or prepare again with --cv-folds {wanted}."
            )
        return fixed

    def fitted(self, part: Problem, params: Mapping[str, Value]) -> Pipeline:
        """Return a Pipeline with ``params``, fitted on ``part``."""
        pipeline = build_pipeline(self.config.model_type, self.task, self.data.scaler.method, params, seed=self.seed)
        return fit(pipeline, part.X, part.y)

    def score(self, model: Pipeline, part: Problem) -> float:
        """Return accuracy or R² of ``model`` on ``part``."""
        said = np.asarray(model.predict(part.X), dtype=np.float64)
        metric = metrics.accuracy if self.task == "classification" else metrics.r2
        value = metrics.point(metric, metrics.Outcome(part.y.astype(np.float64), said))
        return 0.0 if value is None else value

    def choose(self, part: Problem) -> dict[str, Value]:
        """Return the hyperparameters: the configuration's, with the best of its grid within ``part``."""
        fixed = self.config.hyperparams
        if not self.config.grid:
            return dict(fixed)
        from sklearn.model_selection import ParameterGrid

        folds = cross_validation_folds(
            part.strata, part.groups, n_folds=self.config.training.inner_folds, seed=self.seed
        )
        best: tuple[float, dict[str, Value]] | None = None
        for values in ParameterGrid(self.config.grid):
            params = {**fixed, **values}
            scores = [
                self.score(self.fitted(part.take(fold.train), params), part.take(fold.validation)) for fold in folds
            ]
            mean = float(np.mean(scores))
            if best is None or mean > best[0]:
                best = (mean, params)
        assert best is not None  # a grid has at least one point
        return best[1]

    def cross_validate(self, train: Problem, folds: list[Fold], bar: Bar) -> tuple[list[float], F64 | None]:
        """Return the score of each fold, and of each sample the class scores of the model that did not see it."""
        scores: list[float] = []
        held_out: F64 | None = None
        n_classes = len(np.unique(train.y))
        for number, fold in enumerate(folds):
            own = _only(train, self.data.columns(number))
            part, rest = own.take(fold.train), own.take(fold.validation)
            model = self.fitted(part, self.choose(part))
            scores.append(self.score(model, rest))
            if self.task == "classification" and len(np.unique(part.y)) == n_classes:
                said = class_scores(model, rest.X)[0]
                held_out = np.zeros((len(train.y), said.shape[1])) if held_out is None else held_out
                held_out[fold.validation] = said
            bar.advance()
        return scores, held_out

    def shuffled(self, train: Problem, test: Problem, params: Mapping[str, Value], bar: Bar) -> dict[str, Any]:
        """Return the test scores of probes whose training targets were shuffled."""
        rng = np.random.default_rng([self.seed, 1])
        scores = []
        for _ in range(self.config.training.shuffles):
            wrong = Problem(train.X, rng.permutation(train.y), train.strata, train.groups)
            scores.append(self.score(self.fitted(wrong, params), test))
            bar.advance()
        metric = "accuracy" if self.task == "classification" else "r2"
        return {"metric": metric, "scores": scores, "mean": float(np.mean(scores)) if scores else None}
