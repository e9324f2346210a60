"""Answers on disk, without any secret: an interrupted run goes on, and a rerun pays nothing twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conceptatlas.base.checksums import user_cache_folder
from conceptatlas.base.files import ensure_folder, write_json

_ANSWER = {"format": "conceptatlas-llm-answer", "version": 1}
_ITEMS = {"format": "conceptatlas-llm-items", "version": 1}


def default_cache_folder() -> Path:
    """Return ``$CONCEPTATLAS_CACHE/llm``, else ``llm`` in the user's cache folder."""
    return user_cache_folder() / "llm"


def _read(path: Path, head: Mapping[str, object]) -> dict[str, Any] | None:
    """Return a cached record, None where there is none that can be used (a damaged one is simply asked again)."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    known = isinstance(record, dict) and all(record.get(key) == value for key, value in head.items())
    return record if known else None


class AnswerCache:
    """Answers by the key of their whole request."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "answers"

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> str | None:
        """Return the answer's text, or None."""
        record = _read(self._path(key), _ANSWER)
        answer = record.get("answer") if record else None
        return answer if isinstance(answer, str) else None

    def put(self, key: str, answer: str, request: Mapping[str, Any]) -> None:
        """Keep an answer that has been found valid."""
        path = self._path(key)
        ensure_folder(path.parent)
        write_json(path, {**_ANSWER, "request": dict(request), "answer": answer})


class ItemCache:
    """Valid answers item by item, for questions that are asked in batches whose make-up may change between runs.

    Every batch leaves one small file in the folder of its scope (all that decides the answers but the items); they are
    read together.
    """

    def __init__(self, folder: Path, scope: Mapping[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(scope, sort_keys=True).encode()).hexdigest()
        self._folder = folder / "items" / digest[:32]
        self._scope = dict(scope)
        self.known: dict[str, int] = {}
        if self._folder.is_dir():
            for path in sorted(self._folder.glob("*.json")):
                record = _read(path, _ITEMS)
                if record is not None:
                    self.known.update(record["items"])

    def put(self, items: Mapping[str, int]) -> None:
        """Keep the answers of a batch. Threads may do so at once, each for items of its own."""
        if not items:
            return
        self.known.update(items)
        ensure_folder(self._folder)
        name = hashlib.sha256(json.dumps(items, sort_keys=True).encode()).hexdigest()[:32]
        write_json(self._folder / f"{name}.json", {**_ITEMS, "scope": self._scope, "items": dict(items)})
