"""What a ranking holds: its tables and figures, without the ways in which it is read, saved and shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl


@dataclass
class Figures:
    """The features of a recording, ranked against its concept.

    Attributes:
        features: The ranked table, best first: the columns of ``ranked_features.csv`` (float64).
        all: Every feature that ever fired, with its figures (float32); null where a figure is empty.
        baselines: One entry per site and baseline: site, layer, baseline, k, auroc_discovery, auroc_holdout, low, high.
        examples: Key of the feature → its entry of ``feature_examples.json``.
        families: Groups of ranked features that say the same thing, best first; empty where not asked for.
        null: The null: ``pearson_95`` (95th percentile of the best correlation under permutation), ``by_sae``, …
        comparisons: The best feature against each baseline, paired on the hold-out; see ``comparisons.json``.
        sets: The few features that together carry the concept; see ``sets.json``. Empty without baselines.
        efficiency: The hold-out AUROC of each method with few labels; empty where it was not asked for.
        strata: The hold-out AUROC by the values of a column; see ``strata.json``. Empty where there is no such column.
        facts: What ``run.json`` says besides times and versions.
        inputs: What it was made from: name → id.
        path: The folder, where it was written or read.
    """

    features: pl.DataFrame
    all: pl.DataFrame
    baselines: list[dict[str, Any]] = field(default_factory=list)
    examples: dict[str, dict[str, Any]] = field(default_factory=dict)
    families: list[dict[str, Any]] = field(default_factory=list)
    null: dict[str, Any] = field(default_factory=dict)
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    sets: dict[str, Any] = field(default_factory=dict)
    efficiency: list[dict[str, Any]] = field(default_factory=list)
    strata: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    path: Path | None = None
