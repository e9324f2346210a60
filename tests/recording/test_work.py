"""Pieces in the work folder, also when two processes write the same one."""

from __future__ import annotations

import numpy as np
import pytest

from conceptatlas.base.errors import WorkError
from conceptatlas.base.files import TEMP_PREFIX, sha256_of
from conceptatlas.recording import work as module
from conceptatlas.recording.files import NpyStream
from conceptatlas.recording.work import WorkFolder, load_piece_array

ARRAYS = {"rows.npy": np.arange(1000, dtype=np.int32), "values.npy": np.linspace(0, 1, 1000, dtype=np.float32)}


@pytest.fixture
def work(tmp_path):
    return WorkFolder(tmp_path / "rec")


def is_whole(work):
    folder = work.piece_folder(0, "sae-x")
    checks = work.read_piece(0, "sae-x")["files"]
    return {path.name for path in folder.iterdir() if not path.name.startswith(TEMP_PREFIX)} == set(ARRAYS) and all(
        sha256_of(folder / name) == checks[name]["sha256"] for name in ARRAYS
    )


def test_a_piece_is_there_when_its_json_file_is(work):
    assert not work.has_piece(0, "sae-x")
    work.write_piece(0, "sae-x", ARRAYS, {"nnz": 3})
    assert work.has_piece(0, "sae-x")
    assert work.read_piece(0, "sae-x")["nnz"] == 3
    assert is_whole(work)
    assert not list(work.recording.rglob(f"{TEMP_PREFIX}*"))
    assert (load_piece_array(work.piece_folder(0, "sae-x"), "rows.npy") == ARRAYS["rows.npy"]).all()


@pytest.mark.parametrize("fails", [False, True])
def test_a_second_writer_never_spoils_the_piece_of_the_first(work, monkeypatch, fails):
    plain, seen = NpyStream.append, []

    def halfway(stream, array):
        plain(stream, array)
        seen.append(is_whole(work))
        if fails and len(seen) == 2:
            raise OSError(28, "No space left on device")

    work.write_piece(0, "sae-x", ARRAYS, {"nnz": 3})
    monkeypatch.setattr(module.NpyStream, "append", halfway)
    if fails:
        with pytest.raises(WorkError, match="No space left on device"):
            work.write_piece(0, "sae-x", ARRAYS, {"nnz": 3})
    else:
        work.write_piece(0, "sae-x", ARRAYS, {"nnz": 3})
    assert seen == [True, True]
    assert is_whole(work)
    assert not list(work.recording.rglob(f"{TEMP_PREFIX}*"))


def test_what_a_killed_writer_left_is_cleared(work):
    work.write_piece(0, "sae-x", ARRAYS, {"nnz": 3})
    left = work.piece_folder(0, "sae-x") / f"{TEMP_PREFIX}rows.npy-0a1b2c3d"
    left.write_bytes(b"half")
    work.clean_partial()
    assert not left.exists()
    assert is_whole(work)
