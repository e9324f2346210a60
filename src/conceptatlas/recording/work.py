"""The work folder of an unfinished recording: what each shard has left so far.

``REC/.work/`` holds ``plan.json`` (what is being done, to be compared when the work is taken up again), per shard
``shard-00000/`` with a folder of arrays and then a JSON file of the same name for every finished piece,
``folded/<slug>.json`` which says up to which shard an SAE's summaries have been folded (``--keep top``), and
``merged/<slug>.json`` for every SAE whose shards have been joined. The JSON file is written last and atomically: a
piece is there if and only if its JSON file is.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from conceptatlas.base.errors import WorkError
from conceptatlas.base.files import TEMP_PREFIX, read_json, write_json
from conceptatlas.recording.files import HashingFile, NpyStream
from conceptatlas.recording.manifest import FileCheck

WORK_FOLDER = ".work"
PLAN_FILE = "plan.json"
HIDDEN_PIECE = "hidden"
FOLD_PREFIX = "fold-"
SAE_PREFIX = "sae-"  # so that no slug can be called like another piece


def pooled_piece_file(how: str, site: str) -> str:
    """Return the name, in the piece of the hidden states, of those of a site pooled over each item's rows."""
    return f"{how}-{site}.npy"


def _write_piece_file(path: Path, array: npt.NDArray[Any]) -> FileCheck:
    """Write an array; the piece's JSON file, written later, says that it is whole.

    Two workers may be at one piece, one of them given up for dead: each writes a file of its own, of the same bytes.
    """
    begun = path.with_name(f"{TEMP_PREFIX}{path.name}-{secrets.token_hex(4)}")
    try:
        with begun.open("xb") as handle:
            stream = NpyStream(HashingFile(handle), array.dtype, array.shape)
            stream.append(array)
            check = stream.finish()
            handle.flush()
            begun.replace(path)
            os.fsync(handle.fileno())  # after the rename, so that one wait makes bytes and name durable
    except BaseException:
        begun.unlink(missing_ok=True)
        raise
    return check


class WorkFolder:
    """``REC/.work``, written by the shards and read by the merge. Safe to use from several processes."""

    def __init__(self, recording: Path) -> None:
        self.recording = recording
        self.path = recording / WORK_FOLDER

    @property
    def plan_path(self) -> Path:
        """Where the plan stands."""
        return self.path / PLAN_FILE

    def shard_folder(self, shard: int) -> Path:
        """Return the folder of a shard."""
        return self.path / f"shard-{shard:05d}"

    def piece_folder(self, shard: int, piece: str) -> Path:
        """Return the folder of a piece's arrays."""
        return self.shard_folder(shard) / piece

    def has_piece(self, shard: int, piece: str) -> bool:
        """Whether a piece is whole."""
        return (self.shard_folder(shard) / f"{piece}.json").exists()

    def read_piece(self, shard: int, piece: str) -> dict[str, Any]:
        """Return what the piece's JSON file says."""
        found: dict[str, Any] = read_json(self.shard_folder(shard) / f"{piece}.json")
        return found

    def write_piece(
        self, shard: int, piece: str, arrays: Mapping[str, npt.NDArray[Any]], facts: Mapping[str, Any]
    ) -> None:
        """Write a piece: its arrays (file name → array), then its JSON file with ``facts`` and the arrays' checks.

        Raises:
            WorkError: The disk is full, or cannot be written.
        """
        folder = self.piece_folder(shard, piece)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            checks = {name: _write_piece_file(folder / name, array).model_dump() for name, array in arrays.items()}
        except OSError as error:
            raise WorkError(
                f"Cannot write {folder}: {error.strerror}; free some space and run the same command again to go on."
            ) from error
        write_json(self.shard_folder(shard) / f"{piece}.json", {**facts, "files": checks})

    def drop_piece_arrays(self, shard: int, piece: str) -> None:
        """Remove a piece's arrays (they stand in the recording now)."""
        shutil.rmtree(self.piece_folder(shard, piece), ignore_errors=True)

    def drop_piece(self, shard: int, piece: str) -> None:
        """Remove a piece: first what says that it is there, then its arrays."""
        (self.shard_folder(shard) / f"{piece}.json").unlink(missing_ok=True)
        self.drop_piece_arrays(shard, piece)

    def _folded_path(self, slug: str) -> Path:
        return self.path / "folded" / f"{slug}.json"

    def last_folded(self, slug: str) -> int:
        """Return the last shard whose summary of an SAE is in the fold, −1 where none is."""
        path = self._folded_path(slug)
        return int(read_json(path)["shard"]) if path.exists() else -1

    def set_last_folded(self, slug: str, shard: int) -> None:
        """Write down that the fold of an SAE is the piece of this shard now."""
        path = self._folded_path(slug)
        path.parent.mkdir(exist_ok=True)
        write_json(path, {"shard": shard})

    def merged_path(self, slug: str) -> Path:
        """Where it stands that an SAE's shards have been joined, and what came out."""
        return self.path / "merged" / f"{slug}.json"

    def clean_partial(self) -> None:
        """Remove half-written files that a killed run left behind, in the whole recording."""
        for path in sorted(self.recording.rglob(f"{TEMP_PREFIX}*")):
            if not path.is_dir():
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the work folder."""
        shutil.rmtree(self.path, ignore_errors=True)


def as_file_checks(found: Mapping[str, Mapping[str, Any]]) -> dict[str, FileCheck]:
    """Return the checks that a piece's JSON file holds."""
    return {name: FileCheck.model_validate(check) for name, check in found.items()}


def load_piece_array(folder: Path, name: str) -> npt.NDArray[Any]:
    """Memory-map an array of a piece."""
    try:
        array = np.load(folder / name, mmap_mode="r", allow_pickle=False)
    except ValueError:  # NumPy cannot map an array without elements
        array = np.load(folder / name, allow_pickle=False)
    except OSError as error:
        raise WorkError(
            f"Cannot read {folder / name}: {error.strerror}; remove the recording's folder and record again."
        ) from error
    return array
