"""The Ranking: its tables, its files, and how it shows itself."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from conceptatlas.base import slots
from conceptatlas.base.artefact import open_sealed
from conceptatlas.base.files import write_csv, write_json, write_parquet
from conceptatlas.base.kinds import RANKING
from conceptatlas.base.provenance import RUN_FILE, facts_of, write_run
from conceptatlas.base.writing import writing
from conceptatlas.ranking.figures import Figures
from conceptatlas.ranking.legends import CROSS_VALIDATED, is_cross_validated, legend_lines
from conceptatlas.ranking.rank_null import MIN_ACTIVE
from conceptatlas.ranking.sentences import Sentence
from conceptatlas.ranking.sets import set_table
from conceptatlas.ranking.summary import SAME_FEATURE, SIGNIFICANT, is_first, summarise
from conceptatlas.ranking.tables import RANKED_COLUMNS

RANKED_FILE = RANKING.marker
ALL_FILE = "all_features.parquet"
EXAMPLES_FILE = "feature_examples.json"
BASELINES_FILE = "baselines.json"
FAMILIES_FILE = "families.json"
NULL_FILE = "null.json"
COMPARISONS_FILE = "comparisons.json"
STRATA_FILE = "strata.json"
SETS_FILE = "sets.json"
SET_TABLE = "feature_set.csv"
EFFICIENCY_FILE = "efficiency.json"

SHOWN = (
    "rank", "layer", "average_l0", "feature_id", "interpretability_score", "pearson_corr", "auroc", "auroc_holdout",
    "auroc_holdout_low", "auroc_holdout_high", "tpr_holdout", "fpr_holdout", "p_max", "q_value", "sae_id",
)  # fmt: skip
BASELINE_SHOWN = (
    "name",
    "site",
    "auroc_holdout",
    "low",
    "high",
    "concordance_holdout",
    "concordance_low",
    "concordance_high",
)


class Ranking(Figures):
    """The features of a recording, ranked against its concept: the figures of :class:`Figures`, and what is done with them."""

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, read_all: bool = True) -> Ranking:
        """Open the ranking in the folder ``path``.

        Args:
            path: The folder.
            read_all: Read the table of all features, too; without it ``all`` is empty, which opens at once.

        Raises:
            InputError: There is none, or it was not finished.
            WorkError: A file of it is damaged.
        """
        sealed = open_sealed(RANKING, Path(path))
        return cls(
            features=pl.read_csv(sealed.file(RANKED_FILE), schema_overrides=RANKED_COLUMNS, glob=False),
            all=pl.read_parquet(sealed.file(ALL_FILE), glob=False) if read_all else pl.DataFrame(),
            baselines=sealed.json(BASELINES_FILE)["baselines"],
            examples=sealed.json(EXAMPLES_FILE),
            families=sealed.json(FAMILIES_FILE),
            null=sealed.json(NULL_FILE),
            comparisons=sealed.json(COMPARISONS_FILE)["comparisons"],
            sets=sealed.json(SETS_FILE),
            efficiency=sealed.json(EFFICIENCY_FILE)["efficiency"],
            strata=sealed.json(STRATA_FILE),
            facts=facts_of(sealed.json(RUN_FILE)),
            inputs=sealed.inputs,
            path=sealed.folder,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write every file of the ranking into the folder ``path``.

        Raises:
            InputError: The folder cannot be made, or holds something other than a ranking.
            WorkError: The disk is full, or cannot be written.
        """
        with writing(RANKING, path, self.inputs) as folder:
            self.write_files(folder)
        self.path = Path(path)

    def write_files(self, folder: Path) -> None:
        """Write every file of the ranking into an empty folder."""
        write_csv(folder / RANKED_FILE, self.features)
        write_parquet(folder / ALL_FILE, self.all, compression="lz4", statistics=False)
        write_json(folder / EXAMPLES_FILE, self.examples)
        write_json(folder / BASELINES_FILE, {"baselines": self.baselines})
        write_json(folder / FAMILIES_FILE, self.families)
        write_json(folder / NULL_FILE, self.null)
        write_json(folder / COMPARISONS_FILE, {"comparisons": self.comparisons})
        write_json(folder / SETS_FILE, self.sets)
        write_csv(folder / SET_TABLE, set_table(self.sets))
        write_json(folder / EFFICIENCY_FILE, {"efficiency": self.efficiency})
        write_json(folder / STRATA_FILE, self.strata)
        facts = dict(self.facts)
        write_run(folder, command="rank", options=facts.pop("options", {}), **facts)

    def top(self, count: int = 10, *, families: bool = True) -> pl.DataFrame:
        """Return the first lines of the ranked table: with ``families`` the best of each family only."""
        table = self.features
        if families and self.families:
            table = table.filter(pl.col("family").is_null() | pl.col("family").is_first_distinct())
        return table.head(count)

    @property
    def shown(self) -> pl.DataFrame:
        """The first ``top_n`` rows of the ranked table: those that views show and that have examples."""
        return self.features.head(int(self.facts.get("options", {}).get("top_n", 50)))

    def summary(self) -> list[Sentence]:
        """Return what the ranking says, in sentences, the most important first."""
        return summarise(self)

    def head_line(self) -> str:
        """Return what was searched, on which items, in one sentence: searched, fired, tested, passed."""
        facts = self.facts
        counts = ", ".join(f"{count:,} {words}" for count, words in self.counted())
        return (
            f"{facts['concept']}: {facts['n_discovery']:,} items for discovery, {facts['n_holdout']:,} held out; "
            f"{facts['n_saes']} SAEs, {counts}."
        )

    def counted(self) -> list[tuple[int, str]]:
        """Return the features searched, firing, tested, beyond chance, holding and passing: (count, words with the items)."""
        facts, counts = self.facts, self.facts["counts"]
        chosen = ", chosen by cross-validation" if facts.get("pool_chosen") else ""
        pool = str(facts["pool"])
        pool += " without attention sinks" if facts["options"].get("without_sinks") else ""
        discovery = f"{facts['n_discovery']:,} discovery items"
        low, high = facts["grades"]
        ends = sum(facts["holdout_items"].get(str(grade), 0) for grade in (low, high))
        words = {
            "searched": "features searched",
            "fired": "fire on some recorded row",
            "fired_where_scored": f"fire in the rows scored ({pool}{chosen}) of the {facts['n_items']:,} items",
            "tested": f"tested for q: active on {MIN_ACTIVE} or more of the {discovery}",
            "beyond_chance": f"exceed chance on the {discovery} (p_max ≤ {SIGNIFICANT:g})",
            "holds": f"of those {counts.get('held_of', 0):,} hold on the {ends:,} held-out items of grades {high} and {low}",
            "passed": f"pass the classic filters on the {discovery}",
        }
        if not self.null.get("permutations"):
            del words["beyond_chance"]
        if not counts.get("held_of"):
            del words["holds"]
        return [(int(counts[name]), said) for name, said in words.items()]

    def explore(self, *, port: int = 0) -> Any:
        """Open the explorer on this (saved) ranking, served from this process; returns it, with ``url`` and ``stop``."""
        return slots.call("explore", self, port=port)

    def card(self, rank: int = 1) -> Any:
        """Return the card of a feature of this (saved) ranking: everything known of it, for a notebook."""
        return slots.call("card", self, rank)

    def __repr__(self) -> str:
        return f"Ranking({self.head_line()})"

    def _repr_html_(self) -> str:
        """Return the notebook display: what it says, the baselines, the best of each family, and what the columns mean."""
        table = self.top(10).select(SHOWN)
        parts = [f"<p>{html.escape(sentence.text)}</p>" for sentence in self.summary()]
        parts.append(f"<p>{html.escape(self.head_line())}</p>")
        if self.baselines:
            rows = [
                [*map(_text, map(one.get, BASELINE_SHOWN)), _discovery(self, one)]
                for one in best_baselines(self.baselines)
            ]
            parts.append(html_table(pl.DataFrame(rows, schema=[*BASELINE_SHOWN, "auroc_discovery"], orient="row")))
        parts.append(html_table(table))
        parts += [f"<p>{html.escape(line)}</p>" for line in legend_lines(self)]
        return "".join(parts)


def best_baselines(baselines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each kind of baseline its best site (chosen on discovery), in the order in which kinds first occur."""
    best: dict[str, dict[str, Any]] = {}
    for entry in baselines:
        name = entry["name"]
        if name not in best or _or_zero(entry["auroc_discovery"]) > _or_zero(best[name]["auroc_discovery"]):
            best[name] = entry
    return list(best.values())


def _discovery(ranking: Ranking, entry: Mapping[str, Any]) -> str:
    """Return a baseline's AUROC on discovery, marked where it is cross-validated, and whether it is the first feature."""
    words = _text(entry["auroc_discovery"]) + (CROSS_VALIDATED if is_cross_validated(entry) else "")
    return f"{words} ({SAME_FEATURE})" if is_first(ranking, entry) else words


def _or_zero(value: float | None) -> float:
    return 0.0 if value is None else value


def html_table(table: pl.DataFrame) -> str:
    """Return a table as HTML, every cell escaped."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.columns)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(_text(v))}</td>" for v in row) + "</tr>" for row in table.rows())
    return f"<table><tr>{head}</tr>{body}</table>"


def _text(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
