"""``run.json``: where a result came from. The one file in which times and host names may stand."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from conceptatlas.base.files import write_json

RUN_FILE = "run.json"
# What every run.json says; the rest are the facts of the result.
_EVERY = ("command", "libraries", "platform", "host", "written", "artefact", "check")
_LIBRARIES = ("conceptatlas", "torch", "transformers", "sae-lens", "numpy", "scipy", "scikit-learn", "polars")
_SECRET = re.compile(r"(api[_-]?key|token$|secret|password|authorization)", re.IGNORECASE)


@cache
def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide our numbers (those that are installed)."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def without_secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``options`` without any entry whose name says that it is a secret."""
    return {key: value for key, value in options.items() if not _SECRET.search(key)}


def write_run(folder: Path, *, command: str, options: Mapping[str, Any], file: str = RUN_FILE, **facts: Any) -> None:
    """Write ``run.json`` into ``folder``: command, options, versions, time, host and any further ``facts``.

    A result that is a file among others, and not a folder, gives its run file a name of its own with ``file``.
    """
    write_json(
        folder / file,
        {
            "command": command,
            "options": without_secrets(options),
            **facts,
            "libraries": library_versions(),
            "platform": f"{platform.system()} {platform.machine()}, Python {sys.version.split()[0]}",
            "host": platform.node(),
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )


def facts_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a ``run.json`` says besides command, versions, time and host: what ``write_run`` was given."""
    return {key: value for key, value in run.items() if key not in _EVERY}
