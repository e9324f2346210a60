"""What the kinds of data sets share: checked options, samples and their split, the keys of the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import InputError
from conceptatlas.probes.dataset_file import FORMAT, VERSION
from conceptatlas.probes.scaling import Normalization
from conceptatlas.probes.sources import (
    Pool,
    Rows,
)
from conceptatlas.probes.splits import check_test_share, probe_test_mask
from conceptatlas.probes.strategies import Strategy
from conceptatlas.recording import RecordedSAE, Recording

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class PrepareOptions:
    """What ``prepare_probe`` was asked, checked.

    Attributes:
        strategy: The question.
        layers: Input layers, or None for the strategy's default.
        target_layer: Layer of the feature to predict, or None.
        target_feature: Its index within the SAE, or None.
        sae: The SAE that is meant, or None where the layer says it.
        k: Features that ``feature-to-concept`` chooses.
        normalize: How columns are scaled.
        pool: How an item's rows become one sample.
        rows: ``items``, or ``all`` for every row as a sample.
        hook: Which hook of a layer, where several were recorded.
        test_split: Share of groups that test.
        cv_folds: Folds that ``feature-to-concept`` fixes.
        seed: Of the folds.
        holdout_by: The column whose values test whole, or None.
    """

    strategy: Strategy
    layers: list[int] | None
    target_layer: int | None
    target_feature: int | None
    sae: str | None
    k: int
    normalize: Normalization
    pool: Pool
    rows: Rows
    hook: str | None
    test_split: float
    cv_folds: int
    seed: int
    holdout_by: str | None = None

    def __post_init__(self) -> None:
        check_test_share(self.test_split)
        if self.rows not in ("items", "all"):
            raise InputError(f"--rows is items or all, and {self.rows!r} was given.")
        if self.k < 1:
            raise InputError(f"--k is the number of features to choose, at least 1, and {self.k} was given.")
        wants_feature = self.strategy.target == "feature"
        if wants_feature and self.target_feature is None:
            raise InputError(
                f"{self.strategy.name} needs the feature to predict; give --target-layer L --target-feature F."
            )
        if not wants_feature and (self.target_feature is not None or self.target_layer is not None):
            raise InputError(
                f"{self.strategy.name} predicts the concept; leave out --target-layer and --target-feature."
            )
        if self.strategy.source == "embed" and self.layers is not None:
            raise InputError("embedding-to-feature reads the token embedding; leave --layer and --layers out.")


@dataclass(frozen=True)
class Samples:
    """The samples of a data set: which item each comes from, and which side it stands on."""

    item: npt.NDArray[np.int64]
    groups: npt.NDArray[np.uint64]
    grades: npt.NDArray[np.int64]
    train: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]


def read_samples(rec: Recording, *, rows: Rows, test_split: float, holdout_by: str | None = None) -> Samples:
    """Return the samples of ``rec`` and their split, which is the concept's own."""
    labels = rec.items["label"].to_numpy().astype(np.int64)
    hashes = rec.items["split_hash"].to_numpy()
    mask = probe_test_mask(rec.items, share=test_split, by=holdout_by)
    item = rec.item_of_row.astype(np.int64) if rows == "all" else np.arange(rec.n_items, dtype=np.int64)
    sample_mask = mask[item]
    return Samples(item, hashes[item], labels[item], np.flatnonzero(~sample_mask), np.flatnonzero(sample_mask))


def require_grades(grades_N: npt.NDArray[np.int64], *, where: str) -> None:
    """Check that there are at least two grades.

    Raises:
        InputError: There is one only.
    """
    found = np.unique(grades_N)
    if len(found) < 2:
        raise InputError(
            f"Every item {where} has grade {found[0] if len(found) else '-'}; a probe needs at least two classes, so "
            "add items of another grade."
        )


def common_keys(rec: Recording, options: PrepareOptions, samples: Samples, y: npt.NDArray[Any]) -> Arrays:
    """Return the keys that every data set has, whatever its inputs."""
    manifest = rec.manifest
    keys: Arrays = {
        "y": y,
        "meta_format": np.array(FORMAT),
        "meta_version": np.array(VERSION),
        "meta_strategy": np.array(options.strategy.name),
        "meta_input_source": np.array(options.strategy.source),
        "meta_n_samples": np.array(len(y)),
        "meta_sentence_indices": samples.item,
        "meta_pool": np.array(options.pool),
        "meta_rows": np.array(options.rows),
        "meta_groups": samples.groups,
        "meta_grades": samples.grades,
        "meta_test_split": np.array(options.test_split),
        "meta_holdout_by": np.array(options.holdout_by or ""),
        "meta_concept": np.array(manifest.concept.name),
        "meta_concept_hash": np.array(manifest.concept.data_hash),
        "meta_model": np.array(manifest.subject.id),
        "meta_model_location": np.array(manifest.subject.location or manifest.subject.id),
        "meta_sae_specs": np.array([str(spec) for spec in manifest.request.get("saes", [])], dtype=np.str_),
        "meta_sae_references": np.array(
            [sae.reference.model_dump_json() for sae in manifest.saes if sae.reference is not None], dtype=np.str_
        ),
        "meta_model_revision": np.array(manifest.subject.revision or ""),
        "meta_model_dtype": np.array(manifest.subject.dtype),
        "meta_fragments": np.array(manifest.options.fragments),
        "train_index": samples.train,
        "test_index": samples.test,
    }
    return keys


def target_keys(target: RecordedSAE | None, feature: int | None) -> Arrays:
    """Return what is said of the target: -1 and NaN where it is the concept."""
    known = target is not None
    return {
        "meta_target_layer": np.array(target.layer if target else -1),
        "meta_target_feature": np.array(feature if known and feature is not None else -1),
        "meta_average_l0": np.array(target.average_l0 if target else np.nan),
        "meta_target_sae": np.array(target.slug if target else ""),
    }
