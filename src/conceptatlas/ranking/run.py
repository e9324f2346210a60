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

from conceptatlas.base.artefact import identity
from conceptatlas.base.kinds import RANKING
from conceptatlas.base.writing import writing
from conceptatlas.ranking.baselines import Baseline, Contest
from conceptatlas.ranking.columns import POOLS, ItemColumns
from conceptatlas.ranking.comparisons import compare
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.efficiency import label_efficiency
from conceptatlas.ranking.every_baseline import Baselines, all_baselines
from conceptatlas.ranking.examples import feature_examples
from conceptatlas.ranking.families import decoder_cosines, describe, group, within_grade_correlation
from conceptatlas.ranking.holding import beyond_chance
from conceptatlas.ranking.joined import check_same
from conceptatlas.ranking.judged import Judge, with_judged
from conceptatlas.ranking.null import permute
from conceptatlas.ranking.options import AUTO, RankOptions
from conceptatlas.ranking.pooling import cross_validated
from conceptatlas.ranking.result import Ranking
from conceptatlas.ranking.scoring import score_columns
from conceptatlas.ranking.search import DENSE, Found, Source, gather, search, table_order
from conceptatlas.ranking.sets import feature_sets
from conceptatlas.ranking.sinks import sink_notes
from conceptatlas.ranking.stability import RIVALS, rivals, stability
from conceptatlas.ranking.strata import strata, strata_column
from conceptatlas.ranking.tables import Chance, all_features, holdout_figures, ranked_features
from conceptatlas.ranking.text_baselines import bag_of_words_scores
from conceptatlas.ranking.truth import truth_of
from conceptatlas.recording import RecordedSAE, Recording
from conceptatlas.statistics import benjamini_hochberg

