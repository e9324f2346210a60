"""SHA-256 of files, remembered between runs, so that no file is read twice to learn that it is whole.

A checksum is remembered by a file's path, size, inode, and times of change, in an SQLite file in the user's cache folder.
Where that cannot be written nothing is remembered, and every file is read again.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from conceptatlas.base.files import sha256_of

CACHE_VARIABLE = "CONCEPTATLAS_CACHE"
CACHE_FILE = "checksums.sqlite"
# Two changes within one tick of the file system's clock have the same time; ticks are 4 to 10 ms, on old systems 2 s.
_TICK_NS = 20_000_000
# Entries are forgotten after so many days, so that the file does not grow for ever.
_KEEP_DAYS = 180
_TABLE = (
    "CREATE TABLE IF NOT EXISTS checksums (path TEXT PRIMARY KEY, size INTEGER, inode INTEGER, mtime INTEGER, "
    "ctime INTEGER, sha256 TEXT, day INTEGER) WITHOUT ROWID"
)


def user_cache_folder() -> Path:
    """Return ``$CONCEPTATLAS_CACHE``, else ``conceptatlas`` in the user's cache folder (``$XDG_CACHE_HOME``)."""
    root = os.environ.get(CACHE_VARIABLE)
    if root:
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "conceptatlas"


def checksums(paths: Sequence[Path]) -> list[str]:
    """Return the SHA-256 of each file, in hexadecimal; read only where it is not remembered.

    Raises:
        OSError: A file cannot be read.
    """
    keys = {path: os.path.realpath(path) for path in paths}
    known: dict[Path, tuple[str | int, ...]] = {}
    with _cache() as cache:
        if cache is not None:
            for path, key in keys.items():
                row = cache.execute("SELECT sha256, size, inode, mtime, ctime FROM checksums WHERE path = ?", [key])
                known[path] = row.fetchone() or ()
    fresh = [path for path in keys if known.get(path, ())[1:] != _state(path)]
    states = _settled(fresh)
    read = {path: sha256_of(path) for path in fresh}
    _keep(read, states)
    return [read[path] if path in read else str(known[path][0]) for path in paths]


def remember(found: Mapping[Path, str]) -> None:
    """Remember the checksums of files that were just written; does nothing where that cannot be kept."""
    with suppress(OSError):
        _keep(found, _settled(list(found)))


def _state(path: Path) -> tuple[int, int, int, int]:
    found = path.stat()
    return found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _settled(paths: Sequence[Path]) -> list[tuple[int, int, int, int]]:
    """Return the files' states, once they are a tick old: a file that changes again within it would keep its times."""
    states = [_state(path) for path in paths]
    age = time.time_ns() - max((max(state[2:]) for state in states), default=0)
    if age < _TICK_NS:
        time.sleep(min(_TICK_NS, _TICK_NS - age) / 1e9)
    return states


def _keep(found: Mapping[Path, str], states: Sequence[tuple[int, int, int, int]]) -> None:
    day = time.time_ns() // 86_400_000_000_000
    rows = [(os.path.realpath(path), *state, found[path], day) for path, state in zip(found, states, strict=True)]
    if not rows:
        return
    with _cache() as cache:
        if cache is not None:
            cache.executemany("INSERT OR REPLACE INTO checksums VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            cache.execute("DELETE FROM checksums WHERE day < ?", [day - _KEEP_DAYS])
            cache.commit()


class _Opened(threading.local):
    """The cache as this thread has it open, and which file that is: opening it for every array would take a millisecond."""

    key: tuple[int, str, int] | None = None
    cache: sqlite3.Connection | None = None


_OPENED = _Opened()


@contextmanager
def _cache() -> Iterator[sqlite3.Connection | None]:
    """Open the cache; None where it cannot be used. An error of the cache is never one of the caller."""
    path = None
    try:
        path = user_cache_folder() / CACHE_FILE
        cache = _connected(path)
    except (OSError, RuntimeError, sqlite3.Error) as error:  # RuntimeError: the user has no home
        if path is not None and type(error) is sqlite3.DatabaseError:
            path.unlink(missing_ok=True)  # it is damaged: begin a new one next time
        yield None
        return
    with suppress(sqlite3.Error):
        yield cache


def _connected(path: Path) -> sqlite3.Connection:
    found = path.stat().st_ino if path.exists() else -1
    if _OPENED.cache is None or _OPENED.key != (os.getpid(), str(path), found):
        _OPENED.cache = None
        path.parent.mkdir(parents=True, exist_ok=True)
        cache = sqlite3.connect(path, timeout=2)
        cache.execute("PRAGMA synchronous = OFF")  # what is lost is read again
        cache.execute(_TABLE)
        _OPENED.key, _OPENED.cache = (os.getpid(), str(path), path.stat().st_ino), cache
    return _OPENED.cache
