"""``conceptatlas catalog``: the SAEs that can be recorded by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from conceptatlas.base.console import note, print_table, say

COLUMNS = ("release", "sae_id", "model", "site", "width", "l0", "neuronpedia_id", "config")
SITE_COLUMNS = ("site", "known", "inferred", "unknown", "total")


def register(app: typer.Typer) -> None:
    """Add ``catalog`` to the application."""
    app.command("catalog")(catalog)


def catalog(
    model: Annotated[str | None, typer.Option("--model", help="Only the SAEs of this model.")] = None,
    sites: Annotated[bool, typer.Option("--sites", help="Count by kind of site instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every SAE of the SAELens registry, without downloading anything.

    The last column says whether an SAE's configuration is known from the registry, inferred from its name (and checked
    when it is loaded), or unknown until it is downloaded.

    Example: `conceptatlas catalog --model gemma-2-2b`
    """
    from conceptatlas.saes import read_catalog, site_counts

    rows = read_catalog(model)
    if sites:
        counts = [{"site": c.site_type, **vars(c), "total": c.total} for c in site_counts(rows)]
        print_table(counts, SITE_COLUMNS, as_json=as_json)
        return
    table = [{"width": row.d_sae, "l0": row.average_l0, "config": row.config_status, **vars(row)} for row in rows]
    if as_json:
        print_table(table, COLUMNS, as_json=True)
    else:
        # Plain lines, never folded: ids are long, there are thousands of them, and they are for grep as well.
        say(_aligned([COLUMNS, *(tuple(_cell(row[name]) for name in COLUMNS) for row in table)]))
    releases = len({row.release for row in rows})
    note(f"{len(rows):,} SAEs in {releases} releases; name them as --saes RELEASE or --saes 'RELEASE:PATTERN'.")


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Put columns under each other."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
