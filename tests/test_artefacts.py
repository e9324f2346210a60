"""Every kind of artefact that needs no model: what its readers make of a flipped bit, and what commands may not replace."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import conceptatlas as ca
from conceptatlas.base.artefact import SEAL_FILE, open_sealed
from conceptatlas.base.errors import ConceptAtlasError
from conceptatlas.base.kinds import FORMAT_PREFIX, KINDS
from conceptatlas.probes import sweep_probes
from conceptatlas.recording import Recording, export
from tests.helpers.cli import invoke
from tests.views.studies import write_study


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_study(tmp_path_factory.mktemp("made"), 60, baselines=False, permutations=20, resplits=0)
    rec = Recording.open(folder / "rec")
    ca.trace(folder / "rank", rec, folder / "trace", top_n=1, labels=[3], max_sentences=1, dpi=30)
    sweep_probes(rec, folder / "probe")
    export(rec, folder / "npz")
    shutil.copytree(folder / "rank", folder / "other")
    ca.compare_concepts([folder / "rank", folder / "other"], [rec, rec], folder / "compare", top=1)
    return folder


def kind_of(folder: Path):
    return KINDS[json.loads((folder / SEAL_FILE).read_text())["format"].removeprefix(FORMAT_PREFIX)]


@pytest.mark.parametrize("name", ["rec", "rank", "trace", "probe", "npz", "compare"])
def test_a_flipped_bit_in_any_file_is_noticed(made: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    shutil.copytree(made / name, folder)
    kind, rng = kind_of(folder), np.random.default_rng(0)
    open_sealed(kind, folder)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    if name == "rec":
        files.remove(folder / "run.json")  # the fixture writes it by hand, after the seal
    for path in files:
        whole = path.read_bytes()
        content = bytearray(whole)
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        with pytest.raises(ConceptAtlasError, match=r"damaged|holds|version"):
            open_sealed(kind, folder)
        path.write_bytes(whole)
    open_sealed(kind, folder)


def test_readers_notice_a_flipped_bit_in_the_arrays_they_read(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "rec", tmp_path / "rec")
    paths = sorted((tmp_path / "rec").rglob("*.npy"))
    for path in [next(p for p in paths if p.name == name) for name in ("indptr.npy", "rows.npy", "values.npy")]:
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        for command in (("rank", "--permutations", 0), ("export",)):
            outcome = invoke(command[0], tmp_path / "rec", "--out", tmp_path / "out", *command[1:])
            assert outcome.code == 1
            assert f"{path} is damaged (its checksum differs from what was written); record again" in outcome.stderr
            assert not (tmp_path / "out").exists()
        path.write_bytes(whole)


def test_the_same_content_has_the_same_id(made: Path, tmp_path: Path) -> None:
    rec = Recording.open(made / "rec")
    ca.trace(made / "rank", rec, tmp_path / "trace", top_n=1, labels=[3], max_sentences=1, dpi=30)
    export(rec, tmp_path / "npz")
    sweep_probes(rec, tmp_path / "probe")
    for name in ("trace", "npz", "probe"):
        assert (tmp_path / name / SEAL_FILE).read_bytes() == (made / name / SEAL_FILE).read_bytes(), name


def test_commands_replace_no_input(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "s"
    shutil.copytree(made, folder)
    data = tmp_path / "d.csv"
    data.write_text("sentence,concept_strength_label\na,0\nb,3\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.chdir(folder)
    for command in (
        ("check", data, "--plot", data),
        ("report", "rec", "--out", "rec/manifest.json"),
        ("report", "rec", "--out", "/dev/null"),
        ("rank", "rec", "--out", ""),
        ("rank", "rec", "--out", "rec"),
        ("rank", "rec", "--out", "rec/features"),
        ("rank", "rec", "--out", "trace"),
        ("rank", "rec", "--out", "/dev/null"),
        ("effect", "rank", "--rec", "rec", "--out", "rank"),
        ("trace", "rank", "--rec", "rec", "--out", "rank"),
        ("trace", "rank", "--rec", "rec", "--out", "."),
        ("export", "rec", "--out", "rank"),
        ("probe", "sweep", "--rec", "rec", "--out", "rank"),
        ("probe", "prepare", "--strategy", "hidden-to-concept", "--rec", "rec", "--out", "rec/hidden/x.npz"),
        ("compare-rankings", "rank", "other", "--rec", "rec", "--rec", "rec", "--out", "rank"),
        ("label", "--features", "rank", "--dataset", data, "--column", "sentence", "--output-dir", "rank"),
        ("images", "demo", "--out", "rank"),
        ("prompts", "universal", "--prompts-path", data, "--source", "organism", "--universal-output", data),
    ):
        outcome = invoke(*command)
        assert outcome.code == 2, (command, outcome.stderr)
        assert "choose " in outcome.stderr or "give " in outcome.stderr or "name another" in outcome.stderr, (
            outcome.stderr
        )
        assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}, command
