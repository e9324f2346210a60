"""The configuration of a probe: YAML, checked before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from conceptatlas.base.errors import InputError
from conceptatlas.probes.splits import check_test_share

Value = bool | int | float | str | None
Values = dict[str, Value]


class TrainingConfig(BaseModel):
    """How a probe is trained and judged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cv_folds: int = Field(default=5, ge=2)
    """Folds of the cross-validation on the training part."""
    test_split: float | None = None
    """Share of groups that test. The data set holds the split; a share that differs from its own is refused."""
    random_state: int = Field(default=0, ge=0, lt=2**32)
    """Seed of folds, models, bootstrap and shuffles."""
    inner_folds: int = Field(default=3, ge=2)
    """Folds of the grid search, within the training part of each fold."""
    bootstrap: int = Field(default=1000, ge=0)
    """Resamples of test groups for the intervals of what is no accuracy or AUROC; 0 leaves all intervals out."""
    shuffles: int = Field(default=3, ge=0)
    """Control probes on shuffled training targets."""


class ProbeConfig(BaseModel):
    """What ``train`` does.

    A YAML file looks so::

        model_type: logistic
        hyperparams: {C: 0.1}
        grid: {C: [0.01, 0.1, 1.0]}
        training: {cv_folds: 5, test_split: 0.2, random_state: 0}
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_type: str = "logistic"
    """``logistic`` (ridge for a regression), ``random_forest`` or ``svm``."""
    hyperparams: Values = Field(default_factory=dict)
    """Of the scikit-learn model, by its own names."""
    grid: dict[str, list[Value]] = Field(default_factory=dict)
    """Values to choose from by grid search inside the training part."""
    task: Literal["auto", "classification", "regression"] = "auto"
    """``auto``: a grade is classified, an activation regressed; ``classification`` of an activation: active or not."""
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    parent: str | None = None
    """The version that this configuration was copied from."""

    def to_yaml(self) -> str:
        """Return the configuration as YAML that ``load_config`` reads back."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)


def load_config(path: str | Path) -> ProbeConfig:
    """Read a configuration.

    Raises:
        InputError: There is no file, it is not YAML, or a key or value is wrong (named in the message).
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        raw = yaml.safe_load(text)
    except FileNotFoundError as error:
        raise InputError(f"There is no configuration {path}; check the path.") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path} is not YAML in UTF-8 ({first}); mend it.") from error
    if not isinstance(raw, dict | None):
        raise InputError(f"{path} holds no mapping; write keys such as `model_type: logistic`.")
    return parse_config(raw or {}, where=str(path))


def parse_config(raw: dict[str, Any], *, where: str) -> ProbeConfig:
    """Check a configuration that has been read from ``where``.

    Raises:
        InputError: A key or value is wrong.
    """
    try:
        config = ProbeConfig.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"] if part not in ("bool", "int", "float", "str"))
        given = first.get("input")
        said = "" if first["type"] == "extra_forbidden" else f" (given: {given!r})"
        reason = "is not a key of a probe's configuration" if first["type"] == "extra_forbidden" else first["msg"]
        raise InputError(f"{where}: {place}: {reason}{said}; mend it.") from error
    if config.training.test_split is not None:
        check_test_share(config.training.test_split)
    return config
