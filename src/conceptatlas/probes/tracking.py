"""Optional logging of versions to MLflow (the extra ``conceptatlas[mlflow]``)."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from conceptatlas.base.errors import InputError, WorkError

if TYPE_CHECKING:
    from conceptatlas.probes.versions import ProbeRun


def require_mlflow() -> ModuleType:
    """Return the module ``mlflow``.

    Raises:
        InputError: It is not installed.
    """
    try:
        return importlib.import_module("mlflow")
    except ModuleNotFoundError as error:
        raise InputError(
            "MLflow is not installed; run `pip install 'conceptatlas[mlflow]'`, or leave out --mlflow."
        ) from error


def log_to_mlflow(run: ProbeRun, *, experiment: str) -> None:
    """Log a version to the MLflow experiment ``experiment``: configuration, figures and the files of its folder.

    Where it goes is MLflow's own setting (``MLFLOW_TRACKING_URI``).
    """
    mlflow = require_mlflow()
    try:
        _log(mlflow, run, experiment)
    except Exception as error:  # MLflow's back ends raise their own kinds; none of them may hide that the work is kept
        raise WorkError(
            f"{run.path} is written, but MLflow could not log it ({type(error).__name__}: {error}); check "
            "MLFLOW_TRACKING_URI."
        ) from error


def _log(mlflow: ModuleType, run: ProbeRun, experiment: str) -> None:
    mlflow.set_experiment(experiment)
    results = run.results
    with mlflow.start_run(run_name=run.version):
        mlflow.log_params(
            {
                "model_type": results["model_type"],
                "strategy": results["strategy"],
                "task": results["task"],
                "dataset": run.metadata["dataset"],
                "data_hash": run.metadata["data_hash"],
                "random_state": run.config.training.random_state,
                **{f"hyperparams.{key}": value for key, value in results["best_params"].items()},
            }
        )
        prefixes = ("cv_mean", "cv_std", "test_", "train_", "training_time")
        mlflow.log_metrics(
            {key: value for key, value in results.items() if key.startswith(prefixes) and isinstance(value, float)}
        )
        mlflow.log_artifacts(str(run.path))
