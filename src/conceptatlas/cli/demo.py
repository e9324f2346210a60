"""``conceptatlas demo``: the whole pipeline on the built-in model, with no network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from conceptatlas.base.console import note, say


def register(app: typer.Typer) -> None:
    """Add ``demo`` to the application."""
    app.command("demo")(demo)


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the study.")] = Path("conceptatlas-demo"),
    trait: Annotated[str, typer.Option(help="dishonesty, aggression, caring, bravery or unfairness.")] = "dishonesty",
    top: Annotated[int, typer.Option(help="How many features to print.")] = 5,
) -> None:
    """Find the features of a trait in the built-in model, with evidence and a report; no network, about a minute.

    Example: `conceptatlas demo --out demo --trait caring`
    """
    import os

    # The built-in model's matrices are so small that a second thread costs more in waiting than it computes.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from conceptatlas.cli.show import print_ranking
    from conceptatlas.ranking import Ranking
    from conceptatlas.study import demo_study, run_study

    result = run_study(demo_study(out, trait), report_stage=lambda name, state: note(f"{name}: {state}"))
    print_ranking(Ranking.open(result.folder / "rank"), top=top)
    say(f"Report: {result.folder / 'report.html'}")
