"""``conceptatlas explore``: the local web app."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("explore")(explore)


def explore(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A study, or a folder of studies.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8765,
    unsafe_listen: Annotated[
        str | None,
        typer.Option(help="Listen on this address instead of 127.0.0.1; the URL then carries a secret token."),
    ] = None,
) -> None:
    """Open the explorer over studies, recordings, rankings and label runs, on this machine only.

    Example: conceptatlas explore demo_out --port 8765
    """
    from conceptatlas.views.explorer import serve

    serve(folder, port=port, unsafe_listen=unsafe_listen)
