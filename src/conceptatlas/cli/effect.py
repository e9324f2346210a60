"""``conceptatlas effect``: what the best features cause."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# What fits a terminal of 80 columns; effects.csv and --json have the rest.
SHOWN = ["rank", "layer", "feature_id", "rise", "bar", "like_percentile", "kl_other", "causal"]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("effect")(effect)


def effect(
    rank: Annotated[Path, typer.Argument(help="The ranking.")],
    rec: Annotated[Path, typer.Option("--rec", help="The recording that was ranked.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for tables and plots.")],
    top_n: Annotated[int, typer.Option(help="How many of the best features.")] = 5,
    per_layer: Annotated[bool, typer.Option("--per-layer", help="The best feature of each layer instead.")] = False,
    targets: Annotated[
        str | None, typer.Option(help="Next tokens to watch, such as dishonest,lying (built-in model: its verdicts).")
    ] = None,
    readout: Annotated[str, typer.Option(help="Where the next token is read: auto, chat or end.")] = "auto",
    append: Annotated[str, typer.Option(help="Text put after the sentence before reading, such as ' That was'.")] = "",
    alpha: Annotated[
        float | None, typer.Option(help="Dose in mean residual norms; chosen on discovery unless given.")
    ] = None,
    n_items: Annotated[int, typer.Option(help="Items of each kind.")] = 32,
    n_controls: Annotated[int, typer.Option(help="Random features, and as many random directions.")] = 20,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    seed: Annotated[int, typer.Option(help="Draws the controls.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Steer along, and ablate, the best features on hold-out items, beside random features and directions.

    Example: `conceptatlas effect demo/rank --rec demo/rec --out demo/effect`
    """
    from conceptatlas.base.console import note, print_table
    from conceptatlas.views import effect as measure

    found = measure(
        rank, rec, out,
        top_n=top_n,
        per_layer=per_layer,
        targets=[word.strip() for word in targets.split(",")] if targets else None,
        readout=readout,
        append=append,
        alpha=alpha,
        n_items=n_items,
        n_controls=n_controls,
        device=device,
        seed=seed,
    )  # fmt: skip
    print_table(found.table.to_dicts(), found.table.columns if as_json else SHOWN, as_json=as_json)
    for one in found.features:
        note(f"{one.feature.label}: {one.effect.verdict}")
