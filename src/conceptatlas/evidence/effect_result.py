"""What the effect stage found, and its files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from conceptatlas.base.files import write_csv, write_json, write_parquet
from conceptatlas.base.kinds import EFFECTS
from conceptatlas.base.provenance import write_run
from conceptatlas.base.writing import writing
from conceptatlas.evidence.effects import Effect
from conceptatlas.evidence.features import FeatureRef
from conceptatlas.evidence.readout import Readout

EFFECTS_CSV = "effects.csv"
EFFECTS_JSON = EFFECTS.marker
OUTPUT_SCORES = "output_scores.parquet"

CSV_COLUMNS = (
    "rank", "sae_id", "layer", "feature_id", "alpha", "amount", "own_p95", "base_logprob", "rise", "rise_flipped",
    "random_features_p95", "random_directions_p95", "bar", "causal", "difference_of_means_rise", "direct_rise", "kl",
    "ablation_change", "ablation_random", "promoted", "suppressed", "rise_low", "rise_high", "n_items", "n_groups",
    "like_percentile", "n_like", "kl_other", "kl_random_directions", "loss", "loss_rise", "reasons",
    "answer",
)  # fmt: skip


@dataclass(frozen=True)
class FeatureEffect:
    """One feature's effect, with generated text.

    Attributes:
        feature: Which feature.
        effect: What it causes.
        generated: For some neutral hold-out items: item, text, what follows without the edit, and with it.
        attributions: For some hold-out items of the top grade: item, tokens and what each pushes.
    """

    feature: FeatureRef
    effect: Effect
    generated: list[dict[str, Any]]
    attributions: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """Return everything, for ``effects.json``."""
        effect = self.effect
        return {
            "rank": self.feature.rank,
            "slug": self.feature.slug,
            "sae_id": self.feature.sae_id,
            "layer": self.feature.layer,
            "feature_id": self.feature.feature_id,
            **asdict(effect),
            "bar": effect.bar,
            "causal": effect.causal,
            "answer": effect.answer,
            "verdict": effect.verdict,
            "reasons": [*effect.missing, *effect.damage],
            "generated": self.generated,
            "attributions": self.attributions,
        }

    def as_row(self) -> dict[str, Any]:
        """Return the row of ``effects.csv``."""
        row = self.as_json()
        for name in ("promoted", "suppressed"):
            row[name] = " ".join(token for token, _ in row[name])
        row["reasons"] = "; ".join(row["reasons"])
        return {name: row[name] for name in CSV_COLUMNS}


@dataclass(frozen=True)
class Effects:
    """What the effect stage found.

    Attributes:
        features: The features, in the ranking's order.
        targets: The target words.
        readout: Where the next token was read.
        items: How many items: discovery, neutral, strong.
        output_scores: What every feature of the ranking's SAEs writes by its weights alone: the lines of
            ``output_scores.parquet`` (slug, sae_id, layer, feature_id, output_score, top_token, top_z, kurtosis, promoted,
            suppressed).
        without_score: SAEs that have none, with the reason: slug and words.
        options: What ``run.json`` says of how they were measured.
        path: The folder, where written.
    """

    features: list[FeatureEffect]
    targets: list[str]
    readout: Readout
    items: dict[str, int]
    output_scores: pl.DataFrame = field(default_factory=pl.DataFrame)
    without_score: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None

    @property
    def table(self) -> pl.DataFrame:
        """The rows of ``effects.csv``."""
        return pl.DataFrame([found.as_row() for found in self.features], infer_schema_length=None)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def write_effects(effects: Effects, folder: Path) -> None:
    """Write the tables and ``run.json`` into an empty folder."""
    write_csv(folder / EFFECTS_CSV, effects.table)
    write_parquet(folder / OUTPUT_SCORES, effects.output_scores)
    write_json(
        folder / EFFECTS_JSON,
        {
            "targets": effects.targets,
            "readout": asdict(effects.readout),
            "items": effects.items,
            "without_output_score": effects.without_score,
            "features": [found.as_json() for found in effects.features],
        },
    )
    write_run(folder, command="effect", options={**effects.options, "targets": effects.targets})


def save_effects(effects: Effects, out: str | os.PathLike[str], inputs: Mapping[str, Path | str]) -> Effects:
    """Write the tables and ``run.json`` as an artefact, and return the effects with its folder."""
    with writing(EFFECTS, out, inputs) as folder:
        write_effects(effects, folder)
    return replace(effects, path=Path(out))
