"""The registry of artefacts: every kind of folder that we write, once.

It stands here, and not in the rooms that write them, so that each command knows what it finds in a folder without
importing the room that made it (some bring torch along).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from conceptatlas.base.files import TEMP_PREFIX

FORMAT_PREFIX = "conceptatlas-"


@dataclass(frozen=True)
class Kind:
    """One kind of artefact.

    Attributes:
        name: Its format is ``conceptatlas-{name}``.
        version: The version of the format that is written, and the latest that is read.
        title: What messages call it.
        made_by: The command that makes it, ``{folder}`` for its folder.
        marker: A file that every such artefact holds: one from before seals is known by it.
        beside: Patterns of what else may stand in such a folder before it is written for the first time.
        cure: What to do where one is damaged; empty where running the command again does it.
    """

    name: str
    version: int
    title: str
    made_by: str
    marker: str
    beside: tuple[str, ...] = ()
    cure: str = ""

    @property
    def format(self) -> str:
        """The format that the seal names."""
        return FORMAT_PREFIX + self.name

    @property
    def staging(self) -> str:
        """The folder, in the artefact's, in which it is prepared; what is left of it tells of a run that was killed."""
        return TEMP_PREFIX + self.name

    def again(self, folder: Path) -> str:
        """Return what to do where an artefact is damaged or not finished."""
        return self.cure or f"run `conceptatlas {self.made_by.format(folder=folder)}` again"


KINDS: dict[str, Kind] = {}


def _declare(kind: Kind) -> Kind:
    if kind.name in KINDS:
        raise ValueError(f"Two kinds of artefact are called {kind.name!r}; give one of them another name.")
    return KINDS.setdefault(kind.name, kind)


RECORDING = _declare(
    Kind(
        "recording",
        1,
        "recording",
        "record DATA --model M --saes S --out {folder}",
        "manifest.json",
        cure="record again into a new folder, or copy the files anew",
    )
)
NPZ = _declare(Kind("npz", 1, "export as npz", "export REC --format npz --out {folder}", ""))
ANNDATA = _declare(Kind("anndata", 1, "export as AnnData", "export REC --format anndata --out {folder}", ""))
RANKING = _declare(Kind("ranking", 1, "ranking", "rank REC --out {folder}", "ranked_features.csv"))
COMPARISON = _declare(
    Kind(
        "comparison",
        1,
        "comparison of concepts",
        "compare-rankings RANK RANK --matrix --out {folder}",
        "cross_concepts.json",
    )
)
TRACE = _declare(Kind("trace", 1, "trace", "trace RANK --rec REC --out {folder}", "summary_statistics.json"))
EFFECTS = _declare(Kind("effects", 1, "effects", "effect RANK --rec REC --out {folder}", "effects.json"))
LABELS = _declare(
    Kind("labels", 1, "labels", "label --features RANK --dataset TEXTS --output-dir {folder}", "feature_labels.json")
)
SWEEP = _declare(
    Kind(
        "sweep",
        1,
        "sweep of probes",
        "probe sweep --rec REC --out {folder}",
        "sweep.json",
        beside=("v[0-9]*_*", "runs", "*.npz", "*.yaml"),
    )
)
PROMPTS = _declare(Kind("prompts", 1, "analysis of chat prompts", "run STUDY.yaml", "universal.csv"))
IMAGES = _declare(Kind("images", 1, "image laboratory", "images run --out {folder}", "feature_report.json"))
