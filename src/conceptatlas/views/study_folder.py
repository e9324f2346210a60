"""What a study folder holds, read lazily: views ask it, and show what there is.

Layout: ``DIR/rec``, ``DIR/rank``, ``DIR/trace``, ``DIR/effect``, ``DIR/probe``, ``DIR/label``, ``DIR/prompts``,
``DIR/images``, ``DIR/study.yaml``. A recording or a ranking by itself is a study with that one part.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.base import kinds
from conceptatlas.base.artefact import SEAL_FILE, Artefact, read_seal
from conceptatlas.base.errors import InputError
from conceptatlas.base.files import read_json
from conceptatlas.base.provenance import RUN_FILE
from conceptatlas.concepts import holdout_of
from conceptatlas.evidence import FeatureRef, ItemTexts, column_of_rows, features_of_ranking, item_bounds
from conceptatlas.recording import Recording
from conceptatlas.views.concepts_file import read_concepts

if TYPE_CHECKING:
    from conceptatlas.ranking import Ranking

STAGES = ("rec", "rank", "trace", "effect", "probe", "label", "prompts", "images")
_KINDS = {
    "rank": kinds.RANKING,
    "trace": kinds.TRACE,
    "effect": kinds.EFFECTS,
    "probe": kinds.SWEEP,
    "label": kinds.LABELS,
    "prompts": kinds.PROMPTS,
    "images": kinds.IMAGES,
}
MANIFEST = kinds.RECORDING.marker
RANKED = kinds.RANKING.marker
LABELS = kinds.LABELS.marker
EFFECTS = kinds.EFFECTS.marker
ALL_FEATURES = "all_features.parquet"
# Effects measured by an earlier version lack these.
_LATER_EFFECTS: dict[str, Any] = {
    "rise_low": None, "rise_high": None, "n_items": None, "n_groups": None, "like_percentile": None, "n_like": 0,
    "kl_other": None, "kl_random_directions": None, "loss": None, "loss_rise": None, "target_tokens": [], "reasons": [],
}  # fmt: skip
# What only the ranked table says of a feature.
RANKED_ONLY = (
    "rank", "neuronpedia_url", "auroc_holdout_low", "auroc_holdout_high", "family", "fails", "dense", "confounded",
    "comes_back", "concordance_holdout", "concordance_holdout_low", "concordance_holdout_high",
    *(f"auroc_{step}_holdout{part}" for step in ("1v0", "2v1", "3v2") for part in ("", "_low", "_high")),
)  # fmt: skip

Pool = Literal["final", "max", "mean"]


# So many of the best features get a card of their own in the report.
CARDS = 12


class Study:
    """A study folder. Parts that are not there are None; nothing is read before it is asked for."""

    def __init__(self, path: Path, stages: dict[str, Path]) -> None:
        self.path = path
        self.stages = stages
        self._artefacts: dict[str, Artefact | None] = {}
        # Where a feature's own page is, as (slug, feature, rank) -> address; "" for none. The explorer sets its own.
        self.feature_link: Callable[[str, int, int | None], str] = self._card_anchor
        self.column: Callable[[FeatureRef], npt.NDArray[np.float32]] = lru_cache(maxsize=64)(self._column)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, follow_links: bool = True) -> Study:
        """Open a study folder, a recording, a ranking or a label run.

        Args:
            path: The folder.
            follow_links: Take stages that are links to folders elsewhere; a server does not.

        Raises:
            InputError: There is no such folder, or it holds none of these.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise InputError(f"There is no folder {folder}; give a study folder, such as `conceptatlas demo` makes.")
        if (folder / MANIFEST).is_file():
            return cls(folder, {"rec": folder})
        if (folder / RANKED).is_file():
            return cls(folder, {"rank": folder} | _recording_of(folder))
        if (folder / LABELS).is_file():
            return cls(folder, {"label": folder})
        stages = {name: folder / name for name in STAGES if (folder / name).is_dir()}
        if not follow_links:
            root = folder.resolve()
            stages = {name: stage for name, stage in stages.items() if stage.resolve().is_relative_to(root)}
        several = read_concepts(folder)
        if several is not None:
            raise InputError(
                f"{folder} holds a study of several concepts; give the folder of one: {', '.join(several.concepts)}."
            )
        if not stages:
            raise InputError(
                f"{folder} holds no study: none of its folders is called {', '.join(STAGES)}; give the folder that "
                "`conceptatlas run` or `conceptatlas demo` wrote."
            )
        return cls(folder, stages)

    @classmethod
    def around(cls, ranking: Path) -> Study:
        """Open the study whose ranking is in the folder ``ranking``; a ranking that stands alone is a study by itself."""
        whole = ranking.name == "rank" and (ranking.parent / "stages.json").is_file()
        return cls.open(ranking.parent if whole else ranking)

    def file(self, stage: str, name: str) -> Path | None:
        """Return the path of a stage's file, verified, if it exists within the stage's folder, else None.

        Raises:
            InputError: The stage was not finished.
            WorkError: The file is damaged.
        """
        folder = self.stages.get(stage)
        if folder is None or not (folder / name).is_file():
            return None
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            return None
        sealed = self._sealed(stage)
        return folder / name if sealed is None or name not in sealed else sealed.file(name)

    def _sealed(self, stage: str) -> Artefact | None:
        """Return the sealed folder of a stage; None where there is no seal: another program may have made it."""
        if stage not in self._artefacts:
            folder, kind = self.stages[stage], _KINDS.get(stage)
            made = kind is not None and any((folder / each).exists() for each in (kind.staging, SEAL_FILE))
            self._artefacts[stage] = read_seal(kind, folder) if kind is not None and made else None
        return self._artefacts[stage]

    @cached_property
    def recording(self) -> Recording | None:
        """The recording, if it is whole."""
        return None if self.file("rec", MANIFEST) is None else Recording.open(self.stages["rec"])

    @cached_property
    def ranking(self) -> Ranking | None:
        """The ranking, if there is one; its table of all features is not read (see ``all_features``)."""
        from conceptatlas.ranking import Ranking  # late: it brings numba along

        return None if self.file("rank", RANKED) is None else Ranking.open(self.stages["rank"], read_all=False)

    @cached_property
    def all_features(self) -> pl.LazyFrame | None:
        """The table of every feature that fires on some recorded row, not read; None without a ranking."""
        path = self.file("rank", ALL_FEATURES)
        return None if path is None else pl.scan_parquet(path)

    @cached_property
    def effects(self) -> dict[str, Any] | None:
        """What the effect stage found (``effects.json``), or None where it was not run."""
        path = self.file("effect", EFFECTS)
        if path is None:
            return None
        found = dict(read_json(path))
        return found | {"features": [{**_LATER_EFFECTS, **entry} for entry in found["features"]]}

    @cached_property
    def title(self) -> str:
        """What the study is about."""
        return self.path.resolve().name if self.recording is None else self.recording.manifest.concept.name

    def run(self, stage: str) -> dict[str, Any]:
        """Return a stage's ``run.json`` (empty where it has none)."""
        path = self.file(stage, RUN_FILE)
        return {} if path is None else dict(read_json(path))

    @cached_property
    def pool(self) -> Pool:
        """How the ranking pooled an item's rows."""
        chosen = self.run("rank").get("pool") or self.run("rank").get("options", {}).get("pool", "final")
        return chosen if chosen in ("max", "mean") else "final"

    @cached_property
    def left_out(self) -> npt.NDArray[np.bool_] | None:
        """Rows that the ranking did not pool over, bool [T]; None where it took all."""
        if self.recording is None or self.pool == "final" or not self.without_sinks:
            return None
        from conceptatlas.ranking.sinks import rows_to_leave_out  # late: it brings numba along

        return rows_to_leave_out(self.recording)

    @property
    def without_sinks(self) -> bool:
        """Whether the ranking left attention sinks out of what it pooled."""
        return bool(self.run("rank").get("options", {}).get("without_sinks", False))

    @cached_property
    def holdout_share(self) -> float:
        """The share of groups that the ranking held out."""
        return float(self.run("rank").get("options", {}).get("holdout", 0.3))

    @cached_property
    def items(self) -> pl.DataFrame:
        """The items (empty without a recording)."""
        return pl.DataFrame() if self.recording is None else self.recording.items

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """The items' grades, int64 [N]."""
        return self.items["label"].to_numpy().astype(np.int64)

    @cached_property
    def holdout(self) -> npt.NDArray[np.bool_]:
        """Which items the ranking held out, bool [N]."""
        by = self.run("rank").get("options", {}).get("holdout_by")
        return holdout_of(self.items, share=self.holdout_share, by=by)

    @cached_property
    def texts(self) -> ItemTexts:
        """The items cut into tokens."""
        if self.recording is None:
            raise InputError(f"{self.path} has no recording, and its sentences are asked for; record first.")
        return ItemTexts(self.recording)

    @cached_property
    def features(self) -> list[FeatureRef]:
        """The features shown, best first: the first ``top_n`` of the ranked table (none without recording or ranking)."""
        if self.recording is None or self.ranking is None:
            return []
        return features_of_ranking(self.ranking, self.recording, top_n=self.ranking.shown.height)

    def _card_anchor(self, slug: str, feature_id: int, rank: int | None) -> str:
        """Return where a feature's card is in the report, or an empty string where it has none."""
        shown = {(feature.slug, feature.feature_id) for feature in self.varied[:CARDS]}
        return f"#feature-{rank}" if (slug, feature_id) in shown else ""

    def family_head(self, rank: int) -> int | None:
        """Return the rank of the best feature of a feature's family; None where it is itself the best or has none."""
        family = self.rows_by_rank[rank].get("family")
        head = None if family is None else self._family_heads[family]
        return None if head == rank else head

    @cached_property
    def _family_heads(self) -> dict[int, int]:
        """The best rank of each family among the features shown."""
        heads: dict[int, int] = {}
        for rank, row in sorted(self.rows_by_rank.items()):
            if row.get("family") is not None:
                heads.setdefault(row["family"], rank)
        return heads

    @cached_property
    def varied(self) -> list[FeatureRef]:
        """The features shown, the best of each family first, then the others: the first ten are ten different things."""
        best: dict[object, FeatureRef] = {}
        for feature in self.features:
            family = self.rows_by_rank[feature.rank or 0].get("family")
            best.setdefault(("alone", feature.rank) if family is None else family, feature)
        heads = set(best.values())
        return list(best.values()) + [feature for feature in self.features if feature not in heads]

    @cached_property
    def rows_by_rank(self) -> dict[int, dict[str, Any]]:
        """The figures of the features shown (the first ``top_n`` of the ranked table), by rank."""
        if self.ranking is None:
            return {}
        return {int(row["rank"]): row for row in self.ranking.shown.iter_rows(named=True)}

    @cached_property
    def grades(self) -> tuple[int, int]:
        """The lowest and the highest grade: what an AUROC, and the share above the threshold, compare."""
        if self.ranking is not None:
            low, high = self.ranking.facts["grades"]
            return int(low), int(high)
        seen = np.unique(self.labels)
        return (int(seen[0]), int(seen[-1])) if len(seen) else (0, 0)

    @cached_property
    def figures_of_ranked(self) -> dict[tuple[str, int], dict[str, Any]]:
        """The rows of the ranked features shown, by (slug, feature)."""
        return {(str(row["slug"]), int(row["feature_id"])): row for row in self.rows_by_rank.values()}

    @property
    def permutations(self) -> int:
        """How many times the ranking shuffled the grades."""
        return 0 if self.ranking is None else int(self.ranking.null.get("permutations") or 0)

    def figures(self, feature: FeatureRef) -> dict[str, Any] | None:
        """Return what the ranking says of any feature that fires on some recorded row; None where it says nothing.

        The ranked table where the feature is among those shown, else the table of all features, which lacks the intervals.
        """
        if feature.rank in self.rows_by_rank:
            return self.rows_by_rank[feature.rank]
        path = self.file("rank", ALL_FEATURES)
        if path is None:
            return None
        found = (
            pl.scan_parquet(path)
            .filter((pl.col("feature_id") == feature.feature_id) & (pl.col("slug") == feature.slug))
            .collect()
        )
        if not found.height:
            return None
        row = dict.fromkeys(RANKED_ONLY, None) | found.row(0, named=True)
        return {key: _widened(value) for key, value in row.items()}

    @cached_property
    def _bounds(self) -> npt.NDArray[np.int64]:
        if self.recording is None:
            raise InputError(f"{self.path} has no recording, and activations are asked for; record first.")
        return item_bounds(self.recording)

    def _column(self, feature: FeatureRef) -> npt.NDArray[np.float32]:
        if self.recording is None:
            raise InputError(f"{self.path} has no recording, and activations are asked for; record first.")
        return column_of_rows(self.recording, feature)

    def scores(self, feature: FeatureRef) -> npt.NDArray[np.float64]:
        """Return a feature's score on every item, pooled as the ranking did, float64 [N]."""
        return pool_rows(self.column(feature), self._bounds, self.pool, self.left_out)

    @property
    def keeps_all_rows(self) -> bool:
        """Whether activations along the sentence were kept."""
        return self.recording is not None and self.recording.keeps_all_rows


