"""``conceptatlas trace``: the top features along the sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("trace")(trace)


def trace(
    rank: Annotated[Path, typer.Argument(help="The ranking.")],
    rec: Annotated[Path, typer.Option("--rec", help="The recording that was ranked.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for plots and statistics.")],
    top_n: Annotated[int, typer.Option(help="How many of the best features.")] = 10,
    labels: Annotated[str, typer.Option(help="Labels whose sentences are drawn and summarised.")] = "2,3",
    max_sentences: Annotated[int, typer.Option(help="Sentences drawn per label, in order; 0 draws all.")] = 20,
    dpi: Annotated[int, typer.Option(help="Dots per inch.")] = 150,
    figsize: Annotated[str, typer.Option(help="Width,height in inches.")] = "14,7",
    max_token_len: Annotated[int, typer.Option(help="Characters of a token shown on the axis.")] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Draw the best features along the sentences, and say where each peaks: early, contextual or late.

    Example: conceptatlas trace RANK --rec REC --out PLOTS --labels 2,3 --top-n 10
    """
    from conceptatlas.base.console import note, print_table
    from conceptatlas.base.errors import InputError
    from conceptatlas.views import trace as draw

    try:
        grades = [int(part) for part in labels.split(",")]
    except ValueError as error:
        raise InputError(f"--labels is {labels!r}; give labels with commas between, such as 2,3.") from error
    try:
        width, height = (float(part) for part in figsize.split(","))
    except ValueError as error:
        raise InputError(f"--figsize is {figsize!r}; give width,height in inches, such as 14,7.") from error
    traced = draw(
        rank,
        rec,
        out,
        top_n=top_n,
        labels=grades,
        max_sentences=max_sentences,
        dpi=dpi,
        figsize=(width, height),
        max_token_len=max_token_len,
    )
    rows = [
        {
            "rank": peaks.feature.rank,
            "layer": peaks.feature.layer,
            "average_l0": peaks.feature.average_l0,
            "feature_id": peaks.feature.feature_id,
            "class": peaks.peak_class,
            "median_place": next(
                (p.median_relative_position for p in reversed(peaks.by_label) if p.peak_class != "silent"), None
            ),
        }
        for peaks in traced.features
    ]
    print_table(rows, ["rank", "layer", "average_l0", "feature_id", "class", "median_place"], as_json=as_json)
    if not rows:
        note("No feature varies over the discovery items, so there is nothing to trace; see `conceptatlas show`.")
    note(f"{len(traced.plots)} plots and {len(rows)} features' statistics written to {out}.")
