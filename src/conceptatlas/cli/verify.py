"""``conceptatlas verify``: is a recording as it was written?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from conceptatlas.base.console import print_table, say
from conceptatlas.base.errors import WorkError
from conceptatlas.base.progress import progress_bar


def register(app: typer.Typer) -> None:
    """Add ``verify`` to the application."""
    app.command("verify")(verify)


def verify(
    rec: Annotated[Path, typer.Argument(help="A recording's folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print what is damaged as JSON.")] = False,
) -> None:
    """Check a recording's files against their checksums, and what they hold against each other.

    Example: `conceptatlas verify rec`
    """
    from conceptatlas.recording import Recording
    from conceptatlas.recording.verifier import verify as run

    recording = Recording.open(rec)
    files = recording.sealed.files
    with progress_bar("verifying", len(files)) as bar:
        problems = run(recording, lambda _: bar.advance())
    if problems or as_json:
        print_table([asdict(problem) for problem in problems], ["file", "problem"], as_json=as_json)
    if problems:
        raise WorkError(
            f"{rec} is damaged: {problems[0].file} {problems[0].problem}; record again into a new folder, "
            "or copy the files anew."
        )
    if not as_json:
        say(f"{rec} is as it was written: {len(files)} files.")