def pool_rows(
    acts_T: npt.NDArray[np.floating],
    bounds_N2: npt.NDArray[np.int64],
    pool: Pool,
    left_out: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.float64]:
    """Pool a feature's activations over each item's rows, float64 [N]; an item without rows has 0.

    Args:
        acts_T: Activation on every row, [T].
        bounds_N2: Each item's first row and the row after its last, int64 [N, 2].
        pool: ``final`` (the last row), ``max`` or ``mean``.
        left_out: Rows not to pool over, bool [T] (never all of an item's); None for none.
    """
    pooled = np.zeros(len(bounds_N2))
    for item, (start, stop) in enumerate(bounds_N2):
        if stop > start:
            acts = acts_T[start:stop].astype(np.float64)
            if left_out is not None and pool != "final":
                acts = acts[~left_out[start:stop]]
            pooled[item] = acts[-1] if pool == "final" else acts.max() if pool == "max" else acts.mean()
    return pooled


def _widened(value: Any) -> Any:
    """Return a float without the tail that float32 leaves (0.30000001192 is 0.3)."""
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _recording_of(rank_folder: Path) -> dict[str, Path]:
    """Return where the recording of a lone ranking is, as its ``run.json`` or a neighbour says, if it is there."""
    run = rank_folder / RUN_FILE
    said = dict(read_json(run)) if run.is_file() else {}
    named = said.get("recording") or said.get("options", {}).get("rec")
    for candidate in (Path(str(named)) if named else None, rank_folder.parent / "rec"):
        if candidate is not None and (candidate / MANIFEST).is_file():
            return {"rec": candidate}
    return {}
