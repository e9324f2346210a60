"""IDX, the file format of MNIST: a magic number, the sizes, the bytes (http://yann.lecun.com/exdb/mnist)."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import InputError

_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: Path, *, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not.

    Args:
        path: The file.
        dimensions: How many it must have: 3 for images, 1 for labels.

    Raises:
        InputError: Wrong magic number, another number of dimensions, or truncated.
    """
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if raw.startswith(_GZIP_MAGIC) else raw
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read as IDX ({error}); fetch it again.") from error
    expected = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    if data[:4] != expected:
        raise InputError(
            f"{path} has the magic number 0x{data[:4].hex()}, and IDX unsigned bytes of {dimensions} dimension(s) "
            f"have 0x{expected.hex()}; give an IDX file of {'images' if dimensions == 3 else 'labels'}."
        )
    start = 4 + 4 * dimensions
    if len(data) < start:
        raise InputError(f"{path} is truncated within its header ({len(data)} bytes); fetch it again.")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise InputError(
            f"{path} says {' × '.join(map(str, shape))} = {math.prod(shape)} bytes and holds {len(data) - start}; "
            "it is truncated or damaged: fetch it again."
        )
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


def find_idx_pair(folder: Path, prefix: str) -> tuple[Path, Path] | None:
    """Return the image file and the label file of one set (``train`` or ``t10k``), or None where there is none."""
    images = sorted(folder.glob(f"{prefix}*images*idx3*"))
    labels = sorted(folder.glob(f"{prefix}*labels*idx1*"))
    return (images[0], labels[0]) if images and labels else None
