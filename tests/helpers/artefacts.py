"""Artefacts that a test makes, or changes, by hand."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from conceptatlas.base.artefact import SEAL_FILE, Artefact, make_seal, seal_of
from conceptatlas.base.kinds import Kind
from conceptatlas.base.provenance import RUN_FILE
from conceptatlas.recording import Recording
from conceptatlas.recording.files import write_table
from conceptatlas.recording.manifest import seal_recording


def seal(kind: Kind, folder: Path) -> Artefact:
    """Seal what stands in a folder now, as if it had been written so."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in found]
    return make_seal(kind, folder, {}, {n: seal_of(folder / n) for n in names if n not in (SEAL_FILE, RUN_FILE)})


def seal_table_of(rec: Recording, name: str, table: pl.DataFrame) -> None:
    """Replace a table of a recording, and seal it again."""
    files = {**rec.manifest.files, name: write_table(rec.path / name, table)}
    seal_recording(rec.path, rec.manifest.model_copy(update={"files": files}))
