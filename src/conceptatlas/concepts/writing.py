"""Tables to CSV files, whole or not at all."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from conceptatlas.base.errors import InputError
from conceptatlas.base.files import ensure_folder, write_text
from conceptatlas.base.writing import may_replace


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write ``rows`` under ``columns`` as CSV in UTF-8; None is an empty cell."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(dict(row) for row in rows)
    ensure_folder(path.parent)
    write_text(path, buffer.getvalue())


def beside(path: Path, ending: str) -> Path:
    """Return the name beside ``path``: ``DATA.csv`` and ``unlabelled.csv`` make ``DATA.unlabelled.csv``."""
    return path.with_name(f"{path.stem}.{ending}")


def check_out(path: Path, *inputs: Path | str) -> None:
    """Check that ``path`` can be the CSV to write.

    Raises:
        InputError: It does not end in .csv, is a folder, or is one of the files that are read.
    """
    if path.suffix.lower() != ".csv":
        raise InputError(f"--out {path} does not end in .csv; name a .csv file.")
    for written in (path, beside(path, "unlabelled.csv"), beside(path, "work.json"), beside(path, "run.json")):
        may_replace(written, inputs=inputs)
