"""Several concepts at once: the best features of each, judged on the hold-out of every other, and how specific they are."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.base.artefact import open_sealed
from conceptatlas.base.errors import InputError
from conceptatlas.base.files import write_csv, write_json
from conceptatlas.base.kinds import COMPARISON
from conceptatlas.base.provenance import RUN_FILE, write_run
from conceptatlas.base.writing import writing
from conceptatlas.concepts import holdout_of
from conceptatlas.ranking.joined import check_same
from conceptatlas.ranking.result import Ranking
from conceptatlas.ranking.search import Source
from conceptatlas.recording import Recording
from conceptatlas.statistics import Interval, auroc_interval, holm

CROSS_JSON = COMPARISON.marker
CROSS_CSV = "cross_concepts.csv"


@dataclass(frozen=True)
class CrossConcepts:
    """The features of several concepts on the items of each.

    Attributes:
        concepts: For each ranking: ``concept``, its folders, ``grades``, ``n_high``, ``n_low`` and ``n_groups`` on its
            hold-out, ``p_max`` of its best feature (for its whole search) and ``p_holm``, corrected over the concepts.
        features: For each feature: ``concept`` (for which it was chosen), ``rank``, where it is, ``direction``, ``p_max``,
            ``auroc``, ``auroc_low``, ``auroc_high`` on its own concept's hold-out, ``best_other`` and ``auroc_other`` (the
            other concept that it follows most), and ``specificity``, ``_low``, ``_high``: the former minus the latter.
        matrix: For each feature and concept: ``auroc``, ``low``, ``high``, ``n_high``, ``n_low``, ``n_groups``.
    """

    concepts: list[dict[str, Any]]
    features: list[dict[str, Any]]
    matrix: list[dict[str, Any]]
    options: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> CrossConcepts:
        """Read what ``save`` wrote into the folder ``path``.

        Raises:
            InputError: It is not there, was not finished, or is no comparison of concepts.
            WorkError: A file of it is damaged.
        """
        sealed = open_sealed(COMPARISON, Path(path))
        found = sealed.json(CROSS_JSON)
        options = sealed.json(RUN_FILE).get("options", {})
        return cls(found["concepts"], found["features"], found["matrix"], options)

    @property
    def table(self) -> pl.DataFrame:
        """One row per feature: the columns of ``features``, then ``auroc_on_<concept>`` for each concept."""
        rows = []
        for row in self.features:
            on = {
                f"auroc_on_{cell['on']}": cell["auroc"]
                for cell in self.matrix
                if all(cell[key] == row[key] for key in ("concept", "slug", "feature_id"))
            }
            rows.append(row | on)
        return pl.DataFrame(rows, infer_schema_length=None)

    def sentences(self) -> list[str]:
        """Return a sentence for each concept: its best feature, the concept nearest to it, and chance."""
        out = []
        for concept in self.concepts:
            best = next((row for row in self.features if row["concept"] == concept["concept"]), None)
            if best is None:
                out.append(f"{concept['concept']}: nothing was ranked.")
                continue
            text = (
                f"{concept['concept']}: feature {best['feature_id']} of layer {best['layer']} has AUROC {_number(best)} on "
                f"its held-out items ({concept['n_high']} of grade {concept['grades'][1]}, {concept['n_low']} of grade "
                f"{concept['grades'][0]})"
            )
            if best["best_other"] is not None:
                text += (
                    f"; of the other concepts, {best['best_other']} comes nearest (AUROC {best['auroc_other']:.3f}): "
                    f"specificity {best['specificity']:+.3f} (95% interval {best['specificity_low']:+.2f} to "
                    f"{best['specificity_high']:+.2f})"
                )
            if concept["p_holm"] is not None:
                text += f"; p = {concept['p_holm']:.2g} for its search, after Holm over {len(self.concepts)} concepts"
            out.append(text + ".")
        return out

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``cross_concepts.json``, ``cross_concepts.csv`` and ``run.json`` into the folder ``path``."""
        with writing(COMPARISON, path, self.inputs) as folder:
            self.write_files(folder)

    def write_files(self, folder: Path) -> None:
        """Write these files into an empty folder."""
        found = {"concepts": self.concepts, "features": self.features, "matrix": self.matrix}
        write_json(folder / CROSS_JSON, found)
        write_csv(folder / CROSS_CSV, self.table)
        write_run(folder, command="compare-rankings", options=self.options)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def cross_concepts(
    rankings: Sequence[Ranking | str | os.PathLike[str]],
    recordings: Sequence[Recording | str | os.PathLike[str]] | None = None,
    *,
    top: int = 3,
) -> CrossConcepts:
    """Judge the best features of each ranking on the held-out items of every ranking's concept.

    A feature is scored as its own ranking scored it (its pooling, and the direction in which it was judged). Each concept
    is judged on the items that its own ranking held out, the highest grade against the lowest.

    Args:
        rankings: Two or more rankings of the same model and SAEs, or their folders.
        recordings: The recording of each, in the same order; None takes those that the rankings name.
        top: How many features of each, the best of each family.

    Raises:
        InputError: Fewer than two rankings, one that held out nothing, a recording that is not where its ranking says, or
            one that lacks the SAEs, columns or rows that a feature of another ranking needs.
    """
    if len(rankings) < 2:
        raise InputError("A comparison of concepts needs two rankings or more; give their folders.")
    if recordings is not None and len(recordings) != len(rankings):
        raise InputError(f"{len(rankings)} rankings and {len(recordings)} recordings were given; give one for each.")
    if top < 1:
        raise InputError(f"--top is {top}; give 1 or more.")
    opened = [r if isinstance(r, Ranking) else Ranking.open(r, read_all=False) for r in rankings]
    names = _names(opened)
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"The ranking of {twice} was given twice; give rankings of different concepts.")
    places = recordings or [_recording_of(ranking) for ranking in opened]
    sides = [_Side(n, r, p) for n, r, p in zip(names, opened, places, strict=True)]
    features: list[dict[str, Any]] = []
    matrix: list[dict[str, Any]] = []
    for own in sides:
        rows = list(own.ranking.top(top).iter_rows(named=True))
        cells = {other.name: other.judge(own, rows) for other in sides}
        for k, row in enumerate(rows):
            found = {name: cell[k] for name, cell in cells.items()}
            features.append(_feature(own.name, row, found))
            named = {"concept": own.name, "slug": row["slug"], "feature_id": row["feature_id"]}
            matrix += [named | {"on": side.name} | _as_cell(found[side.name]) | side.counts for side in sides]
    p_max = [_p_of(side.ranking) for side in sides]
    known = [p for p in p_max if p is not None]
    corrected = iter(np.asarray(holm(np.array(known))).tolist() if known else [])
    concepts = [
        side.facts | {"p_max": p, "p_holm": None if p is None else float(next(corrected))}
        for side, p in zip(sides, p_max, strict=True)
    ]
    options = {"rankings": [str(r.path) for r in opened], "recordings": [str(s.rec.path) for s in sides], "top": top}
    inputs = {f"ranking of {side.name}": side.ranking.path for side in sides if side.ranking.path is not None}
    inputs |= {f"recording of {side.name}": side.rec.path for side in sides}
    return CrossConcepts(concepts, features, matrix, options, inputs)


