"""Where texts come from: a hub data set, a folder, a text file, CSV, JSONL or Parquet, installed sae-probes; streamed."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from itertools import count, islice
from pathlib import Path
from typing import Any

from conceptatlas.base.errors import InputError, nearest

Record = tuple[int, object]
"""The number of a record in its source (from 0), and what its column holds."""

_PARQUET_ROWS = 512
SAE_PROBES = "sae-probes"


class TextStream:
    """The first texts of a source, one at a time; at no time is more than a batch of the source in memory.

    Attributes:
        source: A path, ``builtin:<trait>``, ``seeds:<trait>``, ``sae-probes`` (the prompts of that package, one task
            after the other in turn) or a hub id (``owner/name``, or ``owner/name:config``); or what messages call the
            texts themselves, where those were given.
        n_texts: How many texts have been given so far.
        n_empty: How many records so far held no text (nothing, or only white space) and were left out.
    """

    def __init__(self, source: str | Sequence[str], *, column: str = "text", n_samples: int | None = None) -> None:
        if n_samples is not None and n_samples < 1:
            raise InputError(f"--n-samples is {n_samples}; it must be 1 or more.")
        self.source = source if isinstance(source, str) else "The list of texts"
        self._given = None if isinstance(source, str) else source
        self.column = column
        self.n_samples = n_samples
        self.n_texts = 0
        self.n_empty = 0

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Yield (number of the record, text).

        Raises:
            InputError: The source is missing, unreadable or empty, lacks the column, or holds something else than text.
        """
        records = _records(self.source, self.column) if self._given is None else enumerate(self._given)
        for number, value in islice(records, self.n_samples):
            if value is None or (isinstance(value, str) and not value.strip()):
                self.n_empty += 1
                continue
            if not isinstance(value, str):
                raise InputError(
                    f"{self.source}, record {number}: column {self.column!r} holds {_shown(value)}, which is no text; "
                    "name a column of text with --column."
                )
            self.n_texts += 1
            yield number, value
        if not self.n_texts:
            raise InputError(f"{self.source} holds no text ({self.n_empty} empty records); give a source with texts.")


def _records(source: str, column: str) -> Iterator[Record]:
    if source.startswith(("builtin:", "seeds:")):
        return _concept_records(source)
    if source == SAE_PROBES:
        return _sae_probes_records()
    path = Path(source).expanduser()
    suffix = "".join(path.suffixes[-2:]).lower() if path.suffix.lower() == ".zst" else path.suffix.lower()
    if path.is_dir():
        return _saved_records(path, column)
    if path.is_file():
        return READERS.get(suffix, _line_records)(path, column)
    if suffix in READERS or source.startswith((".", "/", "~")):
        siblings = sorted(p.name for p in path.parent.glob(f"*{suffix}")) if path.parent.is_dir() else []
        hint = f"nearest there: {', '.join(nearest(path.name, siblings))}" if siblings else "check the path"
        raise InputError(f"There is no file {source}; {hint}.")
    return _hub_records(source, column)


def _concept_records(source: str) -> Iterator[Record]:
    from conceptatlas.concepts import load_concept

    yield from enumerate(load_concept(source).items["text"].to_list())


def _sae_probes_records() -> Iterator[Record]:
    """Yield the prompts of the tasks that the package sae-probes brings, one of each task in turn."""
    spec = find_spec("sae_probes")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "The texts of sae-probes need that package; install it with `pip install --no-deps sae-probes`."
        )
    folder = Path(spec.submodule_search_locations[0]) / "data" / "cleaned_data"
    tasks = [_zst_records(path, "prompt") for path in sorted(folder.glob("*.csv.zst"))]
    numbers = count()
    while tasks:
        left = []
        for task in tasks:
            for _, value in islice(task, 1):
                yield next(numbers), value
                left.append(task)
        tasks = left


def _need(column: str, columns: Sequence[str], source: object) -> None:
    if column not in columns:
        listed = ", ".join(columns) or "none"
        raise InputError(f"{source} has no column {column!r}; its columns: {listed}. Choose one with --column.")


