"""``load_concept``: any source of graded sentences to a Concept, every bad row named."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from conceptatlas.base.errors import InputError
from conceptatlas.concepts.builtin import builtin_path, is_builtin_name
from conceptatlas.concepts.grouping import joined_groups, torn_items
from conceptatlas.concepts.model import TORN_ADVICE, BadRow, Concept, build_concept, torn_problem
from conceptatlas.concepts.reading import (
    RawRow,
    RawTable,
    is_unicode,
    read_table,
    shorten,
    table_of_frame,
    table_of_pairs,
)

# (text, label) columns, in the order in which they are looked for.
COLUMN_PAIRS = (("sentence", "concept_strength_label"), ("content", "label"), ("text", "label"))
SPLITS = ("discovery", "holdout")
_GRADE = re.compile(r"\s*([0-3])(?:\.0*)?\s*")


def load_concept(
    source: str | Path | pl.DataFrame | Sequence[tuple[str, int]] | Concept,
    *,
    skip_bad_rows: bool = False,
    name: str | None = None,
) -> Concept:
    """Load graded items.

    Args:
        source: A ``.csv`` file (``sentence,concept_strength_label``, optional ``group`` and ``split``), a ``.jsonl``
            file (``content``, ``label``), ``builtin:<trait>``, ``seeds:<trait>``, a Polars or pandas frame with such
            columns, or a sequence of (text, label). Further columns are kept, as text from CSV.
        skip_bad_rows: Drop bad rows and count them (``Concept.skipped``, ``Concept.bad_rows``) instead of refusing.
        name: What to call the concept; by default the file's stem or the trait.

    Raises:
        InputError: The source is missing, empty, of the wrong columns, or has a bad row (an empty sentence, a label
            that is not a grade 0–3, a bad encoding, an unknown split, a split that tears a group or twins); the message
            names file, line and value. Of what a split tears, the hold-out rows are the bad ones.
    """
    if isinstance(source, Concept):
        return source
    table, default_name = open_source(source)
    columns = find_columns(table, ("content", "label") if _is_jsonl(source) else COLUMN_PAIRS[0])
    good, bad = sort_rows(table, *columns)
    good, torn = _without_torn(good, columns[0])
    bad += torn
    if bad and not skip_bad_rows:
        raise InputError(
            f"{bad[0]}{_also(len(bad) - 1)}; mend {'it' if len(bad) == 1 else 'them'}, or use --skip-bad-rows."
        )
    if not good:
        raise InputError(f"{table.source} has no usable row: all {len(bad)} are bad, the first at {bad[0]}; mend them.")
    return _concept_of(table, good, columns, name=name or default_name, bad=bad)


def _is_jsonl(source: object) -> bool:
    return isinstance(source, (str, Path)) and Path(source).suffix.lower() in {".jsonl", ".ndjson"}


def _also(others: int) -> str:
    if not others:
        return ""
    return f" (and {others} more bad row{'s' if others > 1 else ''})"


def open_source(source: str | Path | pl.DataFrame | Sequence[object]) -> tuple[RawTable, str]:
    """Return the raw rows of any source that ``load_concept`` takes, and the name it suggests for the concept.

    Raises:
        InputError: The source is missing, empty, not readable, or of no known kind.
    """
    if isinstance(source, (str, Path)):
        if is_builtin_name(str(source)):
            return read_table(builtin_path(str(source))), str(source).partition(":")[2]
        return read_table(Path(source)), Path(source).stem
    if isinstance(source, pl.DataFrame):
        return _not_empty(table_of_frame(source)), "concept"
    if type(source).__module__.partition(".")[0] == "pandas":
        return _not_empty(table_of_frame(pl.DataFrame(dict(source.items())))), "concept"  # type: ignore[attr-defined]
    if isinstance(source, Sequence):
        return _not_empty(table_of_pairs(source)), "concept"
    raise InputError(
        f"A concept cannot be loaded from a {type(source).__name__}; give a path, a data frame or (text, label) pairs."
    )


def _not_empty(table: RawTable) -> RawTable:
    if not table.rows:
        raise InputError(f"{table.source.capitalize()} is empty; it needs at least one row.")
    return table


def find_columns(table: RawTable, wanted: tuple[str, str]) -> tuple[str, str]:
    """Return the names of the text and label columns.

    Raises:
        InputError: Neither ``wanted`` nor another known pair is there; the columns there are stand in the message.
    """
    for pair in COLUMN_PAIRS:
        if set(pair) <= set(table.columns):
            return pair
    if not table.columns:  # JSONL without one good line
        first = next(row.bad for row in table.rows if row.bad)
        raise InputError(f"{first}.")
    missing = [name for name in wanted if name not in table.columns]
    raise InputError(
        f"{table.source} has no column {' nor '.join(map(repr, missing))}; "
        f"it has {', '.join(map(repr, table.columns))}. Name them {wanted[0]!r} and {wanted[1]!r}."
    )


def parse_grade(value: object) -> int | None:
    """Return the grade 0–3 that ``value`` says (3, 3.0, "3", "3.0"), or None when it is not one."""
    found = _GRADE.fullmatch(str(value)) if isinstance(value, (int, float, str)) else None  # True is "True": no grade
    return int(found[1]) if found else None


def is_missing(value: object) -> bool:
    """Say whether a cell is empty: absent, blank or NaN."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def text_problem(row: RawRow, column: str) -> BadRow | None:
    """Return what is wrong with a row's text, if anything."""
    value = row.values.get(column)
    if is_missing(value):
        problem = "the sentence is missing" if column not in row.values else "the sentence is empty"
        return BadRow(row.place, column, "", problem, "text")
    if not isinstance(value, str):
        return BadRow(row.place, column, shorten(value), f"{shorten(value)!r} is not text", "text")
    if not is_unicode(value):
        return BadRow(row.place, column, shorten(value), f"{shorten(value)!r} holds half a character pair", "encoding")
    return None


