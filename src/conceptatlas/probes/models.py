"""The models that a probe may be, and how they are fitted: scikit-learn Pipelines with the scaler inside.

A logistic probe with more columns than samples is fitted in the row space of its inputs. With an L2 penalty the optimal
weights are a combination of the samples (the representer theorem; Hastie, Tibshirani and Friedman, "Elements of
Statistical Learning", 2nd ed., sect. 18.3.5), so the problem in r = rank(X) rotated columns has the same optimum, and
its solution is rotated back.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import InputError, unknown_name
from conceptatlas.probes.config import Value
from conceptatlas.probes.scaling import Normalization
from conceptatlas.probes.strategies import Task

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

F64 = npt.NDArray[np.float64]

# Decided by us, so that results can be reproduced and saved.
_OURS = frozenset({"random_state", "n_jobs", "verbose", "warm_start", "probability", "penalty", "dual"})
# Below so many input values, starting threads costs a forest more than they save.
_WORTH_THREADS = 500_000
SVM_KERNELS = ("rbf", "linear", "poly")


@dataclass(frozen=True)
class ModelSpec:
    """A kind of model.

    Attributes:
        name: As written in ``--model`` and ``model_type``.
        make: Task → an unfitted scikit-learn model with our defaults.
    """

    name: str
    make: Callable[[Task], Any]


MODELS: dict[str, ModelSpec] = {}


def _add(spec: ModelSpec) -> None:
    if spec.name in MODELS:
        raise ValueError(f"Model {spec.name!r} is registered twice.")
    MODELS[spec.name] = spec


def _logistic(task: Task) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    return LogisticRegression(max_iter=2000) if task == "classification" else Ridge()


def _random_forest(task: Task) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind = RandomForestClassifier if task == "classification" else RandomForestRegressor
    return kind(n_estimators=200)


def _svm(task: Task) -> Any:
    from sklearn.svm import SVC, SVR

    return SVC() if task == "classification" else SVR()


_add(ModelSpec("logistic", _logistic))
_add(ModelSpec("random_forest", _random_forest))
_add(ModelSpec("svm", _svm))


def find_model(name: str) -> ModelSpec:
    """Return the kind of model called ``name``.

    Raises:
        InputError: There is none; the valid names are listed.
    """
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    return MODELS[name]


def build_pipeline(
    model_type: str, task: Task, normalize: Normalization, params: Mapping[str, Value], *, seed: int
) -> Pipeline:
    """Return an unfitted Pipeline: scaler (unless ``none``), then model.

    Raises:
        InputError: A hyperparameter is unknown, is decided by us, or is a kernel that we do not offer.
    """
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    model = find_model(model_type).make(task)
    known = set(model.get_params()) - _OURS
    for name, value in params.items():
        if name in _OURS:
            raise InputError(f"The hyperparameter {name!r} is decided by conceptatlas; leave it out.")
        if name not in known:
            raise unknown_name(f"hyperparameter of {type(model).__name__}", name, known)
        if name == "kernel" and value not in SVM_KERNELS:
            raise unknown_name("kernel", str(value), SVM_KERNELS)
    model.set_params(**params)
    if "random_state" in model.get_params():
        model.set_params(random_state=seed)
    scalers: dict[Normalization, Any] = {"standardize": StandardScaler, "minmax": MinMaxScaler}
    steps = [("scale", scalers[normalize]())] if normalize in scalers else []
    return Pipeline([*steps, ("model", model)])


def fit(pipeline: Pipeline, X: F64, y: npt.NDArray[Any]) -> Pipeline:
    """Fit ``pipeline`` in place and return it; a wide logistic probe is fitted in its row space.

    Raises:
        InputError: A hyperparameter has a value that scikit-learn refuses.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    model = pipeline.steps[-1][1]
    # One BLAS thread: equal bits whatever the number of cores, and with small products threads wait more than they work.
    limit = threadpool_limits(1, user_api="blas")
    try:
        if isinstance(model, LogisticRegression) and _rotatable(model) and X.shape[0] < X.shape[1]:
            scaled = X
            for _, step in pipeline.steps[:-1]:
                scaled = step.fit_transform(scaled)
            space = RowSpace.of(scaled)
            if len(space.pivots):  # none when every column is constant
                fit_logistic(model, space, y)
                return pipeline
        if X.size >= _WORTH_THREADS and "n_jobs" in model.get_params() and not isinstance(model, LogisticRegression):
            # Trees draw their seeds beforehand, so growing them in parallel changes nothing; adding up their votes in
            # parallel does, in the last bit, so the fitted model votes in one thread.
            model.set_params(n_jobs=-1)
        pipeline.fit(X, y)
    except ValueError as error:
        if type(error).__name__ != "InvalidParameterError":
            raise
        raise InputError(f"scikit-learn refuses a hyperparameter: {error}") from error
    finally:
        limit.restore_original_limits()
        if "n_jobs" in model.get_params() and model.n_jobs is not None:
            model.set_params(n_jobs=None)
    return pipeline


