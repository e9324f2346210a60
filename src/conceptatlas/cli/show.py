"""``conceptatlas show``: a saved ranking, readable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conceptatlas.base.console import print_table, say

if TYPE_CHECKING:
    from conceptatlas.ranking import Ranking

# Heading → column of the ranked table, or one made here (``interval``, ``comes back``).
COLUMNS = {
    "rank": "rank",
    "layer": "layer",
    "L0": "average_l0",
    "feature": "feature_id",
    "score": "interpretability_score",
    "Pearson": "pearson_corr",
    "AUROC": "auroc",
    "held-out": "auroc_holdout",
    "95% interval": "interval",
    "C": "concordance_holdout",
    "p_max": "p_max",
    "fails": "fails",
    "SAE": "sae_id",
}


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
    """Print a ranking: as JSON its table only; else its summary, baselines, table, examples and links."""
    table = ranking.top(top, families=families)
    if as_json:
        print_table(list(table.iter_rows(named=True)), table.columns, as_json=True)
        return
    for sentence in ranking.summary():
        say(sentence.text)
    say(ranking.head_line())
    _print_baselines(ranking)
    if not table.height:
        return
    low, high = ranking.facts["grades"]
    title = (
        f"Features (AUROC: grade {high} against {low}; held-out: the same on items that chose nothing; C: concordance over "
        "all grades there; fails: classic filters that it does not pass)"
    )
    print_table([_row(line) for line in table.iter_rows(named=True)], list(COLUMNS), title=title)
    _print_examples(ranking, table.rows(named=True))


def _row(line: Mapping[str, Any]) -> dict[str, Any]:
    made = {
        "interval": _interval(line["auroc_holdout_low"], line["auroc_holdout_high"]),
        "fails": ", ".join(part.partition(" ")[0] for part in (line["fails"] or "").split("; ")),
    }
    return {heading: made.get(column, line.get(column)) for heading, column in COLUMNS.items()}


def _interval(low: float | None, high: float | None) -> str | None:
    return None if low is None or high is None else f"{low:.3f}–{high:.3f}"


def _print_baselines(ranking: Ranking) -> None:
    from conceptatlas.ranking import best_baselines

    if not ranking.baselines:
        return
    rows = [
        {
            "baseline": entry["name"],
            "site": entry["site"] or "the text alone",
            "AUROC": entry["auroc_discovery"],
            "held-out": entry["auroc_holdout"],
            "95% interval": _interval(entry["low"], entry["high"]),
        }
        for entry in best_baselines(ranking.baselines)
    ]
    print_table(rows, list(rows[0]), title="Baselines (best site of each, chosen on discovery)")


def _print_examples(ranking: Ranking, lines: list[dict[str, Any]]) -> None:
    by_feature = {(entry["slug"], entry["feature_id"]): entry for entry in ranking.examples.values()}
    spans = {family["family"]: family for family in ranking.families}
    for line in lines:
        say(f"\n#{line['rank']} {line['slug']} feature {line['feature_id']} {line['neuronpedia_url'] or ''}".rstrip())
        say(f"  {'; '.join(_remarks(line, spans.get(line['family'])))}")
        entry = by_feature.get((line["slug"], line["feature_id"]))
        for grade, examples in sorted(entry["examples_by_label"].items(), reverse=True) if entry else ():
            for example in examples[:2]:
                say(f"  grade {grade}  {example['activation']:8.3f}  {example['sentence']}")


def _remarks(line: Mapping[str, Any], family: Mapping[str, Any] | None) -> list[str]:
    """Return what the table has no room for: means, rates, family, stability, confounds."""
    means = ", ".join("–" if (m := line[f"mean_label_{grade}"]) is None else f"{m:.3g}" for grade in range(4))
    out = [f"mean by grade {means}", f"tpr {line['tpr']:.2f}, fpr {line['fpr']:.2f}"]
    if line["tpr_holdout"] is not None and line["fpr_holdout"] is not None:
        out[-1] += f" (held-out {line['tpr_holdout']:.2f}, {line['fpr_holdout']:.2f})"
    if line["direction"] == "down":
        out.append("falls with the concept")
    if family is not None and family["size"] > 1:
        out.append(f"family of {family['size']}, layers {family['first_layer']}–{family['last_layer']}")
    if line["comes_back"] is not None:
        back = f"comes back in {line['comes_back']:.0%} of re-splits"
        span = None if line["rank_low"] is None else f", rank {line['rank_low']:.0f}–{line['rank_high']:.0f}"
        out.append(back + (span or ""))
    if line["confounded"]:
        out.append("CONFOUNDED: more than half of the effect goes with sentence length, token count and words")
    if line["fails"]:
        out.append(f"fails {line['fails']}")
    return out
