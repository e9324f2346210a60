"""The data set file: one ``.npz`` (no pickle) with inputs, target, split and scaler, and where they came from.

``X`` is written and checked row by row, so a data set larger than memory can be prepared. Equal content gives equal
bytes.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import InputError
from conceptatlas.base.files import atomic_file, sha256_of
from conceptatlas.probes.scaling import NORM_KEYS, Normalization, Scaler, find_normalization
from conceptatlas.probes.splits import Fold
from conceptatlas.probes.strategies import Strategy, find_strategy

FORMAT = "conceptatlas.probe-dataset"
VERSION = 1

# What every reader may rely on; the rest of the keys is described in docs and in `ProbeDataset`.
REQUIRED = (
    "X",
    "y",
    "meta_format",
    "meta_version",
    "meta_strategy",
    "meta_input_source",
    "meta_input_layers",
    "meta_input_dims",
    "meta_n_samples",
    "meta_sentence_indices",
    "meta_target_layer",
    "meta_target_feature",
    "meta_average_l0",
    "meta_groups",
    "meta_grades",
    "norm_method",
    "train_index",
    "test_index",
)

Arrays = Mapping[str, npt.NDArray[Any]]


def write_dataset(
    path: Path, chunks: Iterable[npt.NDArray[np.float32]], shape: tuple[int, int], arrays: Arrays
) -> None:
    """Write a data set: ``X`` of ``shape`` from row ``chunks``, then ``arrays`` in their order.

    Raises:
        ValueError: The chunks do not add up to ``shape``.
        WorkError: The file cannot be written.
    """
    with atomic_file(path) as handle, zipfile.ZipFile(handle, "w", zipfile.ZIP_STORED) as archive:
        # A ZipInfo of its own has a fixed date, so that equal content gives equal bytes.
        with archive.open(zipfile.ZipInfo("X.npy"), "w", force_zip64=True) as member:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
            written = 0
            for chunk in chunks:
                member.write(np.ascontiguousarray(chunk, dtype="<f4").tobytes())
                written += len(chunk)
        if written != shape[0]:
            raise ValueError(f"{written} rows were given for X, and {shape[0]} announced.")
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


@dataclass(frozen=True)
class ProbeDataset:
    """A data set for probes, as read from its file.

    Attributes:
        path: The file.
        arrays: Every key of the file except ``X``.
        X: Scaled inputs, float32 [N, D], memory-mapped.
    """

    path: Path
    arrays: dict[str, npt.NDArray[Any]]
    X: npt.NDArray[np.float32]

    @staticmethod
    def open(path: str | Path) -> ProbeDataset:
        """Read and check a data set.

        Raises:
            InputError: There is no such file, it is none of ours, it is damaged, or it holds NaN or infinity.
        """
        path = Path(path)
        arrays = _read(path)
        lacking = [key for key in REQUIRED if key not in arrays]
        if lacking or str(arrays["meta_format"]) != FORMAT:
            what = f"it lacks {', '.join(lacking[:4])}" if lacking else f"its format is {arrays['meta_format']!s}"
            raise InputError(
                f"{path} is not a probe data set of conceptatlas: {what}; make one with `conceptatlas probe prepare`."
            )
        if int(arrays["meta_version"]) > VERSION:
            raise InputError(
                f"{path} has version {int(arrays['meta_version'])} of the data set format, and this conceptatlas reads "
                f"up to {VERSION}; install a newer one."
            )
        dataset = ProbeDataset(path, arrays, arrays.pop("X"))
        dataset._check()
        return dataset

    @staticmethod
    def unscaled(
        name: str, X: npt.NDArray[np.float32], arrays: dict[str, npt.NDArray[Any]], method: Normalization
    ) -> ProbeDataset:
        """Return a data set that stands in no file: raw ``X``, to be scaled by ``method`` when it is fitted on."""
        width = X.shape[1]
        ends = (np.zeros(width), np.ones(width))  # standardize by 0 and 1, or minmax from 0 to 1, changes nothing
        keys = {"norm_method": np.array(method)} | dict(zip(NORM_KEYS[method], ends, strict=False))
        dataset = ProbeDataset(Path(name), arrays | keys, X)
        dataset._check()
        return dataset

    def _check(self) -> None:
        n = len(self.y)
        again = "; prepare it again."
        if self.X.ndim != 2 or len(self.X) != n or n != int(self.arrays["meta_n_samples"]):
            raise InputError(f"{self.path} is damaged: X is {self.X.shape} for {n} targets{again}")
        index = np.concatenate([self.train_index, self.test_index])
        if not np.array_equal(np.sort(index), np.arange(n)):
            raise InputError(f"{self.path} is damaged: train_index and test_index do not part its samples{again}")
        if np.intersect1d(self.groups[self.train_index], self.groups[self.test_index]).size:
            raise InputError(f"{self.path} is damaged: a group stands on both sides of its split{again}")
        for start in range(0, n, 4096):
            bad = ~np.isfinite(self.X[start : start + 4096])
            if bad.any():
                row, column = np.argwhere(bad)[0]
                raise InputError(
                    f"{self.path} holds NaN or infinity in X, the first at sample {start + row}, column {column}{again}"
                )
        if not np.isfinite(self.y.astype(np.float64)).all():
            row = int(np.flatnonzero(~np.isfinite(self.y))[0])
            raise InputError(f"{self.path} holds a target that is NaN or infinite, at sample {row}{again}")

    @property
    def name(self) -> str:
        """The file's stem."""
        return self.path.stem

    @property
    def strategy(self) -> Strategy:
        """The question that the data set was made for."""
        return find_strategy(str(self.arrays["meta_strategy"]))

    @property
    def y(self) -> npt.NDArray[Any]:
        """Targets, [N]: grades (int64) or activations (float32)."""
        return self.arrays["y"]

    @property
    def groups(self) -> npt.NDArray[np.uint64]:
        """The hash of each sample's group, uint64 [N]."""
        return self.arrays["meta_groups"]

    @property
    def grades(self) -> npt.NDArray[np.int64]:
        """The grade of each sample's item, int64 [N]."""
        return self.arrays["meta_grades"]

    @property
    def items(self) -> npt.NDArray[np.int64]:
        """The item that each sample comes from, int64 [N]."""
        return self.arrays["meta_sentence_indices"]

    @property
    def train_index(self) -> npt.NDArray[np.int64]:
        """Samples to train on, ascending."""
        return self.arrays["train_index"]

    @property
    def test_index(self) -> npt.NDArray[np.int64]:
        """Samples to test on, ascending."""
        return self.arrays["test_index"]

    @cached_property
    def scaler(self) -> Scaler:
        """The scaler that was fitted on the training samples and applied to ``X``."""
        method = find_normalization(str(self.arrays["norm_method"]))
        width = self.X.shape[1]
        keys = NORM_KEYS[method]
        if not keys:
            return Scaler(method, np.zeros(width), np.ones(width))
        lacking = [key for key in keys if key not in self.arrays or self.arrays[key].shape != (width,)]
        if lacking:
            raise InputError(
                f"{self.path} is damaged: {lacking[0]} is missing or not of {width} columns; prepare it again."
            )
        return Scaler(method, self.arrays[keys[0]], self.arrays[keys[1]])

    def raw(self) -> npt.NDArray[np.float32]:
        """Return the inputs as they were recorded, float32 [N, D] (scaling undone, to rounding)."""
        return np.asarray(self.scaler.undo(np.asarray(self.X)), dtype=np.float32)

    @property
    def folds(self) -> list[Fold] | None:
        """The folds that were fixed when the data set was prepared (positions in ``train_index``), or None.

        They are fixed where columns were chosen by looking at the labels: each fold chose its own.
        """
        if "meta_fold_of" not in self.arrays:
            return None
        fold_of = self.arrays["meta_fold_of"]
        return [
            Fold(np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(fold_of.max() + 1)
        ]

    def columns(self, fold: int | None = None) -> npt.NDArray[np.int64] | None:
        """Return the columns that ``fold`` (None: the whole training part) chose, or None where all are used."""
        if "meta_chosen_columns" not in self.arrays:
            return None
        chosen = self.arrays["meta_chosen_columns"]
        return np.flatnonzero(chosen[0 if fold is None else fold + 1])

    def data_hash(self) -> str:
        """Return the SHA-256 of the file."""
        return sha256_of(self.path)

    def metadata(self) -> dict[str, Any]:
        """Return the short ``meta_*`` entries as plain Python values (long ones are left out)."""
        skip = {"meta_sentence_indices", "meta_groups", "meta_grades", "meta_fold_of", "meta_chosen_columns"}
        found: dict[str, Any] = {}
        for key, array in self.arrays.items():
            if key.startswith("meta_") and key not in skip and key != "meta_row_indices":
                value = array.tolist()
                # A recording without a figure has NaN there, which JSON does not know.
                found[key.removeprefix("meta_")] = None if isinstance(value, float) and value != value else value
        return found


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    ours = "a probe data set is an .npz that `conceptatlas probe prepare` made"
    try:
        loaded = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}; check the path ({ours}).") from error
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as an .npz file; {ours}.") from error
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise InputError(f"{path} is a single array and not an .npz file; {ours}.")
    with loaded:
        try:
            found = {name: loaded[name] for name in loaded.files if name != "X"}
            if "X" in loaded.files:
                mapped = _map_member(path, "X.npy")
                found["X"] = loaded["X"] if mapped is None else mapped
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is damaged or holds pickled objects ({error}); {ours}.") from error
    return found


def _map_member(path: Path, name: str) -> npt.NDArray[Any] | None:
    """Memory-map an array that stands uncompressed in a zip; None where it is compressed (and must be read)."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        return None
    with path.open("rb") as handle:
        # The local header repeats name and extra field with lengths of its own (bytes 26-30): zip format, 4.3.7.
        handle.seek(info.header_offset + 26)
        handle.seek(sum(struct.unpack("<HH", handle.read(4))), 1)
        version = np.lib.format.read_magic(handle)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(handle)
        start = handle.tell()
        handle.seek(0, 2)
        if dtype.hasobject or fortran or 0 in shape:
            return None
        if handle.tell() < start + dtype.itemsize * int(np.prod(shape)):
            raise ValueError("X is cut short")
    return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape)
