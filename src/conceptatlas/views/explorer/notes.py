"""Stars and notes, kept in a plain file beside the study: the one thing that the explorer writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from conceptatlas.base.errors import InputError
from conceptatlas.base.files import read_json, write_json

NOTES_FILE = "notes.json"
FORMAT = "conceptatlas.notes"
MAX_NOTE = 10_000
MAX_ENTRIES = 100_000


@dataclass(frozen=True)
class Note:
    """What somebody thinks of a feature."""

    star: bool = False
    text: str = ""


class Notes:
    """``notes.json``: ``{"format", "version", "features": {"slug/feature": {"star", "note"}}}``."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NOTES_FILE
        self._lock = Lock()

    def _read(self) -> dict[str, dict[str, Any]]:
        if self.path.is_symlink():
            raise InputError(f"{self.path} is a link; notes are kept in a file of the study's own. Remove the link.")
        if not self.path.exists():
            return {}
        content = read_json(self.path)
        if (
            not isinstance(content, dict)
            or content.get("format") != FORMAT
            or not isinstance(content["features"], dict)
        ):
            raise InputError(f"{self.path} is not a file of notes; move it away, and a new one is made.")
        return content["features"]

    @staticmethod
    def _note(entry: Any) -> Note:
        if not isinstance(entry, dict):
            return Note()
        return Note(star=entry.get("star") is True, text=str(entry.get("note") or ""))

    def get(self, slug: str, feature: int) -> Note:
        """Return the note of a feature (an empty one where there is none)."""
        return self._note(self._read().get(f"{slug}/{feature}"))

    def starred(self) -> list[tuple[str, int]]:
        """Return every feature with a star."""
        found = []
        for key, entry in self._read().items():
            slug, _, feature = key.rpartition("/")
            if self._note(entry).star and feature.isdecimal():
                found.append((slug, int(feature)))
        return found

    def put(self, slug: str, feature: int, *, star: bool | None = None, text: str | None = None) -> Note:
        """Change a feature's star, its note or both, and return what stands then.

        Raises:
            InputError: The note is too long, or there are too many.
        """
        if text is not None and len(text) > MAX_NOTE:
            raise InputError(f"The note has {len(text):,} characters, and {MAX_NOTE:,} fit; shorten it.")
        with self._lock:
            entries = self._read()
            key = f"{slug}/{feature}"
            old = self._note(entries.get(key))
            new = Note(old.star if star is None else star, old.text if text is None else text)
            if new == Note():
                entries.pop(key, None)
            else:
                entries[key] = {"star": new.star, "note": new.text}
            if len(entries) > MAX_ENTRIES:
                raise InputError(f"{self.path} has {MAX_ENTRIES:,} features with notes already; remove some.")
            ordered = {name: entries[name] for name in sorted(entries)}
            write_json(self.path, {"format": FORMAT, "version": 1, "features": ordered})
        return new