def specificity(own: Interval, others: Mapping[str, Interval]) -> tuple[str, Interval]:
    """Return the other concept that a feature follows most, and own minus that one, with its 95% interval.

    The interval of a difference of two independent AUROCs is built from their own intervals (Zou and Donner 2008, MOVER:
    each side of it is the root of the summed squares of the distances to the bounds that matter). The lower bound is the
    least over all other concepts, so that it holds however many there are; the upper one is that of the nearest concept.
    """
    differences = {
        name: (
            own.auroc - other.auroc,
            own.auroc - other.auroc - math.hypot(own.auroc - own.low, other.high - other.auroc),
            own.auroc - other.auroc + math.hypot(own.high - own.auroc, other.auroc - other.low),
        )
        for name, other in others.items()
    }
    nearest = min(differences, key=lambda name: (differences[name][0], name))
    middle, _, high = differences[nearest]
    return nearest, Interval(middle, min(low for _, low, _ in differences.values()), high)


class _Side:
    """One concept: its ranking, its recording, and the items that its ranking held out."""

    def __init__(self, name: str, ranking: Ranking, rec: Recording | str | os.PathLike[str]) -> None:
        self.name = name
        self.ranking = ranking
        self.rec = rec if isinstance(rec, Recording) else Recording.open(rec)
        options = ranking.facts["options"]
        held = holdout_of(self.rec.items, share=float(options["holdout"]), by=options.get("holdout_by"))
        self.grades = [int(grade) for grade in ranking.facts["grades"]]
        labels = self.rec.items["label"].to_numpy()
        self.items: npt.NDArray[np.int64] = np.flatnonzero(held & np.isin(labels, self.grades))
        self.is_high = labels[self.items] == self.grades[1]
        self.groups = np.unique(self.rec.items["split_hash"].to_numpy(), return_inverse=True)[1][self.items]
        if not self.is_high.any() or self.is_high.all():
            raise InputError(
                f"The ranking of {name} held out no item of grade {self.grades[0]} or {self.grades[1]}, so that nothing can "
                "be judged on them; rank it again with a hold-out (--holdout 0.3)."
            )

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many items and groups are judged on."""
        n_high = int(self.is_high.sum())
        return {"n_high": n_high, "n_low": len(self.items) - n_high, "n_groups": len(np.unique(self.groups))}

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "concept": self.name,
            "ranking": None if self.ranking.path is None else str(self.ranking.path),
            "recording": str(self.rec.path),
            "data_hash": self.rec.manifest.concept.data_hash,
            "grades": self.grades,
            **self.counts,
        }

    def judge(self, own: _Side, rows: list[dict[str, Any]]) -> list[Interval]:
        """Return the AUROC of features of ``own``'s ranking on this concept's held-out items."""
        if own is not self:
            check_same(own.rec, self.rec, {row["slug"] for row in rows})
        facts = own.ranking.facts
        source = Source(self.rec, facts["pool"], without_sinks=bool(facts["options"].get("without_sinks")))
        number = {sae.slug: n for n, sae in enumerate(self.rec.saes)}
        columns = source.gather(
            np.array([number[row["slug"]] for row in rows], int), np.array([row["feature_id"] for row in rows], int)
        )
        scores = columns.dense(self.rec.n_items)[self.items]
        signs = [-1 if row["direction"] == "down" else 1 for row in rows]
        return [auroc_interval(s * scores[:, k], self.is_high, self.groups) for k, s in enumerate(signs)]


def _feature(concept: str, row: Mapping[str, Any], found: Mapping[str, Interval]) -> dict[str, Any]:
    own = found[concept]
    nearest, difference = specificity(own, {name: cell for name, cell in found.items() if name != concept})
    kept = ("rank", "layer", "sae_id", "slug", "feature_id", "direction", "p_max")
    return {
        "concept": concept,
        **{name: row[name] for name in kept},
        **dict(zip(("auroc", "auroc_low", "auroc_high"), map(float, own), strict=True)),
        "best_other": nearest,
        "auroc_other": float(found[nearest].auroc),
        **dict(zip(("specificity", "specificity_low", "specificity_high"), map(float, difference), strict=True)),
    }


def _as_cell(found: Interval) -> dict[str, Any]:
    return {name: None if np.isnan(v) else float(v) for name, v in zip(("auroc", "low", "high"), found, strict=True)}


def _number(row: Mapping[str, Any]) -> str:
    return f"{row['auroc']:.3f} (95% interval {row['auroc_low']:.2f}–{row['auroc_high']:.2f})"


def _p_of(ranking: Ranking) -> float | None:
    least = ranking.features["p_max"].min() if ranking.features.height else None
    return None if least is None else float(least)  # type: ignore[arg-type]


def _names(rankings: Sequence[Ranking]) -> list[str]:
    """Return the concepts' names; with the folder (or the place in the list) where two rankings are of one concept."""
    plain = [str(ranking.facts["concept"]) for ranking in rankings]
    counts = Counter(plain)
    return [
        name if counts[name] == 1 else f"{name} ({place + 1 if ranking.path is None else ranking.path})"
        for place, (name, ranking) in enumerate(zip(plain, rankings, strict=True))
    ]


def _recording_of(ranking: Ranking) -> Path:
    """Return where a ranking's recording is: as it says, or beside it.

    Raises:
        InputError: It is in neither place.
    """
    said = Path(str(ranking.facts["recording"]))
    beside = [] if ranking.path is None else [ranking.path / said, ranking.path.parent / "rec"]
    for place in (said, *beside):
        if (place / "manifest.json").is_file():
            return place
    raise InputError(
        f"The recording of the ranking {ranking.path} is not at {said}; name the recordings with --rec, one for each "
        "ranking, in the same order."
    )
