"""Artefacts that a test makes, or changes, by hand."""

from __future__ import annotations

from pathlib import Path

from conceptatlas.base.artefact import SEAL_FILE, Artefact, make_seal, seal_of
from conceptatlas.base.kinds import Kind
from conceptatlas.base.provenance import RUN_FILE


def seal(kind: Kind, folder: Path) -> Artefact:
    """Seal what stands in a folder now, as if it had been written so."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in found]
    return make_seal(kind, folder, {}, {n: seal_of(folder / n) for n in names if n not in (SEAL_FILE, RUN_FILE)})
