"""``conceptatlas show``: a saved ranking, readable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conceptatlas.base.console import note, print_table, say

if TYPE_CHECKING:
    from conceptatlas.ranking import Ranking

COLUMNS = (
    "rank", "layer", "average_l0", "feature_id", "interpretability_score", "pearson_corr", "auroc", "auroc_holdout",
    "interval", "tpr_holdout", "fpr_holdout", "p_max", "sae_id",
)  # fmt: skip
SHORT = {
    "average_l0": "L0", "feature_id": "feature", "interpretability_score": "score", "pearson_corr": "Pearson",
    "auroc": "AUROC", "auroc_holdout": "held-out AUROC", "interval": "95% interval", "tpr_holdout": "held-out tpr",
    "fpr_holdout": "held-out fpr",
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("show")(show)


def show(
    ranking: Annotated[Path, typer.Argument(help="The ranking.")],
    top: Annotated[int, typer.Option(help="How many features to print.")] = 5,
    families: Annotated[bool, typer.Option("--families/--no-families", help="One line per family, or all.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Show a saved ranking: baselines, the best features, their examples and links.

    Example: conceptatlas show RANK --top 5
    """
    from conceptatlas.ranking import Ranking

    print_ranking(Ranking.open(ranking), top=top, families=families, as_json=as_json)


def print_ranking(ranking: Ranking, *, top: int = 5, families: bool = True, as_json: bool = False) -> None:
    """Print a ranking: as JSON its table only; else baselines, table, examples and links, or the near misses."""
    table = ranking.top(top, families=families)
    if as_json:
        print_table(list(table.iter_rows(named=True)), table.columns, as_json=True)
        if not ranking.features.height:
            for line in near_miss_lines(ranking):
                note(line)
        return
    say(ranking.head_line())
    _print_baselines(ranking)
    if not ranking.features.height:
        for line in near_miss_lines(ranking):
            say(line)
        return
    rows = [{SHORT.get(c, c): v for c, v in _with_interval(line).items()} for line in table.iter_rows(named=True)]
    print_table(rows, [SHORT.get(c, c) for c in COLUMNS])
    line_95 = ranking.null.get("pearson_95")
    if line_95 is not None:
        say(f"By chance, the best of all features searched reaches Pearson {line_95:.3f} (95th percentile).")
    _print_examples(ranking, table.rows(named=True))


def near_miss_lines(ranking: Ranking) -> list[str]:
    """Return what to say of a ranking in which nothing passed: the nearest features, and what each lacked."""
    if not ranking.near_misses.height:
        return ["No feature passes the filters, and none is near: none varies over the discovery items."]
    return [
        f"No feature passes the filters; the {ranking.near_misses.height} nearest, and what each lacked:",
        *(
            f"  {line['slug']} feature {line['feature_id']} (layer {line['layer']}): {line['lacks']}"
            for line in ranking.near_misses.iter_rows(named=True)
        ),
    ]


def _with_interval(line: Mapping[str, Any]) -> dict[str, Any]:
    low, high = line["auroc_holdout_low"], line["auroc_holdout_high"]
    interval = None if low is None else f"{low:.3f}–{high:.3f}"
    return {column: interval if column == "interval" else line[column] for column in COLUMNS}


def _print_baselines(ranking: Ranking) -> None:
    from conceptatlas.ranking import best_baselines

    if not ranking.baselines:
        return
    rows = []
    for entry in best_baselines(ranking.baselines):
        low, high = entry["low"], entry["high"]
        rows.append(
            {
                "baseline": entry["name"],
                "site": entry["site"],
                "AUROC": entry["auroc_discovery"],
                "held-out AUROC": entry["auroc_holdout"],
                "95% interval": None if low is None else f"{low:.3f}–{high:.3f}",
            }
        )
    print_table(rows, list(rows[0]), title="Baselines (best site of each, chosen on discovery)")


def _print_examples(ranking: Ranking, lines: list[dict[str, Any]]) -> None:
    by_feature = {(entry["slug"], entry["feature_id"]): entry for entry in ranking.examples.values()}
    for line in lines:
        entry = by_feature.get((line["slug"], line["feature_id"]))
        if entry is None:
            continue
        say(f"\n#{line['rank']} {line['slug']} feature {line['feature_id']} {line['neuronpedia_url']}".rstrip())
        for grade, examples in sorted(entry["examples_by_label"].items(), reverse=True):
            for example in examples[:2]:
                say(f"  label {grade}  {example['activation']:8.3f}  {example['sentence']}")
