"""A study of several concepts: the study folder of each, and what compares them."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from conceptatlas.base.errors import InputError
from conceptatlas.base.files import read_json
from conceptatlas.base.provenance import RUN_FILE
from conceptatlas.ranking.sentences import Sentence
from conceptatlas.views.concepts_file import read_concepts
from conceptatlas.views.headline import Headline, Tile, headline_of
from conceptatlas.views.html import heat_levels, render
from conceptatlas.views.sections import Section
from conceptatlas.views.study_folder import Study

if TYPE_CHECKING:
    from conceptatlas.ranking import CrossConcepts

COMPARE = "compare"
# A search that reaches this after Holm's correction is said to exceed chance.
LEVEL = 0.05
# An AUROC closer to ½ than this is not shaded.
UNSHADED = 0.05

FeatureLink = Callable[[str, dict[str, Any]], str]


class StudySet:
    """The studies of several concepts.

    Attributes:
        path: The folder.
        name: What it is called.
        concepts: Every concept, in order.
        studies: The study of each concept that has one by now.
    """

    def __init__(self, path: Path, name: str, concepts: tuple[str, ...], studies: dict[str, Study]) -> None:
        self.path = path
        self.name = name
        self.concepts = concepts
        self.studies = studies

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, follow_links: bool = True) -> StudySet | None:
        """Open a study of several concepts; None where the folder is not one.

        Args:
            path: The folder.
            follow_links: Take folders that are links to elsewhere; a server does not.

        Raises:
            InputError: It is one, and its list of concepts is damaged.
        """
        folder = Path(path)
        named = read_concepts(folder)
        if named is None:
            return None
        studies = {}
        for name in named.concepts:
            part = folder / name
            if part.is_dir() and (follow_links or not part.is_symlink()):
                try:
                    studies[name] = Study.open(part, follow_links=follow_links)
                except InputError:
                    continue  # begun, and nothing to show yet
        return cls(folder, named.name, named.concepts, studies)

    @cached_property
    def cross(self) -> CrossConcepts | None:
        """The features of each concept on the items of every concept; None where they were not compared."""
        from conceptatlas.ranking import CrossConcepts  # late: it brings numba along
        from conceptatlas.ranking.cross import CROSS_JSON

        folder = self.path / COMPARE
        return CrossConcepts.open(folder) if (folder / CROSS_JSON).is_file() else None

    @property
    def compared_at(self) -> str:
        """When the concepts were compared, as ``run.json`` writes it; "" where they were not."""
        path = self.path / COMPARE / RUN_FILE
        return "" if self.cross is None or not path.is_file() else str(read_json(path).get("written", ""))


def set_headline(found: StudySet) -> Headline:
    """Return the top of the page of a study of several concepts."""
    recordings = [study.recording for study in found.studies.values() if study.recording is not None]
    tiles = [Tile(str(len(found.concepts)), "concepts")]
    if recordings:
        held = sum(int(study.holdout.sum()) for study in found.studies.values() if study.recording is not None)
        tiles.append(Tile(f"{sum(rec.n_items for rec in recordings):,}", f"sentences, {held:,} of them held out"))
        saes = recordings[0].saes
        tiles.append(Tile(f"{len(saes):,}", f"SAEs on {len({sae.layer for sae in saes})} layers"))
    subject = f" in {recordings[0].manifest.subject.id}" if recordings else ""
    return Headline(
        title=found.name,
        subtitle=f"{len(found.concepts)} concepts{subject}",
        sentences=() if found.cross is None else tuple(_sentences(found.cross)),
        cautions=tuple(_cautions(found)),
        tiles=tuple(tiles),
    )


def _sentences(cross: CrossConcepts) -> list[Sentence]:
    """Return what is said of several concepts: which searches exceed chance first of all."""
    chance = [Sentence("chance", text) for text in _chance(cross)]
    return chance + [Sentence("concept", text) for text in cross.sentences()]


def _chance(cross: CrossConcepts) -> list[str]:
    known = [entry for entry in cross.concepts if entry["p_holm"] is not None]
    if not known:
        return []
    beyond = [entry["concept"] for entry in known if entry["p_holm"] <= LEVEL]
    which = (
        f"{len(beyond)} of {len(known)} searches exceed chance ({', '.join(beyond)})"
        if beyond
        else (f"None of the {len(known)} searches exceeds chance")
    )
    return [f"{which}, at p ≤ {LEVEL} after Holm's correction over the concepts."]


def _cautions(found: StudySet) -> Iterator[str]:
    for name in found.concepts:
        if name not in found.studies:
            yield f"{name} has nothing to show yet; run the study again."
    written = found.compared_at
    for name, study in found.studies.items():
        if written and str(study.run("rank").get("written", "")) > written:
            yield f"The comparison is older than the ranking of {name}; run the study again, with the stage compare."
    shuffles = [study.permutations for study in found.studies.values() if study.permutations]
    n = len(found.concepts)
    if shuffles and n > LEVEL * (min(shuffles) + 1):
        yield (
            f"With {min(shuffles):,} shuffles no search can reach p ≤ {LEVEL} after Holm's correction over {n} concepts; rank "
            f"with {math.ceil(n / LEVEL):,} permutations or more."
        )


def set_sections(
    found: StudySet, study_link: Callable[[str], str], feature_link: FeatureLink
) -> list[tuple[str, Section]]:
    """Return the parts of the page of a study of several concepts, each with its anchor.

    Args:
        found: The study.
        study_link: Where the page of a concept is.
        feature_link: Where a feature is shown, from its concept and its line of the comparison; "" for nowhere.
    """
    figures = {} if found.cross is None else {entry["concept"]: entry for entry in found.cross.concepts}
    entries = [
        {
            "name": name,
            "href": study_link(name),
            "headline": headline_of(study),
            "figures": figures.get(name),
            "n_concepts": len(figures),
        }
        for name, study in found.studies.items()
    ]
    concepts = Section(title="The concepts", body=render("concepts.html", entries=entries))
    return [("concepts", concepts), ("matrix", _matrix(found, feature_link))]


def _matrix(found: StudySet, feature_link: FeatureLink) -> Section:
    title = "The features of each concept on every concept"
    cross = found.cross
    if cross is None:
        return Section(title=title, body=render("matrix.html", lines=[], heads=[], picture=""))
    cells = {(c["concept"], c["slug"], c["feature_id"], c["on"]): c for c in cross.matrix}
    names = [entry["concept"] for entry in cross.concepts]
    lines = []
    for row in cross.features:
        own = [cells[row["concept"], row["slug"], row["feature_id"], name] for name in names]
        above = [_above_chance(cell["auroc"]) for cell in own]
        lines.append(
            {"row": row, "href": feature_link(row["concept"], row), "cells": own, "heat": heat_levels(above, 0.5)}
        )
    return Section(
        title=title,
        lead="AUROC on the held-out items of each concept, highest grade against lowest, with its 95% interval (by group); "
        "framed: the concept for which the feature was chosen. Specificity is that one minus the other concept that the "
        "feature follows most; its interval holds for all the others together.",
        body=render("matrix.html", lines=lines, heads=cross.concepts, picture=_picture(found)),
    )


def _above_chance(auroc: float | None) -> float:
    """Return how far an AUROC is from ½, for its shade; what is close to it has none."""
    return 0.0 if auroc is None or abs(auroc - 0.5) < UNSHADED else auroc - 0.5


def _picture(found: StudySet) -> Markup:
    from conceptatlas.views.crossing import CROSS_PNG

    path = found.path / COMPARE / CROSS_PNG
    if not path.is_file():
        return Markup("")
    data = base64.b64encode(path.read_bytes()).decode()
    return Markup('<img class="plot" alt="The same matrix as a picture" src="data:image/png;base64,{}">').format(
        Markup(data)
    )
