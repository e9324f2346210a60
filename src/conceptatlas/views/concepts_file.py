"""``concepts.json``: which concepts a study of several has, each in the folder of its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from conceptatlas.base.errors import InputError
from conceptatlas.base.files import read_json, write_json

CONCEPTS_FILE = "concepts.json"
FORMAT = "conceptatlas.concepts"
VERSION = 1


class NamedConcepts(NamedTuple):
    """A study of several concepts: what it is called, and its concepts in order."""

    name: str
    concepts: tuple[str, ...]


def write_concepts(folder: Path, name: str, concepts: Sequence[str]) -> None:
    """Write which concepts a study has into its folder."""
    write_json(folder / CONCEPTS_FILE, {"format": FORMAT, "version": VERSION, "name": name, "concepts": list(concepts)})


def read_concepts(folder: Path) -> NamedConcepts | None:
    """Return which concepts a study has; None where the folder does not say that it has several.

    Raises:
        InputError: The file is not ours, is of a later version, or names what is no folder of the study.
    """
    path = folder / CONCEPTS_FILE
    if not path.is_file():
        return None
    found: Any = read_json(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f"{path} does not name the concepts of a study; run the study again.")
    if found.get("version") != VERSION:
        raise InputError(
            f"{path} has format version {found.get('version')}, and this conceptatlas reads {VERSION}; update conceptatlas."
        )
    concepts = tuple(str(name) for name in found.get("concepts") or ())
    wrong = next((name for name in concepts if name in ("", ".", "..") or Path(name).name != name), None)
    if wrong is not None:
        raise InputError(f"{path} names a concept {wrong!r}, which is no folder beside it; run the study again.")
    return NamedConcepts(str(found.get("name") or folder.resolve().name), concepts)
