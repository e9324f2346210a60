"""``probe compare``: versions beside each other, and where their scores should not be believed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from conceptatlas.probes.versions import ProbeRun, find_versions

# Cross-validation and test further apart than this are flagged.
GAP_LIMIT = 0.05

COLUMNS = (
    "version",
    "dataset",
    "data",
    "strategy",
    "model",
    "metric",
    "cv_mean",
    "cv_std",
    "test",
    "test_low",
    "test_high",
    "train",
    "gap_cv_test",
    "gap_train_test",
    "shuffled",
    "flag",
)
DETAILS = ("delta_cv", "delta_test", "against", "same_data", "changed")


def gaps(results: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Return (cross-validation - test, training - test) of the main figure; None where one is not defined."""
    metric = results["cv_metric"]
    test, train = results.get(f"test_{metric}"), results.get(f"train_{metric}")
    if test is None:
        return None, None
    return results["cv_mean"] - test, None if train is None else train - test


@dataclass(frozen=True)
class Comparison:
    """Versions beside each other.

    Attributes:
        table: One row per version: the columns of ``COLUMNS``, and of ``DETAILS`` where asked for. Gaps and deltas are
            shares (0.05 is five points).
        notes: What a reader must know, one sentence each.
    """

    table: pl.DataFrame
    notes: list[str]

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def compare_probes(
    runs: str | os.PathLike[str], *, versions: Sequence[str] | None = None, detailed: bool = False
) -> Comparison:
    """Compare versions.

    Args:
        runs: The folder of versions.
        versions: Which (``v1_a``, or ``v1``), in this order; all when None.
        detailed: Add, for each version, the change against its parent (``new --from``), else against the first version
            shown of the same metric, and the settings that differ.

    Raises:
        InputError: There is no version, or not one of those named.
    """
    opened = find_versions(runs, None if versions is None else list(versions))
    rows = [_row(run) for run in opened]
    if detailed:
        for run, row in zip(opened, rows, strict=True):
            row |= _details(run, opened)
    table = pl.DataFrame(rows, schema_overrides=_types(detailed=detailed), infer_schema_length=None)
    return Comparison(table, _notes(opened, rows))


def _types(*, detailed: bool) -> dict[str, Any]:
    text = {"version", "dataset", "data", "strategy", "model", "metric", "flag", "against", "changed"}
    names = [*COLUMNS, *(DETAILS if detailed else ())]
    return {name: pl.String if name in text else pl.Boolean if name == "same_data" else pl.Float64 for name in names}


def _row(run: ProbeRun) -> dict[str, Any]:
    results = run.results
    metric = results["cv_metric"]
    bounds = results["intervals"].get(f"test_{metric}") or [None, None]
    cv_test, train_test = gaps(results)
    return {
        "version": run.version,
        "dataset": run.metadata["dataset"],
        "data": run.metadata["data_hash"][:8],
        "strategy": results["strategy"],
        "model": results["model_type"],
        "metric": metric,
        "cv_mean": results["cv_mean"],
        "cv_std": results["cv_std"],
        "test": results.get(f"test_{metric}"),
        "test_low": bounds[0],
        "test_high": bounds[1],
        "train": results.get(f"train_{metric}"),
        "gap_cv_test": cv_test,
        "gap_train_test": train_test,
        "shuffled": results["controls"]["shuffled"]["mean"],
        "flag": "cv-test gap" if cv_test is not None and abs(cv_test) > GAP_LIMIT else "",
    }


def _details(run: ProbeRun, opened: list[ProbeRun]) -> dict[str, Any]:
    metric = run.results["cv_metric"]
    comparable = [other for other in opened if other.results["cv_metric"] == metric]
    parent = [other for other in comparable if other.version == run.metadata.get("parent")]
    base = (parent or comparable)[0]
    if base.version == run.version:
        return dict.fromkeys(DETAILS)
    test, base_test = run.results.get(f"test_{metric}"), base.results.get(f"test_{metric}")
    return {
        "delta_cv": run.results["cv_mean"] - base.results["cv_mean"],
        "delta_test": None if test is None or base_test is None else test - base_test,
        "against": base.version,
        "same_data": run.metadata["data_hash"] == base.metadata["data_hash"],
        "changed": "; ".join(_changes(run, base)) or "nothing",
    }


def _changes(run: ProbeRun, base: ProbeRun) -> list[str]:
    """Return the settings in which two versions differ, as ``key: before → after``."""
    mine, theirs = _flat(run.config.model_dump()), _flat(base.config.model_dump())
    for key in ("strategy", "input_sites", "input_features", "target_sae", "target_feature", "pool", "normalize"):
        mine[key], theirs[key] = run.metadata.get(key), base.metadata.get(key)
    keys = [key for key in {**theirs, **mine} if key != "parent" and mine.get(key) != theirs.get(key)]
    return [f"{key}: {theirs.get(key)} → {mine.get(key)}" for key in keys]


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, each in value.items():
        if isinstance(each, Mapping):
            flat |= _flat(each, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = each
    return flat


def _notes(opened: list[ProbeRun], rows: list[dict[str, Any]]) -> list[str]:
    notes = []
    for row in rows:
        if row["flag"]:
            overfit = "" if row["gap_train_test"] is None else f" (train-test gap {100 * row['gap_train_test']:+.1f})"
            notes.append(
                f"{row['version']}: cross-validation and test differ by {100 * row['gap_cv_test']:+.1f} points"
                f"{overfit}; do not read its last digits."
            )
        if row["metric"] == "accuracy" and row["test"] is None:
            notes.append(f"{row['version']}: no accuracy on its test part.")
    if len({row["data"] for row in rows}) > 1:
        notes.append("These versions were trained on different data sets; their scores are not of the same items.")
    if len({run.results["cv_metric"] for run in opened}) > 1:
        notes.append("Some are classifications (accuracy) and some regressions (R²); compare within each.")
    return notes
