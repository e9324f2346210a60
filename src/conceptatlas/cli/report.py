"""``conceptatlas report``: a study as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("report")(report)


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The study folder (or a recording, or a ranking).")],
    out: Annotated[Path | None, typer.Option("--out", help="The file to write; DIR/report.html by default.")] = None,
) -> None:
    """Write everything that a study folder holds as one self-contained HTML file: no network, no scripts.

    Example: conceptatlas report demo_out
    """
    from conceptatlas.base.console import say
    from conceptatlas.views import report as write

    say(str(write(folder, out=out)))
