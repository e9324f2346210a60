"""``rank``: from a recording to a Ranking."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.ranking.baselines import Contest
from conceptatlas.ranking.columns import ItemColumns
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.examples import feature_examples
from conceptatlas.ranking.null import permute
from conceptatlas.ranking.options import AUTO, RankOptions
from conceptatlas.ranking.result import Ranking
from conceptatlas.ranking.scoring import score_columns
from conceptatlas.ranking.search import Found, Source, in_order, search
from conceptatlas.ranking.sparse_probes import all_baselines
from conceptatlas.ranking.tables import (
    Chance,
    all_features,
    holdout_intervals,
    lacks,
    q_values,
    ranked_features,
    shortfall,
)
from conceptatlas.recording import Recording

NEAR_MISSES = 5
# Kept features beyond the table that are still looked at: a family may reach further down than the table.
CANDIDATES = 500


def rank(
    rec: Recording | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    pool: str = "final",
    direction: str = "up",
    min_pearson: float = 0.4,
    min_tpr: float = 0.5,
    max_fpr: float = 0.2,
    top_n: int = 50,
    examples_per_label: int = 5,
    holdout: float = 0.3,
    permutations: int = 1000,
    seed: int = 0,
    families: bool = True,
    baselines: bool = True,
    resplits: int = 20,
) -> Ranking:
    """Rank every feature of a recording against its concept.

    Everything that selects sees the discovery items only; the hold-out is reported on. See ``RankOptions`` for what
    each option means, and ``docs/ranking.md`` for the definitions.

    Args:
        rec: A recording, or its folder.
        out: Where to write the ranking's files; None keeps it in memory.
        pool: ``final``, ``max``, ``mean`` or ``auto``.
        direction: ``up``, ``down`` or ``both``.
        min_pearson: Least correlation.
        min_tpr: Least share of top-grade items above the threshold.
        max_fpr: Greatest share of bottom-grade items above it.
        top_n: Most rows of the ranked table.
        examples_per_label: Strongest items shown for each grade.
        holdout: Share of groups held out, 0 to below 1.
        permutations: Permutations behind ``p_max``.
        seed: Seed of permutations, re-splits and random controls.
        families: Group features that say the same thing.
        baselines: Compute the baselines.
        resplits: Re-splits behind the stability figures.

    Returns:
        The ranking; empty, with its near misses, where nothing passes the filters.

    Raises:
        InputError: A bad option, fewer than two grades, or a pooling that needs rows that were not kept.
    """
    options = RankOptions(
        pool, direction, min_pearson, min_tpr, max_fpr, top_n, examples_per_label, holdout, permutations, seed,
        families, baselines, resplits,
    )  # fmt: skip
    recording = rec if isinstance(rec, Recording) else Recording.open(rec)
    ranking = _Run(recording, options).ranking()
    if out is not None:
        ranking.save(Path(out))
    return ranking


class _Run:
    """One ranking in the making: what its steps share."""

    def __init__(self, recording: Recording, options: RankOptions) -> None:
        self.recording = recording
        self.options = options
        self.design = Design.of_items(recording.items, share=options.holdout)
        self.warnings = self.design.warnings()
        self.seconds: dict[str, float] = {}

    def ranking(self) -> Ranking:
        begun = time.perf_counter()
        pools = [self.options.pool]
        source, found, chance = self._search(pools)
        q_value = q_values(found.p_value, found.table["n_active"])
        self.seconds["search"] = round(time.perf_counter() - begun, 3)
        lines = np.flatnonzero(found.kept)
        lines = lines[in_order(found.table["interpretability_score"][lines], found.table["pearson_corr"][lines])]
        candidates = lines[: max(CANDIDATES, self.options.top_n)]
        ranked, columns = self._table(source, found, candidates, chance, q_value)
        near = pl.DataFrame() if len(lines) else self._near_misses(source, found, chance, q_value)
        ranked = ranked.head(self.options.top_n)
        columns = columns.select(np.arange(ranked.height))
        self.seconds["tables"] = round(time.perf_counter() - begun - self.seconds["search"], 3)
        baselines = self._baselines(source)
        examples = feature_examples(
            ranked,
            columns,
            texts=self.recording.items["text"].to_list(),
            design=self.design,
            saes=self.recording.saes,
            per_label=self.options.examples_per_label,
        )
        return Ranking(
            features=ranked,
            all=all_features(found, self.recording.saes, chance, q_value),
            baselines=baselines,
            examples=examples,
            null=self._null_facts(chance, source.pool),
            near_misses=near,
            facts=self._facts(source.pool, int(found.kept.sum())),
        )

    def _search(self, pools: list[str]) -> tuple[Source, Found, Chance]:
        rng = np.random.default_rng(self.options.seed)
        count = self.options.permutations
        permutations = permute(self.design, count, rng) if count else None
        self.permuted = permutations.unit if permutations else None
        source = Source(self.recording, pools[0])
        found = search(source, self.design, self.options, permutations)
        return source, found, Chance([(found.highest, found.lowest)], self.options.direction)

    def _table(
        self,
        source: Source,
        found: Found,
        lines: npt.NDArray[np.int64],
        chance: Chance,
        q_value: npt.NDArray[np.float64],
    ) -> tuple[pl.DataFrame, ItemColumns]:
        """Return the table of some features, figures again in float64, best first, and their scores."""
        columns = source.gather(found.sae[lines], found.feature[lines])
        figures = score_columns(columns, self.design, direction=self.options.direction)
        order = in_order(figures["interpretability_score"], figures["pearson_corr"])
        lines, columns = lines[order], columns.select(order)
        table = ranked_features(
            {name: value[order] for name, value in figures.items()},
            sae=found.sae[lines],
            feature=found.feature[lines],
            q_value=q_value[lines],
            saes=self.recording.saes,
            chance=chance,
            intervals=holdout_intervals(columns, self.design),
        )
        return table, columns

    def _near_misses(
        self, source: Source, found: Found, chance: Chance, q_value: npt.NDArray[np.float64]
    ) -> pl.DataFrame:
        short = shortfall(found, self.options)
        order = np.lexsort((-np.nan_to_num(found.table["interpretability_score"], nan=-np.inf), short))[:NEAR_MISSES]
        order = order[np.isfinite(short[order])]
        table, _ = self._table(source, found, order, chance, q_value)
        lacking = ["; ".join(lacks(line, self.options)) for line in table.iter_rows(named=True)]
        return table.with_columns(pl.Series("lacks", lacking, dtype=pl.String))

    def _baselines(self, source: Source) -> list[dict[str, Any]]:
        if not self.options.baselines:
            return []
        begun = time.perf_counter()
        found, notes = all_baselines(source, Contest(self.design, self.options.seed), self.options)
        self.warnings += notes
        self.seconds["baselines"] = round(time.perf_counter() - begun, 3)
        return [entry.as_dict() for entry in found]

    def _null_facts(self, chance: Chance, pool: str) -> dict[str, Any]:
        return {
            "permutations": chance.count,
            "permuted": self.permuted,
            "direction": self.options.direction,
            "pools": [pool],
            "pearson_95": chance.line(chance.best) if chance.count else None,
            "by_sae": {
                sae.slug: chance.line(best) for sae, best in zip(self.recording.saes, chance.by_sae, strict=True)
            }
            if chance.count
            else {},
            "best": [float(v) for v in np.sort(chance.best) if np.isfinite(v)],
        }

    def _facts(self, pool: str, n_kept: int) -> dict[str, Any]:
        manifest, design = self.recording.manifest, self.design
        digest = hashlib.sha256(self.recording.items["split_hash"].to_numpy().tobytes() + design.holdout.tobytes())
        return {
            "options": {"rec": str(self.recording.path), **self.options.as_dict()},
            "recording": str(self.recording.path),
            "concept": manifest.concept.name,
            "data_hash": manifest.concept.data_hash,
            "subject": manifest.subject.model_dump(mode="json"),
            "template": manifest.template,
            "n_saes": len(self.recording.saes),
            "pool": pool,
            "pool_chosen": self.options.pool == AUTO,
            "n_items": design.n_items,
            "n_discovery": int(design.discovery.sum()),
            "n_holdout": int(design.holdout.sum()),
            "grouped": design.has_groups,
            "split_hash": digest.hexdigest(),
            "grades": [design.low, design.high],
            "n_kept": n_kept,
            "warnings": self.warnings,
            "seconds": self.seconds,
        }
