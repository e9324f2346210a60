"""``conceptatlas demo``: the whole pipeline on the built-in model, with no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conceptatlas.base.console import note, say

if TYPE_CHECKING:
    from conceptatlas.recording import Recording


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
    from conceptatlas.recording import Recording
    from conceptatlas.study import demo_study, run_study

    result = run_study(demo_study(out, trait), report_stage=lambda name, state: note(f"{name}: {state}"))
    print_ranking(Ranking.open(result.folder / "rank"), top=top)
    say(truth(Recording.open(result.folder / "rec")))
    say(f"Report: {result.folder / 'report.html'}")


def truth(recording: Recording) -> str:
    """Return what the true degrees reach on the hold-out: the most that a method can be expected to."""
    import numpy as np

    from conceptatlas.concepts import holdout_mask
    from conceptatlas.statistics import auroc, concordance

    items = recording.items
    grades, degrees = items["label"].to_numpy(), items["degree"].cast(float).to_numpy()
    held = holdout_mask(grades, items["split_hash"].to_numpy(), split=items["split"].to_list())
    ends = held & np.isin(grades, (grades.min(), grades.max()))
    return (
        "The truth (the degrees, to which the graders' errors were added) has a held-out concordance of "
        f"{concordance(degrees[held], grades[held]).concordance:.3f} and an AUROC of "
        f"{auroc(degrees[ends], grades[ends] == grades.max()):.3f}: no method can be expected to do better."
    )
