"""The studies that the explorer shows, each opened when it is first asked for."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from conceptatlas.base.errors import InputError
from conceptatlas.base.files import read_json
from conceptatlas.evidence import FeatureRef
from conceptatlas.views.explorer.live import Live
from conceptatlas.views.explorer.missing import Missing
from conceptatlas.views.explorer.notes import Notes
from conceptatlas.views.explorer.table import FeatureTable
from conceptatlas.views.study_folder import ALL_FEATURES, LABELS, Study
from conceptatlas.views.study_set import StudySet

MAX_STUDIES = 500


class Shelf:
    """One study with what the explorer adds to it: the feature table, notes, the live model.

    Attributes:
        key: Its name in addresses.
        study: The study.
        among: The study of several concepts that it is a part of; "" for none.
    """

    def __init__(self, key: str, study: Study, among: str = "") -> None:
        self.key = key
        self.study = study
        self.among = among
        self.notes = Notes(study.path)
        self.live = Live(study)

    @cached_property
    def table(self) -> FeatureTable | None:
        """The table of every feature that fires on some recorded row; None without a ranking."""
        path = self.study.file("rank", ALL_FEATURES)
        return None if path is None else FeatureTable(path, self.labels)

    @cached_property
    def labels(self) -> dict[tuple[str, int], str]:
        """Label text of the features that have one: (slug, feature) -> text."""
        path = self.study.file("label", LABELS)
        if path is None:
            return {}
        entries: list[dict[str, Any]] = read_json(path).get("features") or []
        saes = [] if self.study.recording is None else self.study.recording.saes
        found = {}
        for entry in entries:
            index, text = int(entry["feature_index"]), str(entry.get("label") or "")
            slug = entry.get("slug") or (saes[0].slug if len(saes) == 1 else None)
            slugs = [slug] if slug else [f.slug for f in self.study.features if f.feature_id == index]
            found.update({(str(name), index): text for name in slugs if text})
        return found

    @cached_property
    def _shown(self) -> dict[tuple[str, int], FeatureRef]:
        return {(feature.slug, feature.feature_id): feature for feature in self.study.features}

    def feature(self, slug: str, feature_id: int) -> FeatureRef:
        """Return a feature of this study by its stable name.

        Raises:
            Missing: There is no such SAE or feature.
        """
        if (slug, feature_id) in self._shown:
            return self._shown[slug, feature_id]
        recording = self.study.recording
        if recording is None:
            raise Missing("This study has no recording, so there is nothing to show of a feature.")
        sae = next((sae for sae in recording.saes if sae.slug == slug), None)
        if sae is None:
            raise Missing(f"This study has no SAE {slug[:100]!r}.")
        if not 0 <= feature_id < sae.d_sae:
            raise Missing(f"{sae.sae_id} has no feature {feature_id}: its features are 0 to {sae.d_sae - 1}.")
        url = sae.neuronpedia_url(feature_id)
        return FeatureRef(slug, sae.sae_id, sae.layer, sae.average_l0, feature_id, None, url)


class Library:
    """The shelves of a folder: the study that it is, or the studies in it.

    Attributes:
        shelves: The studies, by key.
        together: What joins them, where the folder is a study of several concepts.
    """

    def __init__(self, shelves: dict[str, Shelf], together: StudySet | None = None) -> None:
        self.shelves = shelves
        self.together = together

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Library:
        """Open a study (of one concept or several), a recording, a ranking, a label run, or a folder of any of these.

        Raises:
            InputError: It is none of them.
        """
        import conceptatlas.ranking  # noqa: F401 - slow; better now than with the first page

        folder = Path(path)
        together = StudySet.open(folder, follow_links=False)
        if together is not None:
            return cls({key: Shelf(key, one, together.name) for key, one in together.studies.items()}, together)
        try:
            study = Study.open(folder, follow_links=False)
        except InputError:
            studies = cls._below(folder)
            if not studies:
                raise
            return cls({key: Shelf(key, study) for key, study in studies.items()})
        key = folder.resolve().name or "study"
        return cls({key: Shelf(key, study)})

    @staticmethod
    def _below(folder: Path) -> dict[str, Study]:
        found: dict[str, Study] = {}
        if not folder.is_dir():
            return found
        for child in sorted(folder.iterdir()):
            if child.is_symlink() or not child.is_dir() or child.name.startswith("."):
                continue
            try:
                several = StudySet.open(child, follow_links=False)
                if several is None:
                    found[child.name] = Study.open(child, follow_links=False)
                else:
                    found.update({f"{child.name}.{name}": study for name, study in several.studies.items()})
            except InputError:
                continue  # a folder that holds no study is not shown
            if len(found) >= MAX_STUDIES:
                break
        return found

    def shelf(self, key: str) -> Shelf:
        """Return one study.

        Raises:
            Missing: There is none of this name.
        """
        if key not in self.shelves:
            raise Missing(f"There is no study {key[:100]!r} here.")
        return self.shelves[key]
