"""``conceptatlas rank``: score every recorded feature against the concept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("rank")(rank)


def rank(
    rec: Annotated[Path, typer.Argument(help="The recording (or, with --display-only, the ranking).")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the ranking.")] = None,
    pool: Annotated[
        str, typer.Option(help="Score of an item: final, max, mean, or auto (chosen on discovery).")
    ] = "final",
    direction: Annotated[str, typer.Option(help="Features that go up with the concept, down, or both.")] = "up",
    min_pearson: Annotated[float, typer.Option(help="Least correlation with the grade.")] = 0.4,
    min_tpr: Annotated[
        float, typer.Option(help="Least share of items of the highest grade above the threshold.")
    ] = 0.5,
    max_fpr: Annotated[float, typer.Option(help="Greatest share of items of the lowest grade above it.")] = 0.2,
    top_n: Annotated[
        int, typer.Option(help="Features shown; the table holds all that pass, and at least so many.")
    ] = 50,
    examples_per_label: Annotated[int, typer.Option(help="Strongest items shown for each label.")] = 5,
    holdout: Annotated[float, typer.Option(help="Share of groups held out; 0 ranks on all items.")] = 0.3,
    permutations: Annotated[int, typer.Option(help="Permutations of the labels behind p_max.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of permutations, re-splits and random controls.")] = 0,
    families: Annotated[
        bool, typer.Option("--families/--no-families", help="Group features that say the same.")
    ] = True,
    baselines: Annotated[bool, typer.Option("--baselines/--no-baselines", help="Compute the baselines.")] = True,
    resplits: Annotated[int, typer.Option(help="Random re-splits behind the stability figures.")] = 20,
    without_sinks: Annotated[
        bool, typer.Option("--without-sinks", help="Leave attention sinks out of --pool max, mean and auto.")
    ] = False,
    without_dense: Annotated[
        bool, typer.Option("--without-dense", help="Leave out features active on more than half of the rows.")
    ] = False,
    holdout_by: Annotated[
        str | None, typer.Option(help="Hold out whole values of this column of the data (a template, a source).")
    ] = None,
    strata: Annotated[
        str | None, typer.Option(help="Column of the data by whose values the held-out AUROC is also given.")
    ] = "kind",
    judge_on: Annotated[
        Path | None, typer.Option(help="Another recording of the same SAEs, on whose items the choice is judged too.")
    ] = None,
    efficiency: Annotated[
        bool, typer.Option("--efficiency", help="Also the label-efficiency curve: what few labelled items give.")
    ] = False,
    display_only: Annotated[bool, typer.Option("--display-only", help="Show a saved ranking; rank nothing.")] = False,
    display_top: Annotated[int, typer.Option(help="How many features to print.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Rank every feature of a recording against its concept, on discovery, with the hold-out beside it.

    Example: conceptatlas rank REC --out RANK --pool final --holdout 0.3
    """
    from conceptatlas.base.console import note
    from conceptatlas.base.errors import InputError
    from conceptatlas.cli.show import print_ranking
    from conceptatlas.ranking import Ranking
    from conceptatlas.ranking import rank as make_ranking

    if display_only:
        print_ranking(Ranking.open(out or rec), top=display_top, families=families, as_json=as_json)
        return
    if out is None:
        raise InputError("rank needs a folder for its files; give --out RANK.")
    ranking = make_ranking(
        rec,
        out,
        pool=pool,
        direction=direction,
        min_pearson=min_pearson,
        min_tpr=min_tpr,
        max_fpr=max_fpr,
        top_n=top_n,
        examples_per_label=examples_per_label,
        holdout=holdout,
        permutations=permutations,
        seed=seed,
        families=families,
        baselines=baselines,
        resplits=resplits,
        without_sinks=without_sinks,
        without_dense=without_dense,
        holdout_by=holdout_by,
        strata=strata,
        judge_on=judge_on,
        efficiency=efficiency,
    )
    print_ranking(ranking, top=display_top, families=families, as_json=as_json)
    note(f"Written to {out}.")
