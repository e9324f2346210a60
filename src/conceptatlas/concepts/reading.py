"""Files and frames to raw rows, each of which knows its place; nothing is judged here but the form."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from conceptatlas.base.errors import InputError, nearest
from conceptatlas.concepts.builtin import TRAITS
from conceptatlas.concepts.model import BadRow

_BOM = b"\xef\xbb\xbf"
_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class RawRow:
    """One row as it came: its place, its values by column, and what is wrong with its form, if anything."""

    place: str
    values: Mapping[str, object]
    bad: BadRow | None = None


@dataclass(frozen=True)
class RawTable:
    """Rows in the order of the source, under the columns that there are (for JSONL: those of any line)."""

    source: str
    columns: tuple[str, ...]
    rows: list[RawRow]


def shorten(value: object) -> str:
    """Return ``value`` as text, short enough for a message, undecodable bytes shown by their codes."""
    text = str(value)
    with contextlib.suppress(UnicodeEncodeError):  # a surrogate that is no escaped byte is shown below
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def read_bytes(path: Path) -> bytes:
    """Return the content of ``path`` without a byte-order mark.

    Raises:
        InputError: The file is missing (nearest names given), is a folder, cannot be read, or is empty.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}; {_missing_hint(path)}.") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder; name a .csv or .jsonl file in it.") from error
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}; check the path and its permissions.") from error
    content = content.removeprefix(_BOM)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path} is UTF-16; save it as UTF-8.")
    if not content.strip():
        raise InputError(f"{path} is empty; it needs a header line and rows.")
    return content


def _missing_hint(path: Path) -> str:
    if str(path) in TRAITS:
        return f"the built-in sets are builtin:{path} and seeds:{path}"
    folder = path.parent
    siblings = sorted(p.name for p in folder.glob("*") if p.suffix in _READERS) if folder.is_dir() else []
    if siblings:
        return f"nearest in {folder}: {', '.join(nearest(path.name, siblings))}"
    return "check the path (built-in sets are written builtin:<trait> or seeds:<trait>)"


def decoded(content: bytes) -> str:
    """Return UTF-8 text in which bytes that are not UTF-8 stand as lone surrogates, so that their row can be named."""
    return content.decode("utf-8", "surrogateescape")


def is_unicode(text: str) -> bool:
    """Say whether ``text`` is text that UTF-8 can hold (no lone surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _encoding_problem(place: str, column: str, value: str) -> BadRow:
    return BadRow(place, column, shorten(value), f"'{shorten(value)}' is not valid UTF-8", "encoding")


def read_table(path: Path) -> RawTable:
    """Read a CSV or JSONL file into raw rows.

    Raises:
        InputError: The file cannot be read, is empty, has only a header or a header that repeats a name, or is neither.
    """
    content = read_bytes(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path} ends in {path.suffix or 'nothing'!r}; a data set is a .csv or a .jsonl file.")
    table = reader(path, decoded(content))
    if not table.rows:
        raise InputError(f"{path} has a header and no rows; add rows.")
    return table


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """Lift the csv module's limit of 128 KiB to a field for the time of the block."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _csv_records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line where the record begins, fields); blank lines are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        begin = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{path}, line {begin}: this is not CSV ({error}); check the quotes from here on."
            ) from error
        if fields:
            yield begin, fields


def _read_csv(path: Path, text: str) -> RawTable:
    with _long_fields():
        records = list(_csv_records(path, text))
    header = [name.strip() for name in records[0][1]]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise InputError(f"{path}, line 1: column {repeated[0]!r} stands twice in the header; rename one.")
    rows = [_csv_row(f"{path}, line {line}", header, fields) for line, fields in records[1:]]
    return RawTable(str(path), tuple(header), rows)


def _csv_row(place: str, header: list[str], fields: list[str]) -> RawRow:
    bad = next(
        (_encoding_problem(place, c, v) for c, v in zip(header, fields, strict=False) if not is_unicode(v)),
        None,
    )
    if len(fields) != len(header):
        problem = f"there are {len(fields)} fields where the header has {len(header)}; quote a sentence with commas"
        bad = BadRow(place, "", shorten(",".join(fields)), problem, "shape")
    return RawRow(place, dict(zip(header, fields, strict=False)), bad)


def _read_jsonl(path: Path, text: str) -> RawTable:
    columns: dict[str, None] = {}
    rows = []
    # Not splitlines(): a JSON string may hold characters that it would take for line ends.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        row = _jsonl_row(f"{path}, line {number}", line)
        columns.update(dict.fromkeys(row.values))
        rows.append(row)
    return RawTable(str(path), tuple(columns), rows)


def _jsonl_row(place: str, line: str) -> RawRow:
    if not is_unicode(line):
        return RawRow(place, {}, _encoding_problem(place, "", line.strip()))
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        problem = f"this is not a JSON object ({error}); every line is one object"
        return RawRow(place, {}, BadRow(place, "", shorten(line.strip()), problem, "shape"))
    if not isinstance(value, dict):
        problem = f"{shorten(line.strip())!r} is not a JSON object; every line is one object with content and label"
        return RawRow(place, {}, BadRow(place, "", shorten(line.strip()), problem, "shape"))
    return RawRow(place, value)


_READERS = {".csv": _read_csv, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl}


def table_of_frame(frame: pl.DataFrame) -> RawTable:
    """Return a data frame's rows, placed as ``row 0``, ``row 1`` and so on."""
    rows = [RawRow(f"row {index}", values) for index, values in enumerate(frame.iter_rows(named=True))]
    return RawTable("the data frame", tuple(frame.columns), rows)


def table_of_pairs(pairs: Sequence[object]) -> RawTable:
    """Return (text, label) pairs as rows, placed as ``row 0``, ``row 1`` and so on."""
    rows = []
    for index, pair in enumerate(pairs):
        place = f"row {index}"
        if isinstance(pair, (str, bytes)) or not isinstance(pair, Sequence) or len(pair) != 2:
            problem = f"{shorten(pair)!r} is not a (text, label) pair"
            rows.append(RawRow(place, {}, BadRow(place, "", shorten(pair), problem, "shape")))
        else:
            rows.append(RawRow(place, {"text": pair[0], "label": pair[1]}))
    return RawTable("the list", ("text", "label"), rows)
