"""Artefacts: what the seal says, what it notices, and what stays the same between runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conceptatlas.base import checksums
from conceptatlas.base.artefact import identity, open_sealed, read_seal
from conceptatlas.base.errors import InputError, WorkError
from conceptatlas.base.files import sha256_of, write_json, write_text
from conceptatlas.base.kinds import KINDS, RANKING, RECORDING, TRACE, Kind, _declare
from conceptatlas.base.provenance import write_run
from conceptatlas.base.writing import writing

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONCEPTATLAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / checksums.CACHE_FILE


def make(folder: Path, kind: Kind = RANKING, *, seconds: float = 1.0, **files: str) -> Path:
    """Write an artefact of a few small files, one of them in a folder."""
    with writing(kind, folder, {"recording": "sha256:abc"}) as staging:
        (staging / "below").mkdir()
        write_text(staging / "below" / "b.txt", "b")
        write_text(staging / kind.marker, "head\n")
        for name, text in files.items():
            write_text(staging / f"{name}.txt", text)
        write_run(staging, command="rank", options={"seed": 0}, seconds=seconds)
    return folder


def test_what_is_written_is_read(tmp_path):
    folder = make(tmp_path / "out", extra="é")
    found = open_sealed(RANKING, folder)
    assert found.inputs == {"recording": "sha256:abc"}
    assert list(found.files) == ["below/b.txt", "extra.txt", "ranked_features.csv"]
    assert found.beside == ("run.json",)
    assert found.files["extra.txt"] == (2, sha256_of(folder / "extra.txt"))
    assert found.file("extra.txt").read_text() == "é"
    assert found.json("run.json")["artefact"] == found.id
    assert not list(folder.glob(".*"))
    said = json.loads((folder / "artefact.json").read_text())
    assert list(said) == ["format", "version", "inputs", "files", "beside", "id"]
    assert (said["format"], said["version"]) == ("conceptatlas-ranking", 1)


def test_equal_content_has_one_id_and_run_json_no_part_in_it(tmp_path):
    one, two = make(tmp_path / "one", seconds=1.0), make(tmp_path / "two", seconds=2.0)
    assert (one / "run.json").read_bytes() != (two / "run.json").read_bytes()
    assert (one / "artefact.json").read_bytes() == (two / "artefact.json").read_bytes()
    assert identity(one) == identity(two) == open_sealed(RANKING, one).id
    assert identity(make(tmp_path / "three", extra="x")) != identity(one)
    assert identity(make(tmp_path / "four", TRACE)) != identity(one)


def test_the_id_depends_on_inputs(tmp_path):
    found = []
    for name in "ab":
        with writing(RANKING, tmp_path / name, {"recording": name}) as staging:
            write_text(staging / "x", "x")
        found.append(identity(tmp_path / name))
    assert found[0] != found[1]


def test_an_input_is_known_by_its_content(tmp_path):
    data = tmp_path / "data.csv"
    data.write_text("a")
    with writing(TRACE, tmp_path / "out", {"ranking": make(tmp_path / "rank"), "data": data}) as staging:
        write_text(staging / "x", "x")
    inputs = read_seal(TRACE, tmp_path / "out").inputs
    assert inputs == {"data": f"sha256:{sha256_of(data)}", "ranking": identity(tmp_path / "rank")}
    old = DATA / "recording_v1"
    assert identity(old) == f"sha256:{sha256_of(old / 'manifest.json')}"
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nothing"):
        with pytest.raises(InputError, match="neither a file nor an artefact"):
            identity(path)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["below/b.txt", "ranked_features.csv", "run.json", "artefact.json"]), data=st.data())
def test_any_flipped_bit_is_noticed(tmp_path_factory, name, data):
    folder = make(tmp_path_factory.mktemp("flip") / "out")
    path = folder / name
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    with pytest.raises((WorkError, InputError)) as noticed:
        open_sealed(RANKING, folder)
    assert str(folder) in str(noticed.value)


@pytest.mark.parametrize("name", ["below/b.txt", "run.json", "ranked_features.csv"])
def test_damage_names_the_file_and_what_to_do(tmp_path, name):
    folder = make(tmp_path / "out")
    (folder / name).unlink()
    with pytest.raises(WorkError) as noticed:
        open_sealed(RANKING, folder)
    assert str(noticed.value).startswith(f"{folder / name} is damaged (")
    assert str(noticed.value).endswith(f"; run `conceptatlas rank REC --out {folder}` again.")


def test_files_of_another_run_do_not_pass(tmp_path):
    one, two = make(tmp_path / "one"), make(tmp_path / "two", extra="x")
    shutil.copy(two / "run.json", one / "run.json")
    with pytest.raises(WorkError, match=r"run\.json is damaged \(it belongs to another artefact\)"):
        open_sealed(RANKING, one)


def test_what_is_no_artefact_of_this_kind(tmp_path):
    folder = make(tmp_path / "out")
    with pytest.raises(InputError, match=r"holds conceptatlas-ranking, and conceptatlas-trace is needed"):
        open_sealed(TRACE, folder)
    with pytest.raises(InputError, match=r"no ranking in .*nothing \(no artefact\.json\); check the path, or run `"):
        open_sealed(RANKING, tmp_path / "nothing")
    seal = folder / "artefact.json"
    seal.write_text(seal.read_text().replace('"version": 1', '"version": 9'))
    with pytest.raises(InputError, match=r"of version 9, and this conceptatlas reads up to 1; update conceptatlas"):
        open_sealed(RANKING, folder)
    seal.unlink()
    with pytest.raises(InputError, match=r"has no artefact\.json: an earlier conceptatlas made it; run `"):
        open_sealed(RANKING, folder)
    for content in ("", "[1]", "{}", '{"format": "conceptatlas-ranking", "version": "x"}', "\xff"):
        seal.write_text(content, encoding="latin-1")
        with pytest.raises(WorkError, match=r"artefact\.json is damaged"):
            open_sealed(RANKING, folder)


def test_kinds_are_declared_once():
    with pytest.raises(ValueError, match="Two kinds of artefact are called 'ranking'"):
        _declare(Kind("ranking", 2, "other", "", ""))
    assert KINDS["recording"] is RECORDING
    markers = [kind.marker for kind in KINDS.values() if kind.marker]
    assert len(markers) == len(set(markers))


# The cache of checksums -----------------------------------------------------------------------------------------------


def reads_of(monkeypatch):
    read: list[Path] = []
    monkeypatch.setattr(checksums, "sha256_of", lambda path: (read.append(path), sha256_of(path))[1])
    return read


def test_what_was_just_written_is_not_read_again(tmp_path, monkeypatch, cache):
    folder = make(tmp_path / "out")
    read = reads_of(monkeypatch)
    open_sealed(RANKING, folder)
    assert read == []
    cache.unlink()
    open_sealed(RANKING, folder)
    assert len(read) == 2
    open_sealed(RANKING, folder)
    assert len(read) == 2
    shutil.copytree(folder, tmp_path / "copy")  # other files, though of the same size and time
    open_sealed(RANKING, tmp_path / "copy")
    assert len(read) == 4


def test_a_change_that_keeps_size_and_time_is_noticed(tmp_path):
    folder = make(tmp_path / "out")
    path = folder / "below" / "b.txt"
    before = path.stat()
    path.write_text("c")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(WorkError, match="checksum differs"):
        open_sealed(RANKING, folder)


def test_only_files_older_than_a_tick_of_the_clock_are_remembered(tmp_path, monkeypatch):
    """One that changes again within the tick keeps its times, and would pass for what it was."""
    slept: list[float] = []
    monkeypatch.setattr(checksums.time, "sleep", slept.append)
    path = tmp_path / "x"
    path.write_text("x")
    checksums.remember({path: sha256_of(path)})
    assert len(slept) == 1
    assert 0 < slept[0] <= 0.02
    monkeypatch.setattr(checksums.time, "time_ns", lambda: path.stat().st_ctime_ns + 21_000_000)
    checksums.remember({path: sha256_of(path)})
    assert len(slept) == 1


@pytest.mark.parametrize("trouble", ["no folder", "no home", "not a database", "a folder"])
def test_without_a_cache_everything_is_read_each_time(tmp_path, monkeypatch, cache, trouble):
    if trouble == "no folder":
        (tmp_path / "file").touch()
        monkeypatch.setenv("CONCEPTATLAS_CACHE", str(tmp_path / "file" / "x"))
    elif trouble == "no home":
        monkeypatch.delenv("CONCEPTATLAS_CACHE")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    elif trouble == "not a database":
        cache.parent.mkdir()
        cache.write_text("this is no database, not by far " * 100)
    else:
        cache.mkdir(parents=True)
    folder = make(tmp_path / "out")
    read = reads_of(monkeypatch)
    open_sealed(RANKING, folder)
    (folder / "below" / "b.txt").write_text("c")
    with pytest.raises(WorkError, match="checksum differs"):
        open_sealed(RANKING, folder)
    assert read or trouble == "not a database"  # a damaged cache is begun anew


def test_the_cache_follows_the_users_settings(monkeypatch):
    monkeypatch.setenv("CONCEPTATLAS_CACHE", "/here")
    assert checksums.user_cache_folder() == Path("/here")
    monkeypatch.delenv("CONCEPTATLAS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/there")
    assert checksums.user_cache_folder() == Path("/there/conceptatlas")


def test_the_registry_is_light():
    """Every command knows what it finds in a folder; that must not bring torch along."""
    code = "import sys, conceptatlas.base.writing; sys.exit(len({'torch', 'polars', 'sae_lens'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_seal_from_elsewhere_cannot_reach_outside(tmp_path):
    """Names in a seal come from whoever wrote it: replacing such an artefact removes nothing outside its folder."""
    outside = tmp_path / "outside.txt"
    outside.write_text("mine")
    folder = make(tmp_path / "out")
    (folder / "link").symlink_to(tmp_path)
    said = json.loads((folder / "artefact.json").read_text())
    said["files"] |= {n: {"size": 4, "sha256": ""} for n in ("../outside.txt", str(outside), "link/outside.txt")}
    write_json(folder / "artefact.json", said)
    make(folder)
    assert outside.read_text() == "mine"


def test_every_kind_is_documented():
    text = (Path(__file__).parents[2] / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    assert [name for name in KINDS if f"`conceptatlas-{name}`" not in text and f"`-{name}`" not in text] == []
