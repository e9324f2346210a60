"""``conceptatlas check``: what in a data set could mislead."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conceptatlas.base.console import note, print_table, say
from conceptatlas.base.errors import InputError
from conceptatlas.base.writing import may_replace

if TYPE_CHECKING:
    from conceptatlas.concepts import ConceptCheck

_SIGNS = {"fine": "ok  ", "note": "note", "problem": "BAD "}
_SHOWN_ROWS = 10
_SHOWN_PAIRS = 3


def register(app: typer.Typer) -> None:
    """Add ``check`` to the application."""
    app.command("check")(check)


def check(
    data: Annotated[str, typer.Argument(help="A .csv or .jsonl file, builtin:TRAIT or seeds:TRAIT.")],
    plot: Annotated[Path | None, typer.Option(help="Write a PNG of the grades and lengths.")] = None,
    skip_bad_rows: Annotated[bool, typer.Option("--skip-bad-rows", help="Bad rows are counted, not an error.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Check a graded data set: counts, duplicates, and labels that length or mere words give away.

    Bad rows are all listed; without --skip-bad-rows they make the exit code 2.

    Example: `conceptatlas check builtin:dishonesty --plot dishonesty.png`
    """
    from conceptatlas.concepts import check_concept, load_concept

    if plot is not None:
        may_replace(plot, (".png",), [data])  # before the work, not after it
    concept = load_concept(data, skip_bad_rows=True)
    found = check_concept(concept)
    if plot is not None:
        from conceptatlas.concepts.plots import plot_distribution

        plot_distribution(concept, plot)
        note(f"Plot: {plot}")
    if as_json:
        import json

        say(json.dumps(found.as_dict(), ensure_ascii=False, indent=2))
    else:
        _print(found)
    if found.bad_rows and not skip_bad_rows:
        raise InputError(f"{found.bad_rows[0]}; mend the {len(found.bad_rows)} bad rows, or use --skip-bad-rows.")


def _print(found: ConceptCheck) -> None:
    print_table(
        [
            {"label": grade, "items": count, "mean words": found.words[grade]}
            for grade, count in found.label_counts.items()
        ],
        ["label", "items", "mean words"],
        title=f"{found.name}: {found.n_items} items in {found.n_groups} groups",
    )
    contrast = f"AUROC {found.highest} v {found.lowest}"
    print_table(
        [
            {
                "label predicted by": name,
                contrast: figure.auroc,
                "95% interval": None
                if figure.auroc_low is None
                else f"{figure.auroc_low:.3f} to {figure.auroc_high:.3f}",
                "Spearman": figure.spearman,
            }
            for name, figure in (
                ("length alone", found.length),
                ("bag of words alone (out of fold)", found.bag_of_words),
            )
        ],
        ["label predicted by", contrast, "95% interval", "Spearman"],
    )
    for pair in found.pairs[:_SHOWN_PAIRS]:
        say(f"  {pair.similarity:.2f} alike, labels {pair.label_first} and {pair.label_second}:")
        say(f"       {pair.text_first}")
        say(f"       {pair.text_second}")
    for row in found.bad_rows[:_SHOWN_ROWS]:
        say(f"  bad row: {row}")
    if len(found.bad_rows) > _SHOWN_ROWS:
        say(f"  … and {len(found.bad_rows) - _SHOWN_ROWS} more bad rows")
    for verdict in found.verdicts:
        say(f"{_SIGNS[verdict.level]} {verdict.about}: {verdict.text}")