# Families are looked for among so many of the best; a table of thousands would cost a square of that.
IN_FAMILIES = 500


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
    without_dense: bool = False,
    holdout_by: str | None = None,
    strata: str | None = "kind",
    judge_on: Recording | str | os.PathLike[str] | None = None,
    efficiency: bool = False,
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
        top_n: Features shown and exemplified; the table holds every feature that passes, and at least so many rows.
        examples_per_label: Strongest items shown for each grade.
        holdout: Share of groups held out, 0 to below 1.
        permutations: Permutations behind ``p_max``.
        seed: Seed of permutations, re-splits and random controls.
        families: Group features that say the same thing.
        baselines: Compute the baselines.
        resplits: Re-splits behind the stability figures.
        without_sinks: Leave attention sinks out where scores are pooled over rows (``max``, ``mean``).
        without_dense: Leave features that are active on more than half of the rows out of the table.
        holdout_by: Hold out whole values of this column of the data.
        strata: Column of the data by whose values the hold-out AUROC is also given.
        judge_on: Another recording of the same SAEs, or its folder: what was chosen on ``rec`` is judged on all its items.
        efficiency: Compute the label-efficiency curve too: what is reached with few labels.

    Returns:
        The ranking. Where few or no features pass the filters, the best others stand in its table too, and its column
        ``fails`` says what each lacks.

    Raises:
        InputError: A bad option, fewer than two grades, a column that the data lack, a pooling that needs rows (or flags
            of attention sinks) that were not kept, or a recording to judge on that has other SAEs.
    """
    other = judge_on if judge_on is None or isinstance(judge_on, Recording) else Recording.open(judge_on)
    options = RankOptions(
        pool, direction, min_pearson, min_tpr, max_fpr, top_n, examples_per_label, holdout, permutations, seed,
        families, baselines, resplits, without_sinks, without_dense, holdout_by, strata,
        None if other is None else str(other.path), efficiency,
    )  # fmt: skip
    recording = rec if isinstance(rec, Recording) else Recording.open(rec)
    run = _Run(recording, options, other)
    if out is None:
        return run.ranking()
    with writing(RANKING, out, run.inputs) as folder:
        ranking = run.ranking()
        ranking.write_files(folder)
    ranking.path = Path(out)
    return ranking


class _Run:
    """One ranking in the making: what its steps share."""

    def __init__(self, recording: Recording, options: RankOptions, other: Recording | None = None) -> None:
        self.recording = recording
        self.other = other
        if other is not None:
            check_same(recording, other)  # before the work, not after it
        self.stratum_values = strata_column(recording.items, options.strata)
        self.options = options
        self.design = Design.of_items(recording.items, share=options.holdout, by=options.holdout_by)
        self.contest = Contest(self.design, options.seed)
        self.texts = [text or "" for text in recording.items["text"].to_list()]
        self.design = self.design.with_confound(bag_of_words_scores(self.contest, self.texts))
        self.warnings = [*recording.manifest.warnings, *self.design.warnings()]
        self.seconds: dict[str, float] = {}
        self.inputs = {"recording": recording.path} | ({} if other is None else {"judged_on": other.path})

    def ranking(self) -> Ranking:
        """Search, make the tables, and put everything beside them."""
        with self._timed("search"):
            source, found, chance = self._search()
        with self._timed("tables"):
            self.q_value = benjamini_hochberg(found.p_value)
            ranked, columns, lines = self._table(source, found, self._lines(found), chance)
            everything = all_features(found, self.recording.saes, chance, self.q_value)
        families: list[dict[str, Any]] = []
        if self.options.families and ranked.height:
            with self._timed("families"):
                ranked, families = self._families(ranked, columns)
        if self.options.resplits and ranked.height:
            with self._timed("stability"):
                ranked = self._stability(ranked, source, found, lines)
        n_shown = min(self.options.top_n, ranked.height)
        examples = feature_examples(
            ranked.head(n_shown),
            columns.select(np.arange(n_shown)),
            texts=self.texts,
            design=self.design,
            saes=self.recording.saes,
            per_label=self.options.examples_per_label,
        )
        baselines = self._baselines(source)
        entries = [entry.as_dict() for entry in baselines.entries]
        judged: dict[str, Any] = {}
        if self.other is not None:
            with self._timed("judge"):
                ranked, entries, judged = self._judge(self.other, source, ranked, entries)
        return Ranking(
            features=ranked,
            all=everything,
            baselines=entries,
            examples=examples,
            families=families,
            null=self._null_facts(chance),
            comparisons=self._comparisons(ranked, columns, baselines),
            sets=self._sets(source, baselines),
            efficiency=self._efficiency(source, baselines),
            strata=self._strata(ranked.head(n_shown), columns, baselines.entries),
            facts=self._facts(source, found, everything) | judged,
            inputs={name: identity(path) for name, path in self.inputs.items()},
        )

    def _judge(
        self, other: Recording, source: Source, ranked: pl.DataFrame, entries: list[dict[str, Any]]
    ) -> tuple[pl.DataFrame, list[dict[str, Any]], dict[str, Any]]:
        """Return the ranked table, the baselines and the facts with what another data set says of them."""
        judge = Judge(source, self.design, other, self.options)
        number = {sae.slug: n for n, sae in enumerate(self.recording.saes)}
        found = judge.figures([number[slug] for slug in ranked["slug"]], ranked["feature_id"].to_list())
        ranked = ranked.with_columns(_filled(name, values, ranked.height) for name, values in found.items())
        if entries:
            judged, notes = judge.baselines()
            entries = with_judged(entries, judged)
            self.warnings += [f"On the data set judged on: {note}" for note in notes if note not in self.warnings]
        self.warnings += judge.warnings()
        return ranked, entries, {"judged": judge.facts()}

    def _strata(self, shown: pl.DataFrame, columns: ItemColumns, baselines: list[Baseline]) -> dict[str, Any]:
        """Return ``strata.json``: the shown features, and every baseline, by the values of the column."""
        if self.options.strata is None or self.stratum_values is None:
            return {}
        with self._timed("strata"):
            scores = columns.select(np.arange(shown.height)).dense(self.design.n_items).astype(np.float64)
            scored: list[tuple[dict[str, Any], npt.NDArray[np.float64]]] = [
                (
                    {
                        "slug": row["slug"],
                        "feature_id": row["feature_id"],
                        "site": self.recording.sae(row["slug"]).site,
                    },
                    -scores[:, k] if row["direction"] == "down" else scores[:, k],
                )
                for k, row in enumerate(shown.iter_rows(named=True))
            ]
            scored += [
                ({"baseline": b.baseline, "name": b.name, "site": b.site, "k": b.k}, b.scores)
                for b in baselines
                if b.scores is not None
            ]
            return strata(self.options.strata, self.stratum_values, self.design, scored)

    def _lines(self, found: Found) -> npt.NDArray[np.int64]:
        """Return the lines of the ranked table: those that pass, then the best others up to ``top_n``; best first."""
        score = found.table["interpretability_score"]
        if self.options.without_dense:
            score = np.where(found.density > DENSE, np.nan, score)
        return table_order(found.kept, score, found.table["pearson_corr"], self.options.top_n)

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
        self.permutations = permutations
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
        score, pearson = figures["interpretability_score"], figures["pearson_corr"]
        order = table_order(found.kept[lines], score, pearson, len(lines))
        lines, columns = lines[order], columns.select(order)
        table = ranked_features(
            {name: value[order] for name, value in figures.items()},
            sae=found.sae[lines],
            feature=found.feature[lines],
            q_value=self.q_value[lines],
            saes=self.recording.saes,
            chance=chance,
            density=found.density[lines],
            held_out=holdout_figures(columns, self.design),
            options=self.options,
        )
        return table, columns, lines

    def _families(self, ranked: pl.DataFrame, columns: ItemColumns) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
        inside, best = self.design.discovery, ranked.head(IN_FAMILIES)
        scores = columns.select(np.arange(best.height)).dense(self.design.n_items)[inside]
        alike = within_grade_correlation(scores, self.design.labels[inside])
        cosine, notes = decoder_cosines(best, self.recording)
        self.warnings += notes
        families = group(alike, cosine)
        return ranked.with_columns(_filled("family", families.family, ranked.height)), describe(best, families)

    def _stability(
        self, ranked: pl.DataFrame, source: Source, found: Found, lines: npt.NDArray[np.int64]
    ) -> pl.DataFrame:
        n_shown = min(self.options.top_n, ranked.height)
        columns = gather(source, found, rivals(found, lines[:n_shown], RIVALS))
        rng = np.random.default_rng([self.options.seed, 4])
        figures = stability(columns, n_shown, self.design, self.options, rng)
        return ranked.with_columns(
            _filled(name, getattr(figures, name), ranked.height) for name in ("comes_back", "rank_low", "rank_high")
        )

    def _baselines(self, source: Source) -> Baselines:
        if not self.options.baselines:
            return Baselines([], [], [])
        with self._timed("baselines"):
            found = all_baselines(source, self.contest, self.options)
        self.warnings += found.notes
        return found

    def _comparisons(self, ranked: pl.DataFrame, columns: ItemColumns, baselines: Baselines) -> list[dict[str, Any]]:
        """Return the best feature against each kind of baseline, paired on the hold-out."""
        if not ranked.height:
            return []
        scores = columns.select(np.zeros(1, np.int64)).dense(self.design.n_items)[:, 0].astype(np.float64)
        best = -scores if ranked["direction"][0] == "down" else scores
        key = (ranked["slug"][0], ranked["feature_id"][0])
        return [entry.as_dict() for entry in compare(best, baselines.entries, self.contest, best=key)]

    def _sets(self, source: Source, baselines: Baselines) -> dict[str, Any]:
        if not baselines.strongest:
            return {}
        with self._timed("sets"):
            found = feature_sets(source, self.contest, baselines.strongest, baselines.entries)
        found.pop("scores", None)
        return found

    def _efficiency(self, source: Source, baselines: Baselines) -> list[dict[str, Any]]:
        if not self.options.efficiency:
            return []
        with self._timed("efficiency"):
            return label_efficiency(source, self.contest, self.texts, baselines.entries)

    def _null_facts(self, chance: Chance) -> dict[str, Any]:
        return {
            "permutations": chance.count,
            "permuted": None if self.permutations is None else self.permutations.unit,
            "n_units": None if self.permutations is None else self.permutations.n_units,
            "direction": self.options.direction,
            "pools": self.pools,
            "smallest_p": None if self.permutations is None else self.permutations.smallest_p,
            "pearson_95": chance.line(chance.best) if chance.count else None,
            "by_sae": {
                sae.slug: chance.line(best)
                for sae, best in zip(self.recording.saes, chance.by_sae, strict=True)
                if sae.control_of is None
            }
            if chance.count
            else {},
            "best": [float(v) for v in np.sort(chance.best) if np.isfinite(v)],
        }

    def _facts(self, source: Source, found: Found, everything: pl.DataFrame) -> dict[str, Any]:
        manifest, design = self.recording.manifest, self.design
        digest = hashlib.sha256(self.recording.items["split_hash"].to_numpy().tobytes() + design.holdout.tobytes())
        return {
            "options": {"rec": str(self.recording.path), **self.options.as_dict()},
            "recording": str(self.recording.path),
            "concept": manifest.concept.name,
            "data_hash": manifest.concept.data_hash,
            "subject": manifest.subject.model_dump(mode="json"),
            "template": manifest.template,
            "n_saes": sum(sae.control_of is None for sae in self.recording.saes),
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
            "holdout_items": self.design.holdout_items(),
            "holdout_groups": self.design.holdout_groups(),
            "truth": truth_of(self.recording, self.contest),
            "counts": {
                "searched": sum(self._asked(sae) for sae in self.recording.saes if sae.control_of is None),
                "fired": len(found.feature),
                "fired_where_scored": found.n_scored,
                "tested": int((~np.isnan(self.q_value)).sum()),
                "passed": int(found.kept.sum()),
                **beyond_chance(source, found, design, everything["p_max"]),
            },
            "warnings": self.warnings,
            "seconds": self.seconds,
        }

    def _asked(self, sae: RecordedSAE) -> int:
        asked = self.recording.manifest.options.features
        return sae.d_sae if asked is None else len(asked)


def _filled(name: str, values: npt.NDArray[Any], height: int) -> pl.Series:
    """Return ``values`` [≤ height] as a column of ``height`` rows; NaN and the rows beyond are null."""
    known = pl.Series(name, values).fill_nan(None) if values.dtype.kind == "f" else pl.Series(name, values)
    return known.extend_constant(None, height - len(values))
