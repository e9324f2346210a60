"""Writing the files of a recording: each whole or not at all, with its size and checksum taken on the way."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from conceptatlas.base.errors import WorkError
from conceptatlas.base.files import atomic_file
from conceptatlas.recording.manifest import COLUMN_FILES, FileCheck
from conceptatlas.saes.sparse import SparseColumns


class HashingFile:
    """A binary file that hashes what is written to it."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self._digest = hashlib.sha256()
        self._bytes = 0

    def write(self, data: bytes | memoryview) -> int:
        """Write and hash ``data``."""
        view = memoryview(data).cast("B")
        self._handle.write(view)
        self._digest.update(view)
        self._bytes += view.nbytes
        return view.nbytes

    def check(self) -> FileCheck:
        """Return size and checksum of what was written so far."""
        return FileCheck(bytes=self._bytes, sha256=self._digest.hexdigest())


class NpyStream:
    """An ``.npy`` file that is written in pieces; its shape is known beforehand."""

    def __init__(self, file: HashingFile, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
        self._file = file
        self._dtype = np.dtype(dtype)
        self._left = int(np.prod(shape, dtype=np.int64))
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)

    def append(self, piece: npt.NDArray[Any]) -> None:
        """Write the next elements, in C order."""
        piece = np.ascontiguousarray(piece, dtype=self._dtype)
        if piece.size:
            self._file.write(piece.reshape(-1).data)
        self._left -= piece.size

    def finish(self) -> FileCheck:
        """Check that all of it came, and return size and checksum."""
        if self._left:
            raise WorkError(f"An array was written with {self._left} elements too few; this is a bug, report it.")
        return self._file.check()


@contextmanager
def npy_stream(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> Iterator[NpyStream]:
    """Open an ``.npy`` of ``dtype`` and ``shape`` to be written in pieces; it appears whole or not at all."""
    with atomic_file(path) as handle:
        yield NpyStream(HashingFile(handle), dtype, shape)


def write_array(path: Path, array: npt.NDArray[Any]) -> FileCheck:
    """Write one array as ``.npy`` (no pickle) and return its size and checksum."""
    with npy_stream(path, array.dtype, array.shape) as stream:
        stream.append(array)
        return stream.finish()


def write_columns(folder: Path, columns: SparseColumns) -> dict[str, FileCheck]:
    """Write the three arrays of one SAE into ``folder`` (made if missing) and return their checks by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: tuple[npt.NDArray[Any], ...] = (
        np.ascontiguousarray(columns.indptr, dtype=np.int64),
        np.ascontiguousarray(columns.rows, dtype=np.int32),
        np.ascontiguousarray(columns.values, dtype=np.float32),
    )
    return {name: write_array(folder / name, array) for name, array in zip(COLUMN_FILES, arrays, strict=True)}


def write_table(path: Path, table: pl.DataFrame) -> FileCheck:
    """Write a table as Parquet (zstd) and return its size and checksum."""
    buffer = io.BytesIO()
    table.write_parquet(buffer, compression="zstd", compression_level=3, row_group_size=1 << 17)
    with atomic_file(path) as handle:
        file = HashingFile(handle)
        file.write(buffer.getbuffer())
        return file.check()
