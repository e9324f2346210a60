"""``verify`` names what is damaged, and only that."""

from __future__ import annotations

import json

import numpy as np
import pytest

from conceptatlas.recording import Recording, verify
from conceptatlas.recording.files import write_array
from conceptatlas.recording.manifest import Manifest, seal_recording
from tests.helpers.cli import invoke
from tests.helpers.recordings import write_synthetic_recording


@pytest.fixture
def rec(tmp_path):
    generator = np.random.default_rng(0)
    dense = generator.normal(size=(12, 7)) * (generator.random((12, 7)) < 0.5)
    return write_synthetic_recording(
        tmp_path / "rec",
        {"a": dense, "b": dense},
        [0, 1, 3],
        [3, 4, 5],
        hidden={"embed": generator.normal(size=(3, 6))},
    )


def resealed(rec, name, array):
    """Replace an array and its checksum: what the checksums cannot see must still be seen."""
    check = write_array(rec.path / "features" / "a" / name, array)
    manifest = rec.manifest.model_dump(mode="json")
    manifest["saes"][0]["checksum"][name] = check.model_dump()
    seal_recording(rec.path, Manifest.model_validate(manifest))
    return Recording.open(rec.path)


def test_nothing_is_wrong(rec):
    assert verify(rec) == []


def test_one_flipped_bit(rec):
    path = rec.path / "features" / "b" / "values.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found = verify(rec)
    assert [problem.file for problem in found] == ["features/b/values.npy"]
    assert "checksum differs" in found[0].problem


@pytest.mark.parametrize("name", ["items.parquet", "rows.parquet", "hidden/embed.npy", "features/a/indptr.npy"])
def test_missing_and_short_files(rec, name):
    path = rec.path / name
    path.write_bytes(path.read_bytes()[:-1])
    assert [problem.file for problem in verify(rec)] == [name]
    path.unlink()
    found = verify(rec)
    assert [(problem.file, problem.problem) for problem in found] == [(name, "is missing")]


def test_what_checksums_do_not_see(rec):
    rows = np.array(rec.columns("a").rows)
    values = np.array(rec.columns("a").values)
    swapped = rows.copy()
    swapped[[0, 1]] = rows[[1, 0]]
    found = verify(resealed(rec, "rows.npy", swapped))
    assert "is not sorted within a feature" in found[0].problem
    outside = rows.copy()
    outside[-1] = 12
    assert "names rows outside 0 to 11" in verify(resealed(rec, "rows.npy", outside))[0].problem
    again = resealed(rec, "rows.npy", rows)
    holed = values.copy()
    holed[2] = np.nan
    assert "not finite" in verify(resealed(again, "values.npy", holed))[0].problem


def test_sorted_across_chunks(rec, monkeypatch):
    from conceptatlas.recording import verifier

    for chunk in (1, 2, 3, 5):
        monkeypatch.setattr(verifier, "_CHUNK", chunk)
        assert verify(rec) == []


def test_command(rec):
    outcome = invoke("verify", rec.path)
    assert outcome.code == 0
    assert "is as it was written: 10 files" in outcome.stdout
    path = rec.path / "features" / "a" / "values.npy"
    path.write_bytes(path.read_bytes()[:-4])
    outcome = invoke("verify", rec.path)
    assert outcome.code == 1
    assert "features/a/values.npy has" in outcome.stderr
    assert json.loads(invoke("verify", rec.path, "--json").stdout)[0]["file"] == "features/a/values.npy"
    assert invoke("verify", rec.path / "nothing").code == 2
