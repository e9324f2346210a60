"""Judging on another data set what was chosen on one: features at their discovery thresholds, baselines as fitted there."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from conceptatlas.concepts.similarity import normalised
from conceptatlas.ranking.baselines import Baseline, Contest
from conceptatlas.ranking.columns import ItemColumns
from conceptatlas.ranking.design import Design
from conceptatlas.ranking.every_baseline import all_baselines
from conceptatlas.ranking.joined import JoinedSource, check_same, joined_design
from conceptatlas.ranking.options import RankOptions
from conceptatlas.ranking.scoring import Figures, score_columns
from conceptatlas.ranking.search import Source
from conceptatlas.ranking.summary import FEW_GROUPS
from conceptatlas.ranking.tables import JUDGED_COLUMNS, holdout_figures
from conceptatlas.recording import Recording


class Judge:
    """The items of another recording, on which nothing was chosen, beside the discovery items that chose."""

    def __init__(self, source: Source, design: Design, other: Recording, options: RankOptions) -> None:
        """Join the discovery items of ``source`` with all items of ``other``.

        Raises:
            InputError: The two are not of the same model and SAEs, or ``other`` lacks rows, flags or grades.
        """
        check_same(source.recording, other)
        self.other, self.options = other, options
        inside = np.flatnonzero(design.discovery)
        there = Source(other, source.pool, without_sinks=options.without_sinks)
        self.source = JoinedSource(source, inside, there)
        self.design = joined_design(design, other.items)
        self._first = source.recording.items["text"].gather(inside)

    def figures(self, saes: list[int], features: list[int]) -> Figures:
        """Return the columns ``JUDGED_COLUMNS`` of some features, float64 [K]: (number of the SAE, index) pairs."""
        columns: ItemColumns = self.source.gather(np.array(saes, int), np.array(features, int))
        # The hold-out of the joined design is the other data set, and its discovery side is the ranking's own.
        found = score_columns(columns, self.design, direction=self.options.direction)
        found |= holdout_figures(columns, self.design)
        return {name: found[name.replace("_judged", "_holdout")] for name in JUDGED_COLUMNS}

    def baselines(self) -> tuple[list[Baseline], list[str]]:
        """Return every baseline fitted on the discovery items and judged on the other data set, and notes."""
        found = all_baselines(cast("Source", self.source), Contest(self.design, self.options.seed), self.options)
        return found.entries, found.notes

    def facts(self) -> dict[str, Any]:
        """Return what ``run.json`` says of the data set judged on."""
        concept = self.other.manifest.concept
        return {
            "recording": str(self.other.path),
            "concept": concept.name,
            "data_hash": concept.data_hash,
            "n_items": self.other.n_items,
            "items": self.design.holdout_items(),
            "groups": self.design.holdout_groups(),
            "shared_texts": self.shared_texts(),
        }

    def shared_texts(self) -> int:
        """Return how many texts of the other data set stand among the discovery items, as they are or as twins."""
        seen = {normalised(text or "") for text in self._first.to_list()}
        return sum(normalised(text or "") in seen for text in self.other.items["text"].to_list())

    def warnings(self) -> list[str]:
        """Return what a reader of the judged figures must know, one sentence each."""
        out = []
        if shared := self.shared_texts():
            out.append(
                f"{shared} of the {self.other.n_items} items judged on stand among the discovery items too: the judged "
                "figures are not wholly of new items."
            )
        labels = self.other.items["label"].to_numpy()
        missing = [str(grade) for grade in (self.design.low, self.design.high) if not (labels == grade).any()]
        if missing:
            out.append(f"The data set judged on has no item of grade {' and '.join(missing)}: its auroc is empty.")
            return out
        groups = self.design.holdout_groups()
        grades = (self.design.low, self.design.high)
        few = [f"{groups[str(grade)]} of grade {grade}" for grade in grades if groups[str(grade)] < FEW_GROUPS]
        if few:
            out.append(
                f"The data set judged on has only {' and '.join(few)} (independent groups): no figure on it is firm."
            )
        return out


def with_judged(entries: list[dict[str, Any]], judged: list[Baseline]) -> list[dict[str, Any]]:
    """Return the entries of ``baselines.json`` with ``auroc_judged``, ``auroc_judged_low`` and ``_high``."""
    by_name = {(b.baseline, b.name, b.site, b.k): b for b in judged}
    out = []
    for entry in entries:
        found = by_name.get((entry["baseline"], entry["name"], entry["site"], entry["k"]))
        values = (None, None, None) if found is None else (found.auroc_holdout, found.low, found.high)
        out.append(entry | dict(zip(("auroc_judged", "auroc_judged_low", "auroc_judged_high"), values, strict=True)))
    return out
