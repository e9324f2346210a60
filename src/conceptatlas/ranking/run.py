"""``rank``: from a recording to a Ranking."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.base.files import ensure_folder
from conceptatlas.ranking.baselines import Contest
from conceptatlas.ranking.columns import POOLS, ItemColumns
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.examples import feature_examples
from conceptatlas.ranking.families import decoder_cosines, describe, group, within_grade_correlation
from conceptatlas.ranking.null import permute
from conceptatlas.ranking.options import AUTO, RankOptions
from conceptatlas.ranking.pooling import cross_validated
from conceptatlas.ranking.result import Ranking
from conceptatlas.ranking.scoring import score_columns
from conceptatlas.ranking.search import Found, Source, gather, in_order, search
from conceptatlas.ranking.sinks import sink_notes
from conceptatlas.ranking.sparse_probes import all_baselines
from conceptatlas.ranking.stability import RIVALS, rivals, stability
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
    without_sinks: bool = False,
) -> Ranking:
    """Rank every feature of a recording against its concept.

    Everything that selects sees the discovery items only; the hold-out is reported on. See ``RankOptions`` for what
    each option means, and ``docs/reference/metrics.md`` for the definitions.

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
        without_sinks: Leave attention sinks out where scores are pooled over rows (``max``, ``mean``).

    Returns:
        The ranking; empty, with its near misses, where nothing passes the filters.

    Raises:
        InputError: A bad option, fewer than two grades, or a pooling that needs rows (or flags of attention sinks) that
            were not kept.
    """
    options = RankOptions(
        pool, direction, min_pearson, min_tpr, max_fpr, top_n, examples_per_label, holdout, permutations, seed,
        families, baselines, resplits, without_sinks,
    )  # fmt: skip
    recording = rec if isinstance(rec, Recording) else Recording.open(rec)
    if out is not None:
        ensure_folder(Path(out))  # before the work, not after it
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
        """Search, make the tables, and put everything beside them."""
        with self._timed("search"):
            source, found, chance = self._search()
        with self._timed("tables"):
            self.q_value = q_values(found.p_value, found.table["n_active"])
            lines = np.flatnonzero(found.kept)
            lines = lines[in_order(found.table["interpretability_score"][lines], found.table["pearson_corr"][lines])]
            lines = lines[: max(CANDIDATES, self.options.top_n)]
            ranked, columns, lines = self._table(source, found, lines, chance)
            near = pl.DataFrame() if len(lines) else self._near_misses(source, found, chance)
            everything = all_features(found, self.recording.saes, chance, self.q_value)
        families: list[dict[str, Any]] = []
        if self.options.families and ranked.height:
            with self._timed("families"):
                ranked, families = self._families(ranked, columns)
        n_shown = min(self.options.top_n, ranked.height)
        ranked, columns = ranked.head(n_shown), columns.select(np.arange(n_shown))
        if self.options.resplits and n_shown:
            with self._timed("stability"):
                ranked = self._stability(ranked, source, found, lines)
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
            all=everything,
            baselines=self._baselines(source),
            examples=examples,
            families=families,
            null=self._null_facts(chance),
            near_misses=near,
            facts=self._facts(source, int(found.kept.sum())),
        )

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds[part] = round(time.perf_counter() - begun, 3)

    def _search(self) -> tuple[Source, Found, Chance]:
        """Search with the pooling asked for, or with every one, of which the best is kept and all enter the null."""
        options = self.options
        rng = np.random.default_rng(options.seed)
        permutations = permute(self.design, options.permutations, rng) if options.permutations else None
        self.permuted = permutations.unit if permutations else None
        self.n_units = permutations.n_units if permutations else None
        self.smallest_p = permutations.smallest_p if permutations else None
        self.pools = [options.pool]
        if options.pool == AUTO:
            self.pools = list(POOLS) if self.recording.keeps_all_rows else ["final"]
            if len(self.pools) == 1:
                self.warnings.append("Only final rows were kept, so that --pool auto had nothing to choose from.")
        self.pool_aurocs: dict[str, float | None] = {}
        best: tuple[Source, Found] | None = None
        best_auroc, nulls = -np.inf, []
        for pool in self.pools:
            source = Source(self.recording, pool, without_sinks=options.without_sinks)
            found = search(source, self.design, options, permutations)
            nulls.append((found.highest, found.lowest))
            auroc = np.nan
            if len(self.pools) > 1:
                lines = rivals(found, np.zeros(0, np.int64), RIVALS)
                auroc = cross_validated(gather(source, found, lines), self.design, options)
            self.pool_aurocs[pool] = None if np.isnan(auroc) else auroc
            if best is None or auroc > best_auroc:
                best, best_auroc = (source, found), float(np.nan_to_num(auroc, nan=-np.inf))
        assert best is not None
        self.warnings += sink_notes(self.recording, best[0].pool, best[0].left_out)
        return *best, Chance(nulls, options.direction)

    def _table(
        self, source: Source, found: Found, lines: npt.NDArray[np.int64], chance: Chance
    ) -> tuple[pl.DataFrame, ItemColumns, npt.NDArray[np.int64]]:
        """Return the table of some features, figures again in float64, best first, their scores, and their lines."""
        columns = gather(source, found, lines)
        figures = score_columns(columns, self.design, direction=self.options.direction)
        order = in_order(figures["interpretability_score"], figures["pearson_corr"])
        lines, columns = lines[order], columns.select(order)
        table = ranked_features(
            {name: value[order] for name, value in figures.items()},
            sae=found.sae[lines],
            feature=found.feature[lines],
            q_value=self.q_value[lines],
            saes=self.recording.saes,
            chance=chance,
            intervals=holdout_intervals(columns, self.design),
        )
        return table, columns, lines

    def _families(self, ranked: pl.DataFrame, columns: ItemColumns) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
        inside = self.design.discovery
        alike = within_grade_correlation(columns.dense(self.design.n_items)[inside], self.design.labels[inside])
        cosine, notes = decoder_cosines(ranked, self.recording.saes)
        self.warnings += notes
        families = group(alike, cosine)
        return ranked.with_columns(pl.Series("family", families.family)), describe(ranked, families)

    def _stability(
        self, ranked: pl.DataFrame, source: Source, found: Found, lines: npt.NDArray[np.int64]
    ) -> pl.DataFrame:
        columns = gather(source, found, rivals(found, lines, RIVALS))
        rng = np.random.default_rng([self.options.seed, 4])
        figures = stability(columns, ranked.height, self.design, self.options, rng)
        return ranked.with_columns(
            pl.Series("comes_back", figures.comes_back),
            pl.Series("rank_low", figures.rank_low).fill_nan(None),
            pl.Series("rank_high", figures.rank_high).fill_nan(None),
        )

    def _near_misses(self, source: Source, found: Found, chance: Chance) -> pl.DataFrame:
        short = shortfall(found, self.options)
        order = np.lexsort((-np.nan_to_num(found.table["interpretability_score"], nan=-np.inf), short))[:NEAR_MISSES]
        order = order[np.isfinite(short[order])]
        table, _, _ = self._table(source, found, order, chance)
        lacking = ["; ".join(lacks(line, self.options)) for line in table.iter_rows(named=True)]
        return table.with_columns(pl.Series("lacks", lacking, dtype=pl.String))

    def _baselines(self, source: Source) -> list[dict[str, Any]]:
        if not self.options.baselines:
            return []
        with self._timed("baselines"):
            found, notes = all_baselines(source, Contest(self.design, self.options.seed), self.options)
        self.warnings += notes
        return [entry.as_dict() for entry in found]

    def _null_facts(self, chance: Chance) -> dict[str, Any]:
        return {
            "permutations": chance.count,
            "permuted": self.permuted,
            "n_units": self.n_units,
            "smallest_p": self.smallest_p,
            "direction": self.options.direction,
            "pools": self.pools,
            "pearson_95": chance.line(chance.best) if chance.count else None,
            "by_sae": {
                sae.slug: chance.line(best) for sae, best in zip(self.recording.saes, chance.by_sae, strict=True)
            }
            if chance.count
            else {},
            "best": [float(v) for v in np.sort(chance.best) if np.isfinite(v)],
        }

    def _facts(self, source: Source, n_kept: int) -> dict[str, Any]:
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
            "pool": source.pool,
            "sinks_left_out": 0 if source.left_out is None else int(source.left_out.sum()),
            "pool_chosen": self.options.pool == AUTO,
            "pool_aurocs": self.pool_aurocs if self.options.pool == AUTO else {},
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
