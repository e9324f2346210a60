"""Sentences that are to be graded: a text file, or any table with a text column, labelled by people or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from conceptatlas.base.errors import InputError
from conceptatlas.concepts.loading import (
    COLUMN_PAIRS,
    is_missing,
    label_problem,
    open_source,
    parse_grade,
    text_problem,
)
from conceptatlas.concepts.model import BadRow
from conceptatlas.concepts.reading import RawRow, RawTable, decoded, is_unicode, read_bytes, shorten

TEXT_SUFFIXES = {".txt", ".text"}


@dataclass(frozen=True)
class Sentence:
    """One sentence, the grade that a person gave it (or None), and its further columns."""

    text: str
    human: int | None = None
    more: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Sentences:
    """Sentences in order; ``columns`` are the further columns, ``bad_rows`` what was dropped on request."""

    rows: list[Sentence]
    columns: tuple[str, ...] = ()
    bad_rows: tuple[BadRow, ...] = ()

    @property
    def texts(self) -> list[str]:
        """The sentences' texts."""
        return [row.text for row in self.rows]


def read_sentences(source: str | Path | pl.DataFrame | Sequence[str], *, skip_bad_rows: bool = False) -> Sentences:
    """Read sentences to be graded.

    Args:
        source: A ``.txt`` file (one sentence a line, blank lines left out), a CSV or JSONL file with a column
            ``sentence``, ``content`` or ``text`` (and perhaps the label that goes with it, which may be missing in
            places), a built-in set, a data frame, or a sequence of texts.
        skip_bad_rows: Drop bad rows instead of refusing.

    Raises:
        InputError: There is nothing to read, or a bad row; the message names file, line and value.
    """
    if isinstance(source, (str, Path)) and Path(source).suffix.lower() in TEXT_SUFFIXES:
        table, text, label = _lines_of(Path(source)), "text", None
    elif not isinstance(source, (str, Path, pl.DataFrame)) and _are_texts(source):
        rows = [RawRow(f"row {index}", {"text": value}) for index, value in enumerate(source)]
        table, text, label = RawTable("the list", ("text",), rows), "text", None
    else:
        table, _ = open_source(source)
        text, label = _columns_of(table)
    good, bad = _parted(table, text, label)
    if bad and not skip_bad_rows:
        raise InputError(f"{bad[0]} (bad rows: {len(bad)}); mend the file, or use --skip-bad-rows.")
    if not good:
        raise InputError(f"{table.source} holds no sentence; add some.")
    return _sentences(table, good, bad, text, label)


def _are_texts(source: object) -> bool:
    return isinstance(source, Sequence) and len(source) > 0 and all(isinstance(value, str) for value in source)


def _lines_of(path: Path) -> RawTable:
    rows = []
    for number, line in enumerate(decoded(read_bytes(path)).split("\n"), start=1):
        place, text = f"{path}, line {number}", line.strip()
        bad = (
            None
            if is_unicode(text)
            else BadRow(place, "", shorten(text), f"'{shorten(text)}' is not UTF-8", "encoding")
        )
        if text:
            rows.append(RawRow(place, {"text": text}, bad))
    return RawTable(str(path), ("text",), rows)


def _columns_of(table: RawTable) -> tuple[str, str | None]:
    for text, label in COLUMN_PAIRS:
        if text in table.columns:
            return text, label if label in table.columns else None
    raise InputError(
        f"{table.source} has no column 'sentence', 'content' or 'text'; it has "
        f"{', '.join(map(repr, table.columns)) or 'none'}. Name the column of the sentences 'sentence'."
    )


def _parted(table: RawTable, text: str, label: str | None) -> tuple[list[RawRow], list[BadRow]]:
    good: list[RawRow] = []
    bad: list[BadRow] = []
    for row in table.rows:
        problem = row.bad or text_problem(row, text)
        if problem is None and label is not None and not is_missing(row.values.get(label)):
            problem = label_problem(row, label)
        if problem is None:
            good.append(row)
        else:
            bad.append(problem)
    return good, bad


def _sentences(
    table: RawTable, good: Sequence[RawRow], bad: Sequence[BadRow], text: str, label: str | None
) -> Sentences:
    columns = tuple(name for name in table.columns if name not in {text, label})
    rows = [
        Sentence(
            str(row.values[text]),
            parse_grade(row.values.get(label)) if label else None,
            {name: row.values.get(name) for name in columns},
        )
        for row in good
    ]
    return Sentences(rows, columns, tuple(bad))
