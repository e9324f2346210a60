"""Versions of probes: folders ``v{N}_{name}`` that are written once and never again."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import InputError, WorkError, unknown_name
from conceptatlas.base.files import TEMP_PREFIX, ensure_folder, read_json, sha256_of, write_text
from conceptatlas.base.writing import may_replace
from conceptatlas.probes.config import ProbeConfig, load_config

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

RESULTS_FILE = "results.json"
MODEL_FILE = "model.skops"
CONFIG_FILE = "config.yaml"
README_FILE = "README.md"

# One empty file per number that was ever given; making it is what takes the number.
_CLAIMS = ".versions"
_VERSION = re.compile(r"^v([1-9]\d*)_(.+)$")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")


def check_name(name: str) -> None:
    """Check the name of a version.

    Raises:
        InputError: It cannot be a folder's name everywhere.
    """
    if not _NAME.match(name):
        raise InputError(
            f"{name!r} cannot name a probe; use letters, digits, '.', '_' and '-', beginning with a letter or digit."
        )


@dataclass(frozen=True)
class Claim:
    """A version whose folder is being filled.

    Attributes:
        number: N.
        name: The name after it.
        folder: Where to write; it takes its final name when the block ends.
    """

    number: int
    name: str
    folder: Path

    @property
    def version(self) -> str:
        """``v{N}_{name}``."""
        return f"v{self.number}_{self.name}"


@contextlib.contextmanager
def new_version(runs: Path, name: str) -> Iterator[Claim]:
    """Take the next number in ``runs`` and give a folder to fill; it appears whole, or not at all.

    Two processes never get the same number, and a number is not given again when its version was deleted.

    Raises:
        InputError: The name is not fit, or ``runs`` cannot be written.
    """
    check_name(name)
    ensure_folder(runs)
    number = _claim(runs)
    with tempfile.TemporaryDirectory(prefix=TEMP_PREFIX, dir=runs) as holder:
        claim = Claim(number, name, Path(holder) / f"v{number}_{name}")
        claim.folder.mkdir()
        yield claim
        for file in claim.folder.iterdir():
            file.chmod(0o444)  # a version is not edited
        try:
            claim.folder.rename(runs / claim.version)
        except OSError as error:
            raise WorkError(f"Cannot write {runs / claim.version}: {error.strerror}; choose another --out.") from error


def _claim(runs: Path) -> int:
    claims = runs / _CLAIMS
    claims.mkdir(exist_ok=True)
    taken = [int(match[1]) for path in runs.iterdir() if (match := _VERSION.match(path.name))]
    taken += [int(path.name) for path in claims.iterdir() if path.name.isdecimal()]
    number = max(taken, default=0) + 1
    while True:
        try:
            os.close(os.open(claims / str(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            number += 1
        else:
            return number


def list_versions(runs: str | os.PathLike[str]) -> list[str]:
    """Return the versions in ``runs`` in the order of their numbers.

    Raises:
        InputError: There is no such folder.
    """
    folder = Path(runs)
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; train a probe into it with `conceptatlas probe train --out`.")
    found = [(int(match[1]), path.name) for path in folder.iterdir() if (match := _VERSION.match(path.name))]
    return [name for _, name in sorted(found)]


def find_versions(runs: str | os.PathLike[str], names: list[str] | None = None) -> list[ProbeRun]:
    """Open versions of ``runs``: all of them, or those in ``names`` (``v2_x``, or ``v2``).

    Raises:
        InputError: There is no version, or not that one (the nearest are listed).
    """
    there = list_versions(runs)
    if not there:
        raise InputError(f"There is no version in {runs}; train a probe into it with `conceptatlas probe train --out`.")
    if names is None:
        return [ProbeRun.open(Path(runs) / version) for version in there]
    chosen = []
    for name in names:
        short = [version for version in there if version.split("_", 1)[0] == name]
        if name not in there and not short:
            raise unknown_name("version", name, there)
        chosen.append(ProbeRun.open(Path(runs) / (name if name in there else short[0])))
    return chosen


def new_config(runs: str | os.PathLike[str], source: str, out: str | os.PathLike[str]) -> ProbeConfig:
    """Copy the configuration of a version to a file to be edited, with the version as its ``parent``.

    Args:
        runs: The folder of versions.
        source: ``v2_x``, or ``v2``.
        out: The YAML file to write.

    Raises:
        InputError: There is no such version, or ``out`` is there already.
    """
    path = Path(out)
    if path.exists():
        raise InputError(f"{path} is there already; choose another --out, so that nothing is overwritten.")
    may_replace(path)
    (run,) = find_versions(runs, [source])
    config = run.config.model_copy(update={"parent": run.version})
    write_text(path, config.to_yaml())
    return config


@dataclass(frozen=True)
class ProbeRun:
    """A version of a probe, read from its folder.

    Attributes:
        path: The folder.
        results: What stands in ``results.json``.
        config: What stands in ``config.yaml``.
    """

    path: Path
    results: Mapping[str, Any]
    config: ProbeConfig

    @staticmethod
    def open(path: str | os.PathLike[str]) -> ProbeRun:
        """Open a version.

        Raises:
            InputError: The folder holds no version, or it is damaged.
        """
        folder = Path(path)
        if not (folder / RESULTS_FILE).is_file():
            raise InputError(
                f"{folder} is not a version of a probe (it has no {RESULTS_FILE}); give a folder such as runs/v1_name."
            )
        results = read_json(folder / RESULTS_FILE)
        lacking = [key for key in ("model_type", "cv_scores", "metadata") if key not in results]
        if lacking:
            raise InputError(f"{folder / RESULTS_FILE} lacks {lacking[0]!r}; train the probe again.")
        return ProbeRun(folder, results, load_config(folder / CONFIG_FILE))

    @property
    def version(self) -> str:
        """``v{N}_{name}``."""
        return self.path.name

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the data set was, and where it came from."""
        return self.results["metadata"]

    @property
    def task(self) -> str:
        """``classification`` or ``regression``."""
        return self.results["task"]

    @cached_property
    def model(self) -> Pipeline:
        """The fitted Pipeline, from raw inputs to prediction.

        Raises:
            InputError: The file is not the one that was written, or holds types that are not trusted.
        """
        from conceptatlas.probes.persist import load_model

        path = self.path / MODEL_FILE
        model = load_model(path)
        if sha256_of(path) != self.metadata["model_sha256"]:
            raise InputError(f"{path} is not the file that was trained (its checksum differs); train the probe again.")
        return model

    def predict(self, X: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the class or value of each row of raw inputs, [n, D] → [n]."""
        return np.asarray(self.model.predict(self._checked(X)))

    def probabilities(self, X: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the probability of each class (``metadata["classes"]``) for each row of raw inputs, [n, D] → [n, C].

        Raises:
            InputError: The probe is a regression.
        """
        from conceptatlas.probes.calibration import SigmoidMap
        from conceptatlas.probes.models import class_scores

        if self.task != "classification":
            raise InputError(f"{self.version} is a regression and has no probabilities; use its values.")
        scores, ready = class_scores(self.model, self._checked(X))
        return scores if ready else SigmoidMap.from_json(self.results["calibration"]["map"]).apply(scores)

    def _checked(self, X: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        width = self.results["n_features"]
        if X.ndim != 2 or X.shape[1] != width:
            raise InputError(f"{self.version} reads {width} inputs per sample, and an array of {X.shape} was given.")
        return np.asarray(X, dtype=np.float64)

    def __repr__(self) -> str:
        return f"ProbeRun({self.version}: {self.results['model_type']}, {self.metadata.get('strategy', '?')})"
