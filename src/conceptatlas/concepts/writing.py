"""Tables to CSV files, whole or not at all."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from conceptatlas.base.errors import InputError
from conceptatlas.base.files import ensure_folder, write_text


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
    if path.is_dir():
        raise InputError(f"--out {path} is a folder; name a .csv file in it.")
    for given, written in ((Path(g), w) for g in inputs for w in (path, beside(path, "unlabelled.csv"))):
        if given.exists() and written.exists() and written.samefile(given):
            raise InputError(
                f"{given} would be overwritten by --out {path}; choose another name (a rerun of the whole input asks only "
                "for what is missing)."
            )
    ensure_folder(path.parent)
