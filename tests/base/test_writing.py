"""Writing an artefact: what it may replace, what a kill leaves, and what two processes do."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from conceptatlas.base.artefact import open_sealed
from conceptatlas.base.errors import InputError, WorkError
from conceptatlas.base.files import write_text
from conceptatlas.base.kinds import EFFECTS, LABELS, RANKING, SWEEP, TRACE, Kind
from conceptatlas.base.provenance import write_run
from conceptatlas.base.writing import may_replace, writing
from tests.helpers.kills import count_changes

OLD = {"ranked_features.csv": "old", "same.txt": "same", "below/gone.txt": "old", "deep/er/gone.txt": "old"}
NEW = {"ranked_features.csv": "new", "same.txt": "same", "below/new.txt": "new", "new.txt": "new"}


def make(folder: Path, files: dict[str, str], kind: Kind = RANKING) -> Path:
    with writing(kind, folder) as staging:
        for name, text in files.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            write_text(staging / name, text)
        write_run(staging, command="test", options={})
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text("latin-1")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "artefact.json")
    }


def fail(staging: Path) -> None:
    write_text(staging / "half.txt", "half")
    raise ZeroDivisionError


def test_an_artefact_takes_the_place_of_an_earlier_one(tmp_path):
    folder = make(tmp_path / "a" / "b", OLD)
    (folder / "notes.txt").write_text("mine")
    make(folder, NEW)
    assert contents(folder) == NEW | {"notes.txt": "mine"}
    assert not (folder / "deep").exists()
    open_sealed(RANKING, folder)


def test_a_block_that_fails_leaves_what_was_there(tmp_path):
    folder = make(tmp_path / "out", OLD)
    for place in (folder, tmp_path / "new" / "er"):
        with pytest.raises(ZeroDivisionError), writing(RANKING, place) as staging:
            fail(staging)
    assert contents(folder) == OLD
    open_sealed(RANKING, folder)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_one_sentence(tmp_path, code):
    with pytest.raises(WorkError, match=r"Cannot write .*out: .*; free some space"), writing(RANKING, tmp_path / "out"):
        raise OSError(code, os.strerror(code))
    with pytest.raises(PermissionError), writing(RANKING, tmp_path / "out"):
        raise PermissionError(errno.EACCES, "no", "/somewhere/else")


# What may be replaced -------------------------------------------------------------------------------------------------


def refused(folder: Path, match: str, kind: Kind = EFFECTS, **inputs: Path) -> None:
    before = contents(folder) if folder.is_dir() else None
    with pytest.raises(InputError, match=match), writing(kind, folder, inputs):
        raise AssertionError("the block was entered")
    assert (contents(folder) if folder.is_dir() else None) == before


def test_what_an_artefact_may_not_replace(tmp_path, monkeypatch):
    rank = make(tmp_path / "rank", OLD)
    refused(rank, "holds conceptatlas-ranking, which conceptatlas-effects may not replace")
    refused(rank, "is an input of this command", RANKING, ranking=rank)
    (tmp_path / "link").symlink_to(rank)
    refused(tmp_path / "link", "is an input of this command", RANKING, ranking=rank)
    refused(rank / "below", "is a part of the artefact in .*rank")
    refused(rank / "below" / "new", "is a part of the artefact in .*rank")
    refused(tmp_path, r"holds other files \(link, rank\) and no effects; choose a new or empty folder")
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "is a file, and a folder is needed")
    refused(Path("/dev/null"), "is no folder, and a folder is needed")
    old = Path(__file__).parents[1] / "data" / "recording_v1"
    refused(old, r"holds other files \(features, hidden, items.parquet, …\) and no effects")
    monkeypatch.chdir(tmp_path / "rank")
    for name in ("", "."):
        refused(Path(name), "The output is the current folder", RANKING)


def test_what_an_artefact_may_replace(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden").touch()
    make(tmp_path / "empty", NEW)
    make(tmp_path / "empty" / "inside", NEW, TRACE)  # a folder of its own, beside the files of the other
    open_sealed(RANKING, tmp_path / "empty")
    before = tmp_path / "before"  # made before seals
    before.mkdir()
    (before / "feature_labels.json").touch()
    make(before, NEW, LABELS)
    probes = tmp_path / "probes"
    (probes / "v1_first").mkdir(parents=True)
    make(probes, NEW, SWEEP)
    damaged = make(tmp_path / "damaged", OLD)
    (damaged / "artefact.json").write_text("{")
    make(damaged, NEW)
    open_sealed(RANKING, damaged)


def test_what_a_file_may_not_replace(tmp_path, monkeypatch):
    rank = make(tmp_path / "rank", OLD)
    data = tmp_path / "data.csv"
    data.write_text("a")
    (tmp_path / "link.csv").symlink_to(data)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "sealed").symlink_to(rank / "same.txt")
    for path, match in (
        (data, "is an input of this command"),
        (tmp_path / "link.csv", "is an input of this command"),
        (tmp_path, "is a folder, and a file is to be written"),
        (Path("/dev/null"), "is a device or another special file"),
        (tmp_path / "pipe", "is a device or another special file"),
        (rank / "same.txt", "is a part of the artefact in .*rank"),
        (rank / "artefact.json", "is a part of the artefact in .*rank"),
        (rank / "run.json", "is a part of the artefact in .*rank"),
        (tmp_path / "sealed", "is a part of the artefact in .*rank"),
        (rank / "below" / "x.html", "is a part of the artefact in .*rank"),
    ):
        with pytest.raises(InputError, match=match):
            may_replace(path, (), [data, "builtin:dishonesty", None])
    with pytest.raises(InputError, match=r"is there already, and is no \.html file"):
        may_replace(data, (".html",))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is a folder"):
        may_replace("")


def test_what_a_file_may_replace(tmp_path):
    rank = make(tmp_path / "rank", OLD)
    for path in (tmp_path / "a/b/c.html", rank / "report.html"):
        assert may_replace(path, (".html",), [rank]) == path
        assert path.parent.is_dir()
        path.write_text("x")
        assert may_replace(str(path), (".html",)) == path


# Kills and other processes --------------------------------------------------------------------------------------------


def write_until(folder: str, files: dict[str, str], kill_at: int, told) -> None:
    """Write an artefact; die by SIGKILL before the so-manieth change of the disk."""
    count = count_changes(kill_at)
    make(Path(folder), files)
    told.put(count())


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.base.test_writing"])
    return context


def killed(processes, folder: Path, files: dict[str, str], kill_at: int):
    told = processes.SimpleQueue()
    process = processes.Process(target=write_until, args=(str(folder), files, kill_at, told))
    process.start()
    process.join()
    return process.exitcode, None if told.empty() else told.get()


@pytest.mark.slow
def test_killed_at_every_change_of_the_disk(processes, tmp_path):
    """Killed while it overwrites: the old one whole, or a refusal that says what to do; and then the new one, alone."""
    whole = make(tmp_path / "whole", NEW)
    exitcode, changes = killed(processes, make(tmp_path / "counted", OLD), NEW, -1)
    assert exitcode == 0
    assert changes > 20
    seen = set()
    for moment in range(changes):
        folder = make(tmp_path / f"out{moment}", OLD)
        (folder / "notes.txt").write_text("mine")
        exitcode, _ = killed(processes, folder, NEW, moment)
        assert exitcode == -signal.SIGKILL
        found = {name: text for name, text in contents(folder).items() if not name.startswith(".")}
        if (folder / "artefact.json").exists():
            open_sealed(RANKING, folder)
            assert found in (OLD | {"notes.txt": "mine"}, NEW | {"notes.txt": "mine"})
            seen.add(found["ranked_features.csv"])
        else:
            with pytest.raises(InputError) as refusal:
                open_sealed(RANKING, folder)
            assert str(refusal.value) == (
                f"The ranking in {folder} was not finished; run `conceptatlas rank REC --out {folder}` again."
            )
            seen.add("refused")
        if moment % 3 == 0:  # what failed in between changes nothing
            with pytest.raises(ZeroDivisionError), writing(RANKING, folder) as staging:
                fail(staging)
        make(folder, NEW)
        assert contents(folder) == NEW | {"notes.txt": "mine"}
        assert (folder / "artefact.json").read_bytes() == (whole / "artefact.json").read_bytes()
        assert sorted(path.name for path in folder.iterdir()) == sorted([*os.listdir(whole), "notes.txt"])  # noqa: PTH208
    assert seen == {"old", "refused", "new"}


@pytest.mark.slow
def test_killed_twice(processes, tmp_path):
    """A second kill loses nothing of what the first left: no file of any of the three stays that is not the last one's."""
    third = {"ranked_features.csv": "third"}
    for first in range(8, 60, 4):
        for second in range(8, 40, 6):
            folder = make(tmp_path / f"out{first}-{second}", OLD)
            killed(processes, folder, NEW, first)
            killed(processes, folder, third | {"x/y.txt": "third"}, second)
            make(folder, third)
            assert contents(folder) == third


def hold(folder: str, told, go) -> None:
    with writing(RANKING, folder) as staging:
        write_text(staging / "ranked_features.csv", "first")
        told.put("writing")
        go.get()


def test_two_processes_do_not_mix(processes, tmp_path):
    folder = tmp_path / "out"
    told, go = processes.SimpleQueue(), processes.SimpleQueue()
    process = processes.Process(target=hold, args=(str(folder), told, go))
    process.start()
    try:
        assert told.get() == "writing"
        refused(folder, "Another process is writing into .*out; wait until it has finished", RANKING)
        go.put("on")
        process.join()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    assert contents(folder) == {"ranked_features.csv": "first"}
    make(folder, NEW)
    assert contents(folder) == NEW
