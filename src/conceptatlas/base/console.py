"""The two consoles (results on stdout, everything else on stderr) and the one way to print a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def out() -> Console:
    """Return the console for results (stdout)."""
    return Console(file=sys.stdout, highlight=False, soft_wrap=True)


def err() -> Console:
    """Return the console for progress, notes and errors (stderr)."""
    return Console(file=sys.stderr, highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """Print a line of results to stdout, verbatim (nothing in it is read as markup)."""
    out().print(Text(message))


def note(message: str) -> None:
    """Print a note to stderr, verbatim."""
    err().print(Text(message))


def _cell(value: Any) -> Text:
    if value is None:
        return Text("–", style="dim")
    if isinstance(value, float):
        return Text(f"{value:.3f}")
    return Text(str(value))


def print_table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, title: str = "", as_json: bool = False
) -> None:
    """Print ``rows`` (one mapping each) as a table, or as a JSON list with ``as_json``."""
    if as_json:
        sys.stdout.write(
            json.dumps([{c: row.get(c) for c in columns} for row in rows], ensure_ascii=False, indent=2) + "\n"
        )
        return
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for column in columns:
        numeric = any(isinstance(row.get(column), (int, float)) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    Console(file=sys.stdout, highlight=False).print(table)