def _lines(path: Path) -> Iterator[str]:
    """Yield lines; a carriage return inside a line is kept."""
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as handle:
            for line in handle:
                number += 1
                yield line
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 after line {number} ({error.reason}); save it as UTF-8.") from error
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}; check its permissions.") from error


def _line_records(path: Path, column: str) -> Iterator[Record]:  # noqa: ARG001 - a text file has no columns
    for number, line in enumerate(_lines(path)):
        yield number, line.rstrip("\r\n")


def _jsonl_records(path: Path, column: str) -> Iterator[Record]:
    number = -1
    for place, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        number += 1
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{path}, line {place}: this is not JSON ({error}); every line is one object.") from error
        if not isinstance(record, dict):
            raise InputError(f"{path}, line {place}: {_shown(record)} is no JSON object; every line is one object.")
        _need(column, [str(key) for key in record], f"{path}, line {place},")
        yield number, record[column]


def _csv_records(path: Path, column: str) -> Iterator[Record]:
    before = csv.field_size_limit(sys.maxsize)  # the csv module refuses fields above 128 KiB
    reader = csv.reader(_lines(path), delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _need(column, header, path)
        place = header.index(column)
        number = 0
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                raise InputError(
                    f"{path}, line {reader.line_num}: there are {len(fields)} fields where the header has {len(header)}; "
                    "quote a text with commas."
                )
            yield number, fields[place]
            number += 1
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: this is not CSV ({error}); check the quotes.") from error
    finally:
        csv.field_size_limit(before)


def _zst_records(path: Path, column: str) -> Iterator[Record]:
    """Yield the records of a compressed CSV, which is unpacked in memory."""
    import polars as pl

    try:
        frame = pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path} is no readable compressed CSV ({_first_line(error)}); get it again.") from error
    _need(column, frame.columns, path)
    yield from enumerate(frame[column])


def _parquet_records(path: Path, column: str) -> Iterator[Record]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            _need(column, file.schema_arrow.names, path)
            number = 0
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=[column]):
                for value in batch.column(0).to_pylist():
                    yield number, value
                    number += 1
    except pa.ArrowException as error:
        raise InputError(f"{path} is no readable Parquet file ({_first_line(error)}); make it again.") from error


READERS: dict[str, Callable[[Path, str], Iterator[Record]]] = {
    ".txt": _line_records,
    ".md": _line_records,
    ".csv": _csv_records,
    ".tsv": _csv_records,
    ".jsonl": _jsonl_records,
    ".ndjson": _jsonl_records,
    ".csv.zst": _zst_records,
    ".parquet": _parquet_records,
}


def _rows_of(data: Any, column: str, source: object) -> Iterator[Record]:
    """Yield the records of a data set of the ``datasets`` library (the split ``train`` where there are several)."""
    if isinstance(data, dict):
        data = data["train"] if "train" in data else next(iter(data.values()))
    columns = data.column_names
    if columns is not None:
        _need(column, columns, source)
    for number, row in enumerate(data):
        _need(column, list(row), source)
        yield number, row[column]


def _saved_records(folder: Path, column: str) -> Iterator[Record]:
    for suffix in (".parquet", ".csv.zst", ".jsonl", ".txt"):
        files = sorted(folder.glob(f"*{suffix}"))
        if files:
            numbers = count()
            for path in files:
                yield from ((next(numbers), value) for _, value in READERS[suffix](path, column))
            return
    import datasets

    try:
        data = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder} is no data set ({_first_line(error)}); give a text, CSV, JSONL or Parquet file, or a folder that "
            "`datasets` saved."
        ) from error
    yield from _rows_of(data, column, folder)


def _hub_records(source: str, column: str) -> Iterator[Record]:
    import datasets

    name, _, config = source.partition(":")
    try:
        data = datasets.load_dataset(name, config or None, split="train", streaming=True)
        yield from _rows_of(data, column, source)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"There is no file {source}, and the data set of that name cannot be read from the Hugging Face hub "
            f"({type(error).__name__}: {_first_line(error)}); check the name (owner/name, or owner/name:config), or "
            "download it and give its Parquet file."
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
