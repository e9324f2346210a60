"""``conceptatlas export``: a recording in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from conceptatlas.base.console import say
from conceptatlas.base.progress import progress_bar


def register(app: typer.Typer) -> None:
    """Add ``export`` to the application."""
    app.command("export")(export)


def export(
    rec: Annotated[Path, typer.Argument(help="A recording's folder.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write into.")],
    format: Annotated[str, typer.Option("--format", help="npz or anndata.")] = "npz",
) -> None:
    """Write a recording as dense .npz files, one per SAE, or as AnnData.

    Example: `conceptatlas export rec --format npz --out npz`
    """
    from conceptatlas.recording import Recording
    from conceptatlas.recording.exporter import export as run

    recording = Recording.open(rec)
    with progress_bar("exporting", len(recording.saes)) as bar:
        paths = run(recording, out, format=format, tick=lambda _: bar.advance())
    for path in paths:
        say(str(path))
