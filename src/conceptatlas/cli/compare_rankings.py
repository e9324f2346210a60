"""``conceptatlas compare-rankings``: which features serve several concepts, and how specific each is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from conceptatlas.ranking import CrossConcepts


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("compare-rankings")(compare)


def compare(
    rankings: Annotated[list[Path], typer.Argument(help="Two or more rankings of the same SAEs.")],
    top: Annotated[
        int | None, typer.Option(help="Features to print (of two rankings: 20; of each concept of the matrix: 3).")
    ] = None,
    shared: Annotated[bool, typer.Option("--shared", help="Of two rankings: only features that serve both.")] = False,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="The features of each concept on the held-out items of every concept.")
    ] = False,
    rec: Annotated[
        list[Path] | None, typer.Option("--rec", help="The rankings' recordings, where they moved; one for each.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the matrix: JSON, CSV and a picture.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Put rankings side by side: of two, which features serve both; of more (or with --matrix), how specific each is.

    Example: conceptatlas compare-rankings rank-dishonesty rank-unfairness --shared
    """
    from conceptatlas.base.console import note
    from conceptatlas.base.errors import InputError

    if len(rankings) == 2 and not (matrix or out or rec):
        _two(rankings, 20 if top is None else top, shared=shared, as_json=as_json)
        return
    if shared:
        raise InputError("--shared goes with two rankings and without --matrix, --rec and --out; leave it out.")
    from conceptatlas.views import compare_concepts

    found = compare_concepts(rankings, rec or None, out, top=3 if top is None else top)
    _matrix(found, as_json=as_json)
    if out is not None:
        note(f"Written to {out}.")


def _two(rankings: list[Path], top: int, *, shared: bool, as_json: bool) -> None:
    from conceptatlas.base.console import print_table, say
    from conceptatlas.ranking import compare_rankings

    a, b = rankings
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


def _matrix(found: CrossConcepts, *, as_json: bool) -> None:
    from conceptatlas.base.console import print_table, say

    table = found.table
    rows = list(table.iter_rows(named=True))
    if as_json:
        print_table(rows, table.columns, as_json=True)
        return
    for sentence in found.sentences():
        say(sentence)
    on = [name for name in table.columns if name.startswith("auroc_on_")]
    columns = ["concept", "rank", "layer", "feature_id", *on, "specificity", "specificity_low", "specificity_high"]
    if rows:
        print_table(rows, columns, title="AUROC on each concept's held-out items, highest grade against lowest")
