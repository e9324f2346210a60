"""The report: one self-contained HTML file of everything that a study folder holds.

No script, no network: the style sheet and every picture stand in the file, and its Content-Security-Policy forbids the
rest (``default-src 'none'``, styles by hash, pictures from ``data:`` only).
"""

from __future__ import annotations

import os
from pathlib import Path

from markupsafe import Markup

from conceptatlas import __version__
from conceptatlas.base.files import write_text
from conceptatlas.views.headline import headline_of
from conceptatlas.views.html import content_hash, render, style_text
from conceptatlas.views.sections import sections_of
from conceptatlas.views.study_folder import Study

REPORT_FILE = "report.html"


def report_html(study: Study) -> str:
    """Return the report of a study as one HTML text."""
    style = style_text()
    policy = f"default-src 'none'; style-src {content_hash(style)}; img-src data:; form-action 'none'; base-uri 'none'"
    return str(
        render(
            "report.html",
            policy=policy,
            style=Markup(style),
            headline=headline_of(study),
            sections=sections_of(study),
            version=__version__,
        )
    )


def report(folder: str | os.PathLike[str], *, out: str | os.PathLike[str] | None = None) -> Path:
    """Write the report of a study folder (or of a lone recording or ranking), and return its path.

    Args:
        folder: The study folder.
        out: The file to write; ``folder/report.html`` by default.

    Raises:
        InputError: The folder holds no study.
        WorkError: The file cannot be written.
    """
    study = Study.open(folder)
    path = Path(out) if out is not None else study.path / REPORT_FILE
    write_text(path, report_html(study))
    return path
