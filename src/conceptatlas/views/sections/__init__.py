"""The parts of a study's page, each a small module that registers itself.

A module ``sections/<name>.py`` is found by being here. It registers *sections* (a part of the whole page) and *panels*
(a part of one feature's card)::

    @section("probes", order=70)
    def probes(study: Study) -> Section | None: ...

    @panel("effects", order=40)
    def effects(study: Study, feature: FeatureRef) -> Panel | None: ...

Each returns None where the study holds nothing for it: a page shows what there is.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from markupsafe import Markup

from conceptatlas.evidence import FeatureRef
from conceptatlas.views.study_folder import Study


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: Its heading.
        body: What it shows, as safe HTML.
        lead: One or two sentences under the heading, plain text.
        entries: Anchors within it for the table of contents: (anchor, words).
    """

    title: str
    body: Markup
    lead: str = ""
    entries: tuple[tuple[str, str], ...] = field(default=())


@dataclass(frozen=True)
class Panel:
    """A part of a feature's card: half as wide as the card, or ``full``; a ``tall`` one stands beside two others."""

    title: str
    body: Markup
    shape: Literal["half", "tall", "full"] = "half"


SectionMaker = Callable[[Study], Section | None]
PanelMaker = Callable[[Study, FeatureRef], Panel | None]

_SECTIONS: dict[str, tuple[int, SectionMaker]] = {}
_PANELS: dict[str, tuple[int, PanelMaker]] = {}


def section(name: str, *, order: int) -> Callable[[SectionMaker], SectionMaker]:
    """Register a section under ``name`` (its anchor); a name can be taken once. Lower ``order`` comes first."""

    def keep(maker: SectionMaker) -> SectionMaker:
        if name in _SECTIONS:
            raise ValueError(f"There is already a section {name!r}; choose another name.")
        _SECTIONS[name] = (order, maker)
        return maker

    return keep


def panel(name: str, *, order: int) -> Callable[[PanelMaker], PanelMaker]:
    """Register a panel of a feature's card under ``name``; a name can be taken once. Lower ``order`` comes first."""

    def keep(maker: PanelMaker) -> PanelMaker:
        if name in _PANELS:
            raise ValueError(f"There is already a panel {name!r}; choose another name.")
        _PANELS[name] = (order, maker)
        return maker

    return keep


@cache
def _load_all() -> None:
    for found in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{found.name}")


def sections_of(study: Study, *, skip: Collection[str] = ()) -> list[tuple[str, Section]]:
    """Return the sections that have something to show (but those to ``skip``), in order, each with its anchor."""
    _load_all()
    ordered = sorted(_SECTIONS.items(), key=lambda entry: entry[1][0])
    made = ((name, maker(study)) for name, (_, maker) in ordered if name not in skip)
    return [(name, part) for name, part in made if part is not None]


def panels_of(study: Study, feature: FeatureRef) -> list[Panel]:
    """Return the panels that have something to show of one feature, in order."""
    _load_all()
    made = (maker(study, feature) for _, maker in sorted(_PANELS.values(), key=lambda entry: entry[0]))
    return [part for part in made if part is not None]
