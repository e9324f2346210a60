"""What ``generate`` has got so far, beside its output, so that a rerun goes on where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conceptatlas.base.errors import InputError
from conceptatlas.base.files import read_json, write_json

_HEAD = {"format": "conceptatlas-generate", "version": 1}


@dataclass
class WorkLog:
    """Texts written so far.

    Attributes:
        path: The file.
        settings: All that must be the same for the texts to be of use to another run.
        texts: (text, grade aimed at), in the order in which they were accepted.
        asked: Number of the next request, by grade.
        duplicates: Near-duplicates dropped so far.
    """

    path: Path
    settings: Mapping[str, Any]
    texts: list[tuple[str, int]] = field(default_factory=list)
    asked: dict[int, int] = field(default_factory=dict)
    duplicates: int = 0

    @classmethod
    def open(cls, path: Path, settings: Mapping[str, Any]) -> WorkLog:
        """Read the log at ``path``, or begin one.

        Raises:
            InputError: It was made with other settings, or is not such a log.
        """
        if not path.exists():
            return cls(path, settings)
        record = read_json(path)
        if not isinstance(record, dict) or any(record.get(key) != value for key, value in _HEAD.items()):
            raise InputError(f"{path} is not a log of conceptatlas generate; move it away or choose another --out.")
        for name, value in settings.items():
            if record["settings"].get(name) != value:
                raise InputError(
                    f"{path} was made with another {name} ({record['settings'].get(name)}, now {value}); choose another "
                    "--out, or delete it to begin anew."
                )
        return cls(
            path,
            settings,
            [(entry["text"], entry["intended_label"]) for entry in record["texts"]],
            {int(grade): count for grade, count in record["asked"].items()},
            record["duplicates"],
        )

    def save(self) -> None:
        """Write the log."""
        write_json(
            self.path,
            {
                **_HEAD,
                "settings": dict(self.settings),
                "asked": {str(grade): count for grade, count in sorted(self.asked.items())},
                "duplicates": self.duplicates,
                "texts": [{"text": text, "intended_label": grade} for text, grade in self.texts],
            },
        )