def _rotatable(model: LogisticRegression) -> bool:
    """Whether the optimum turns with the columns: an L2 penalty, and a solver that sees nothing but the objective."""
    return not model.l1_ratio and model.solver in ("lbfgs", "newton-cg")


@dataclass(frozen=True)
class RowSpace:
    """n scaled samples in the coordinates of the space that they span.

    ``X = coordinates @ basis`` with orthonormal rows of ``basis = factor⁻¹ @ X[pivots]``.

    Attributes:
        coordinates: [n, r].
        factor: Lower triangular, [r, r].
        pivots: Samples that span the space, [r].
        X: [n, D].
    """

    coordinates: F64
    factor: F64
    pivots: npt.NDArray[np.int64]
    X: F64

    @staticmethod
    def of(X: F64) -> RowSpace:
        """Return the row space of ``X``, by the pivoted Cholesky factor of ``X Xᵀ`` (Higham 1990; LAPACK dpstrf)."""
        from scipy.linalg.lapack import dpstrf

        gram = X @ X.T
        tolerance = len(X) * np.finfo(np.float64).eps * float(gram.diagonal().max())
        factor, order, rank, _ = dpstrf(gram, lower=1, tol=tolerance)
        factor = np.tril(factor)[:, :rank]
        coordinates = np.empty_like(factor)
        coordinates[order - 1] = factor
        return RowSpace(coordinates, factor[:rank], order[:rank].astype(np.int64) - 1, X)

    def turned_back(self, weights_Cr: F64) -> F64:
        """Return weights on the coordinates as weights on the columns of ``X``, [C, r] → [C, D]."""
        from scipy.linalg import solve_triangular

        return solve_triangular(self.factor, weights_Cr.T, trans="T", lower=True).T @ self.X[self.pivots]


def fit_logistic(model: LogisticRegression, space: RowSpace, y: npt.NDArray[Any]) -> LogisticRegression:
    """Fit ``model`` in place within ``space``; its ``coef_`` are in the columns of ``space.X``."""
    model.fit(space.coordinates, y)
    model.coef_ = space.turned_back(model.coef_)
    model.n_features_in_ = space.X.shape[1]
    return model


def class_scores(pipeline: Pipeline, X: F64) -> tuple[F64, bool]:
    """Return the scores of a classifier and whether they are probabilities.

    [n, C] probabilities, or the decision function: [n, C], or [n, 1] with two classes (positive: the higher class).
    """
    if hasattr(pipeline, "predict_proba"):
        return np.asarray(pipeline.predict_proba(X), dtype=np.float64), True
    scores = np.asarray(pipeline.decision_function(X), dtype=np.float64)
    return (scores[:, None] if scores.ndim == 1 else scores), False


@contextmanager
def noted_convergence(notes: list[str]) -> Iterator[None]:
    """Collect the warnings that a model did not converge as sentences in ``notes``; others go on as they are."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    failed = 0
    for each in caught:
        if issubclass(each.category, ConvergenceWarning):
            failed += 1
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    if failed:
        notes.append(
            f"{failed} of the fits stopped before they converged; raise max_iter, scale the inputs, or penalise more."
        )