def label_problem(row: RawRow, column: str) -> BadRow | None:
    """Return what is wrong with a row's label, if anything."""
    value = row.values.get(column)
    if is_missing(value):
        return BadRow(row.place, column, "", "the label is missing; it must be 0, 1, 2 or 3", "missing")
    if parse_grade(value) is None:
        return BadRow(row.place, column, shorten(value), f"{shorten(value)!r} is not a grade 0, 1, 2 or 3", "label")
    return None


def _split_problem(row: RawRow) -> BadRow | None:
    value = row.values.get("split")
    if is_missing(value) or (isinstance(value, str) and value.strip() in SPLITS):
        return None
    return BadRow(
        row.place, "split", shorten(value), f"{shorten(value)!r} is not 'discovery', 'holdout' or empty", "split"
    )


def sort_rows(table: RawTable, text: str, label: str) -> tuple[list[RawRow], list[BadRow]]:
    """Part a table's rows into the good ones and the bad ones, each in order."""
    good: list[RawRow] = []
    bad: list[BadRow] = []
    for row in table.rows:
        problem = row.bad or text_problem(row, text) or label_problem(row, label) or _split_problem(row)
        if problem:
            bad.append(problem)
        else:
            good.append(row)
    return good, bad


def _without_torn(rows: list[RawRow], text: str) -> tuple[list[RawRow], list[BadRow]]:
    """Part the rows from those that are hold-out while their group, or a twin, is discovery."""
    splits = [optional_text(row, "split") for row in rows]
    if len({split for split in splits if split}) < 2:
        return rows, []
    groups = joined_groups([str(row.values[text]) for row in rows], [optional_text(row, "group") for row in rows])
    torn = {
        item: BadRow(
            rows[item].place, "split", "holdout", f"{torn_problem('it', rows[other].place)}; {TORN_ADVICE}", "split"
        )
        for item, other in torn_items(groups, splits)
    }
    return [row for item, row in enumerate(rows) if item not in torn], list(torn.values())


def optional_text(row: RawRow, column: str) -> str | None:
    """Return a cell as stripped text, None where it is empty or the column is not there."""
    value = row.values.get(column)
    return None if is_missing(value) else str(value).strip()


def _concept_of(
    table: RawTable, rows: Sequence[RawRow], columns: tuple[str, str], *, name: str, bad: Sequence[BadRow]
) -> Concept:
    text, label = columns
    used = {text, label, "group", "split"}
    extra = pl.DataFrame([column_of(c, [row.values for row in rows]) for c in table.columns if c not in used])
    return build_concept(
        name,
        [str(row.values[text]) for row in rows],
        [grade for row in rows if (grade := parse_grade(row.values[label])) is not None],
        groups=[optional_text(row, "group") for row in rows],
        splits=[optional_text(row, "split") for row in rows],
        extra=extra,
        bad_rows=bad,
    )


def column_of(name: str, rows: Sequence[Mapping[str, object]]) -> pl.Series:
    """Return one further column: of its own type where all values share one, else as text (nested ones as JSON)."""
    values = [row.get(name) for row in rows]
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 and kinds <= {str, bool, int, float}:
        return pl.Series(name, values, strict=False)
    return pl.Series(name, [_as_text(value) for value in values], dtype=pl.String)


def _as_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (dict, list)) else str(value)
