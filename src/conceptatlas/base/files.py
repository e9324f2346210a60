"""Files that appear whole or not at all: write beside, fsync, rename."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import InputError, WorkError

if TYPE_CHECKING:
    import polars as pl

_SAMPLE_BYTES, _SAMPLES = 1 << 16, 64
_WHOLE_BELOW = 2 * _SAMPLE_BYTES * _SAMPLES
TEMP_PREFIX = ".partial-"


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sampled_digest(paths: Iterable[Path], *, whole_below: int = _WHOLE_BELOW) -> str:
    """Return ``sha256:…`` over files, by their names in alphabetical order.

    Files of ``whole_below`` bytes (8 MiB) or more enter with their size, their head and 64 samples spread over them: two
    files of weights of one shape differ nearly everywhere, and no gigabytes are read.
    """
    digest = hashlib.sha256()
    for path in sorted(paths):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as handle:
            if size < whole_below:
                digest.update(handle.read())
                continue
            for sample in range(_SAMPLES):
                handle.seek(sample * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                digest.update(handle.read(_SAMPLE_BYTES))
    return f"sha256:{digest.hexdigest()}"


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that takes the name ``path`` only when the block ends without an error.

    Raises:
        WorkError: The folder cannot be written (no permission, disk full).
    """
    try:
        fd, name = tempfile.mkstemp(prefix=TEMP_PREFIX, dir=path.parent)
    except OSError as error:
        raise WorkError(
            f"Cannot write in {path.parent}: {error.strerror}; free it or choose another folder."
        ) from error
    try:
        with os.fdopen(fd, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise WorkError(
                f"Cannot write {path}: {error.strerror or error}; free some space or choose another folder."
            ) from error
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    with atomic_file(path) as handle:
        handle.write(data)


def write_disposable(path: Path, data: bytes) -> None:
    """Write ``data`` whole or not at all, but without waiting for the disk: for the hundreds of pictures of a run.

    After a power cut such a file can be empty; what it shows is drawn again in seconds.
    """
    beside = path.with_name(f"{TEMP_PREFIX}{path.name}")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise WorkError(f"Cannot write {path}: {error.strerror or error}; free some space there.") from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all."""
    write_bytes(path, text.encode())


def json_text(value: Any) -> str:
    """Return ``value`` as indented JSON with a stable key order (that of insertion); NaN is refused."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as ``json_text``, whole or not at all."""
    write_text(path, json_text(value))


def write_npy(path: Path, array: npt.NDArray[Any]) -> None:
    """Write ``array`` as ``.npy`` (no pickle), whole or not at all."""
    with atomic_file(path) as handle:
        np.save(handle, array, allow_pickle=False)


def write_csv(path: Path, table: pl.DataFrame) -> None:
    """Write a table as CSV, whole or not at all."""
    with _table_file(path) as handle:
        table.write_csv(handle)


def write_parquet(path: Path, table: pl.DataFrame, **options: Any) -> None:
    """Write a table as Parquet, whole or not at all; ``options`` are those of Polars."""
    with _table_file(path) as handle:
        table.write_parquet(handle, **options)


@contextmanager
def _table_file(path: Path) -> Iterator[IO[bytes]]:
    from polars.exceptions import PolarsError

    try:
        with atomic_file(path) as handle:
            yield handle
    except PolarsError as error:  # so it tells of a full disk
        raise WorkError(f"Cannot write {path}: {error}; free some space or choose another folder.") from error


def read_json(path: Path) -> Any:
    """Read JSON from ``path``.

    Raises:
        InputError: The file is missing, or is not JSON in UTF-8.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}; check the path.") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not JSON in UTF-8 ({error}); make it again.") from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def ensure_folder(path: Path) -> Path:
    """Make ``path`` a folder that can be written, or say why it cannot be.

    Raises:
        InputError: It is a file, or cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        fd, probe = tempfile.mkstemp(prefix=TEMP_PREFIX, dir=path)
        os.close(fd)
        Path(probe).unlink()
    except FileExistsError as error:
        raise InputError(f"{path} is a file, and a folder is needed; choose another name.") from error
    except OSError as error:
        raise InputError(f"Cannot write in {path}: {error.strerror}; choose a folder that you may write.") from error
    return path
