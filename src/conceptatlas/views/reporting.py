"""The report: one self-contained HTML file of everything that a study folder holds.

No script, no network: the style sheet and every picture stand in the file, and its Content-Security-Policy forbids the
rest (``default-src 'none'``, styles by hash, pictures from ``data:`` only). The report of a study of several concepts
compares them, and leads to the report of each.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from conceptatlas import __version__
from conceptatlas.base.files import write_text
from conceptatlas.base.writing import may_replace
from conceptatlas.views.headline import Headline, headline_of
from conceptatlas.views.html import content_hash, render, style_text
from conceptatlas.views.sections import Section, sections_of
from conceptatlas.views.study_folder import Study
from conceptatlas.views.study_set import StudySet, set_headline, set_sections

REPORT_FILE = "report.html"


def _page(headline: Headline, sections: Sequence[tuple[str, Section]]) -> str:
    style = style_text()
    policy = f"default-src 'none'; style-src {content_hash(style)}; img-src data:; form-action 'none'; base-uri 'none'"
    return str(
        render(
            "report.html",
            policy=policy,
            style=Markup(style),
            headline=headline,
            sections=sections,
            version=__version__,
        )
    )


def report_html(study: Study) -> str:
    """Return the report of a study as one HTML text."""
    return _page(headline_of(study), sections_of(study))


def set_report_html(found: StudySet, beside: Path) -> str:
    """Return the report of a study of several concepts, for a file in the folder ``beside``: links are relative to it."""

    def report_of(concept: str) -> str:
        place = Path(os.path.relpath(found.path / concept / REPORT_FILE, beside))
        return quote(place.as_posix())

    def feature(concept: str, row: dict[str, Any]) -> str:
        if concept not in found.studies:
            return ""
        anchor = found.studies[concept].feature_link(row["slug"], row["feature_id"], row["rank"])
        return report_of(concept) + (anchor or "#ranked")

    return _page(set_headline(found), set_sections(found, report_of, feature))


def report(folder: str | os.PathLike[str], *, out: str | os.PathLike[str] | None = None) -> Path:
    """Write the report of a study folder (or of a lone recording or ranking), and return its path.

    Args:
        folder: The study folder. Of a study of several concepts, the report that compares them and leads to those of each;
            those are written by a call for each concept's folder, as ``run_study`` does.
        out: The file to write; ``folder/report.html`` by default.

    Raises:
        InputError: The folder holds no study, or ``out`` may not be replaced.
        WorkError: The file cannot be written.
    """
    found = StudySet.open(folder) or Study.open(folder)  # says where there is none, before folders are made
    path = may_replace(Path(folder) / REPORT_FILE if out is None else out, (".html", ".htm"), [Path(folder)])
    write_text(path, report_html(found) if isinstance(found, Study) else set_report_html(found, path.parent))
    return path
