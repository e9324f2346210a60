"""``conceptatlas run``: a whole study from one YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from conceptatlas.base.console import note, print_table


def register(app: typer.Typer) -> None:
    """Add ``run`` to the application."""
    app.command("run")(run)


def run(
    study: Annotated[Path, typer.Argument(help="The study's YAML file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the stages as JSON.")] = False,
) -> None:
    """Record, rank, trace and report a whole study; stages whose inputs did not change are not run again.

    A study of several concepts does so for each, compares them, and names its stages `concept/stage`.

    Example: `conceptatlas run examples/organism-dishonesty.yaml`
    """
    from conceptatlas.study import run_study

    result = run_study(study, report_stage=lambda name, state: note(f"{name}: {state}"))
    print_table(
        [{"stage": name, "state": state} for name, state in result.stages.items()], ["stage", "state"], as_json=as_json
    )
    note(f"Report: {result.folder / 'report.html'}")
