"""``conceptatlas show``: a saved ranking, readable."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conceptatlas.base.console import out, print_table, say

if TYPE_CHECKING:
    from conceptatlas.ranking import Ranking
    from conceptatlas.ranking.sentences import Sentence

# The columns in the order in which they stand, and in that in which they are kept where the terminal is narrow.
COLUMNS = (
    "rank", "layer", "L0", "feature", "held-out", "95% interval", "C", "95% of C", "shuffles", "fails", "marks", "discovery",
    "Pearson", "score", "SAE",
)  # fmt: skip
KEPT_FIRST = (
    "rank", "layer", "feature", "held-out", "95% interval", "C", "shuffles", "fails", "marks", "95% of C", "discovery",
    "score", "Pearson", "L0", "SAE",
)  # fmt: skip

BASELINES_KEPT_FIRST = ("baseline", "held-out", "95% interval", "C", "discovery", "site", "95% of C")
COMPARISONS_KEPT_FIRST = ("baseline", "the feature", "95% interval", "role", "p (Holm)", "difference")


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("show")(show)


def show(
    ranking: Annotated[Path, typer.Argument(help="The ranking.")],
    top: Annotated[int, typer.Option(help="How many features to print.")] = 5,
    families: Annotated[bool, typer.Option("--families/--no-families", help="One line per family, or all.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Show a saved ranking: what it says, the baselines, the best features, their examples and links.

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
    for sentence in _sentences(ranking):
        _say(sentence.text, mark="! " if sentence.kind == "caution" else "")
    say("")
    _say(ranking.head_line())
    shown = _print_baselines(ranking)
    _print_comparisons(ranking)
    if not table.height:
        return
    shown += _print_features(ranking, table.rows(named=True), families=families)
    _print_legend(ranking, shown)
    _print_examples(ranking, table.rows(named=True))


def _sentences(ranking: Ranking) -> list[Sentence]:
    """Return the summary; of a saved ranking that stands in a study, with what its first feature causes."""
    from conceptatlas.views.headline import summary_of
    from conceptatlas.views.study_folder import Study

    return ranking.summary() if ranking.path is None else summary_of(Study.around(ranking.path))


def _width() -> int | None:
    """Return how wide the terminal is; None where the lines go to a file or another program, which wants them whole."""
    console = out()
    return console.width if console.is_terminal or "COLUMNS" in os.environ else None


def _say(text: str, *, mark: str = "", indent: str = "") -> None:
    """Print a sentence, broken between words at the width of the terminal."""
    width = _width()
    if width is None:
        say(f"{indent}{mark}{text}")
        return
    say(
        textwrap.fill(
            text,
            max(width, 40),
            initial_indent=indent + mark,
            subsequent_indent=indent + " " * len(mark),
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def _print_features(ranking: Ranking, lines: Sequence[Mapping[str, Any]], *, families: bool) -> list[str]:
    rows = [_row(line, ranking.null.get("permutations") or 0) for line in lines]
    chosen = _that_fit(rows, COLUMNS, KEPT_FIRST)
    jumps = families and any(line["rank"] != number for number, line in enumerate(lines, start=1))
    heads = "Features, the best of each family (all of them: show --no-families)"
    print_table(rows, chosen, title=heads if jumps else "Features")
    return chosen


def _print_legend(ranking: Ranking, shown: Collection[str]) -> None:
    """Say what the figures mean (those that had no room as columns stand beside the examples), and which had no room."""
    from conceptatlas.ranking.legends import legend

    for name, said in legend(ranking).items():
        _say(f"{said}.", mark=f"{name}: ")
    without = [name for name in COLUMNS if name not in shown]
    if without:
        _say(f"No room for these columns of the features: {', '.join(without)}.")


def _that_fit(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], kept_first: Sequence[str]) -> list[str]:
    """Return the columns that fit into the terminal, in their order; what is said of most use first is kept first."""
    left, kept = out().width - 1, set()
    for name in kept_first:
        left -= 3 + max(len(name), *(len(_shown(row[name])) for row in rows))
        if left < 0:
            break
        kept.add(name)
    return [name for name in columns if name in kept]


def _shown(value: object) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _row(line: Mapping[str, Any], permutations: int) -> dict[str, Any]:
    from conceptatlas.ranking.legends import failed, marks_of
    from conceptatlas.ranking.summary import shuffles

    p_max = line["p_max"]
    return {
        "rank": line["rank"],
        "layer": line["layer"],
        "L0": f"{line['average_l0']:g}",
        "feature": line["feature_id"],
        "held-out": line["auroc_holdout"],
        "95% interval": _interval(line["auroc_holdout_low"], line["auroc_holdout_high"]),
        "C": line["concordance_holdout"],
        "95% of C": _interval(line["concordance_holdout_low"], line["concordance_holdout_high"]),
        "shuffles": None if p_max is None else shuffles(p_max, permutations).removesuffix(" shuffles"),
        "fails": ", ".join(failed(line["fails"])) or None,
        "marks": ", ".join(mark for mark, _ in marks_of(line)) or None,
        "discovery": line["auroc"],
        "Pearson": line["pearson_corr"],
        "score": line["interpretability_score"],
        "SAE": line["sae_id"],
    }


def _interval(low: float | None, high: float | None) -> str | None:
    return None if low is None or high is None else f"{low:.2f}–{high:.2f}"


def _print_baselines(ranking: Ranking) -> list[str]:
    from conceptatlas.ranking import best_baselines
    from conceptatlas.ranking.legends import CROSS_VALIDATED, is_cross_validated
    from conceptatlas.ranking.summary import SAME_FEATURE, is_first

    if not ranking.baselines:
        return []
    rows = []
    for entry in best_baselines(ranking.baselines):
        compared, mark = entry.get("comparable", True), CROSS_VALIDATED if is_cross_validated(entry) else ""
        rows.append(
            {
                "baseline": entry["name"] if compared else f"({entry['name']}: not comparable)",
                "site": _site(entry),
                "held-out": entry["auroc_holdout"] if compared else None,
                "95% interval": _interval(entry["low"], entry["high"]) if compared else None,
                "C": entry.get("concordance_holdout") if compared else None,
                "95% of C": _interval(entry.get("concordance_low"), entry.get("concordance_high"))
                if compared
                else None,
                "discovery": f"{_shown(entry['auroc_discovery'])}{mark}" if compared else None,
            }
        )
    dull = () if any(row["C"] is not None for row in rows) else ("C", "95% of C")
    kept = [name for name in _that_fit(rows, list(rows[0]), BASELINES_KEPT_FIRST) if name not in dull]
    print_table(rows, kept, title="Baselines, of each the site best on discovery")
    for entry in best_baselines(ranking.baselines):
        draws = f"median of {entry['draws']} draws on hold-out" if entry.get("draws") else ""
        notes = [note for note in (draws, SAME_FEATURE if is_first(ranking, entry) else "") if note]
        if notes:
            _say(f"{entry['name']}: {', '.join(notes)}.")
    return kept


def _site(entry: Mapping[str, Any]) -> str:
    return (
        entry["site"] and (f"layer {entry['layer']}" if entry["layer"] is not None else entry["site"])
    ) or "text alone"


def _print_comparisons(ranking: Ranking) -> None:
    if not ranking.comparisons:
        return
    from conceptatlas.ranking.summary import against_title

    rows = [
        {
            "the feature": entry["relation"],
            "baseline": entry["name"],
            "difference": f"{entry['difference']:+.3f}",
            "95% interval": f"{entry['low']:+.2f} to {entry['high']:+.2f}",
            "p (Holm)": f"{entry['p_holm']:.2g}",
            "role": next((word for word in ("strongest", "tied", "control") if entry.get(word)), None),
        }
        for entry in ranking.comparisons
    ]
    kept = _that_fit(rows, list(rows[0]), COMPARISONS_KEPT_FIRST)
    print_table(rows, kept, title=f"{against_title(ranking)}: difference of AUROC")
    if "role" in kept and any(row["role"] == "tied" for row in rows):
        _say("tied: the strongest baseline cannot be told apart from it by the same test.")


def _print_examples(ranking: Ranking, lines: Sequence[Mapping[str, Any]]) -> None:
    from conceptatlas.ranking.legends import score_words

    by_feature = {(entry["slug"], entry["feature_id"]): entry for entry in ranking.examples.values()}
    spans = {family["family"]: family for family in ranking.families}
    say("")
    _say(f"Strongest items of each grade, discovery and hold-out, with their score ({score_words(ranking.facts)}):")
    for line in lines:
        say(f"\n#{line['rank']} {line['slug']} feature {line['feature_id']} {line['neuronpedia_url'] or ''}".rstrip())
        _say("; ".join(_remarks(line, spans.get(line["family"]))), indent="  ")
        entry = by_feature.get((line["slug"], line["feature_id"]))
        for grade, examples in sorted(entry["examples_by_label"].items(), reverse=True) if entry else ():
            for example in examples[:2]:
                _say(example["sentence"], mark=f"grade {grade}  {example['activation']:8.3f}  ", indent="  ")


def _remarks(line: Mapping[str, Any], family: Mapping[str, Any] | None) -> list[str]:
    """Return what the table has no room for: means, rates, family, stability, confounds, filters."""
    from conceptatlas.ranking.legends import marks_of

    means = ", ".join("–" if (m := line[f"mean_label_{grade}"]) is None else f"{m:.3g}" for grade in range(4))
    said = [f"mean by grade {means} on discovery", f"tpr {line['tpr']:.2f}, fpr {line['fpr']:.2f} on discovery"]
    if line["tpr_holdout"] is not None and line["fpr_holdout"] is not None:
        said[-1] += f" (held-out {line['tpr_holdout']:.2f}, {line['fpr_holdout']:.2f})"
    if family is not None and family["size"] > 1:
        said.append(f"family of {family['size']}, layers {family['first_layer']}–{family['last_layer']}")
    if line["comes_back"] is not None:
        back = f"comes back in {line['comes_back']:.0%} of re-splits"
        span = None if line["rank_low"] is None else f", rank {line['rank_low']:.0f}–{line['rank_high']:.0f}"
        said.append(back + (span or ""))
    said += [f"{mark.upper()}: {words}" for mark, words in marks_of(line)]
    if line["fails"]:
        said.append(f"fails {line['fails']}")
    return said
