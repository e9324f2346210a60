"""``conceptatlas compare-rankings``: which features serve two concepts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("compare-rankings")(compare)


def compare(
    a: Annotated[Path, typer.Argument(help="A ranking.")],
    b: Annotated[Path, typer.Argument(help="Another, of the same SAEs.")],
    top: Annotated[int, typer.Option(help="How many features to print.")] = 20,
    shared: Annotated[bool, typer.Option("--shared", help="Only features that serve both.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Put two rankings side by side: which features serve both concepts, and which only one.

    Example: conceptatlas compare-rankings rank-dishonesty rank-unfairness --shared
    """
    from conceptatlas.base.console import print_table, say
    from conceptatlas.ranking import compare_rankings

    table = compare_rankings(a, b)
    counts = {side: table.filter(serves=side).height for side in ("both", "a", "b")}
    if shared:
        table = table.filter(serves="both")
    if not as_json:
        say(
            f"{counts['both']} features pass the filters of both, {counts['a']} of {a} only, {counts['b']} of {b} only."
        )
    columns = [
        "serves", "layer", "sae_id", "feature_id", "rank_a", "rank_b", "interpretability_score_a",
        "interpretability_score_b", "auroc_holdout_a", "auroc_holdout_b",
    ]  # fmt: skip
    rows = list(table.head(top).iter_rows(named=True))
    if as_json:
        print_table(rows, table.columns, as_json=True)
    elif rows:
        print_table(rows, columns)
