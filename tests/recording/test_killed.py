"""Killed at any moment and run again, a recording has the bytes of one that was not disturbed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from conceptatlas.base.errors import InputError, WorkError
from conceptatlas.base.lock import folder_lock
from conceptatlas.recording import Recording, verify
from tests.recording import killable

MOMENTS = 20


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "tests.recording.killable",
            "conceptatlas.recording.recorder",
            "conceptatlas.recording.engines",
            "conceptatlas.recording.finish",
            "conceptatlas.recording.prepare",
            "conceptatlas.subjects.language",
            "transformers.models.gemma2.modeling_gemma2",
            "transformers.models.auto.modeling_auto",
            "transformers.models.auto.tokenization_auto",
        ]
    )
    return context


def recorded(gemma, folder, keep):
    killable.job(gemma, folder, keep)
    assert len(Recording.open(folder).manifest.plan.shards) == 5
    return contents(folder)


@pytest.fixture(scope="module")
def undisturbed(gemma, tmp_path_factory):
    return recorded(gemma, tmp_path_factory.mktemp("undisturbed") / "rec", "all")


@pytest.fixture(scope="module")
def undisturbed_top(gemma, tmp_path_factory):
    return recorded(gemma, tmp_path_factory.mktemp("undisturbed") / "rec", "top")


def start(processes, model, out, kill_at=-1, keep="all"):
    return start_target(processes, killable.run, model, out, kill_at, keep)


def start_target(processes, target, model, out, *arguments):
    ours, theirs = processes.Pipe()
    process = processes.Process(target=target, args=(str(model), out, theirs, *arguments))
    process.start()
    theirs.close()
    heard(ours)
    return process, ours


def heard(pipe):
    assert pipe.poll(60)
    return pipe.recv()


@pytest.mark.slow
def test_killed_at_random_moments(processes, gemma, gemma_path, undisturbed, tmp_path):
    whole = 60.0
    for warm in range(2):
        process, pipe = start(processes, gemma_path, tmp_path / f"timed{warm}")
        begin = time.perf_counter()
        process.join()
        whole = min(whole, time.perf_counter() - begin)
    killed = 0
    for moment, share in enumerate(np.random.default_rng(0).uniform(0, 1, MOMENTS)):
        out = tmp_path / f"rec{moment}"
        process, pipe = start(processes, gemma_path, out)
        time.sleep(share * whole)
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        killable.job(gemma, out)
        assert contents(out) == undisturbed
        pipe.close()
    assert killed >= MOMENTS // 2


@pytest.mark.slow
def test_killed_at_changes_of_the_disk(processes, gemma, gemma_path, undisturbed, tmp_path):
    process, pipe = start(processes, gemma_path, tmp_path / "counted", kill_at=10**9)
    changes = pipe.recv()
    process.join()
    assert changes > 100
    moments = np.random.default_rng(1).choice(changes, MOMENTS // 4, replace=False)
    for moment in [*sorted(moments.tolist()), changes - 1]:
        out = tmp_path / f"rec{moment}"
        process, pipe = start(processes, gemma_path, out, kill_at=moment)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        killable.job(gemma, out)
        assert contents(out) == undisturbed
        assert verify(Recording.open(out)) == []


@pytest.mark.slow
def test_killed_while_summaries_are_folded(processes, gemma, gemma_path, undisturbed_top, tmp_path):
    process, pipe = start(processes, gemma_path, tmp_path / "counted", kill_at=10**9, keep="top")
    changes = pipe.recv()
    process.join()
    assert contents(tmp_path / "counted") == undisturbed_top
    for moment in np.linspace(0, changes - 1, MOMENTS).astype(int).tolist():
        out = tmp_path / f"rec{moment}"
        process, pipe = start(processes, gemma_path, out, kill_at=moment, keep="top")
        process.join()
        assert process.exitcode == -signal.SIGKILL
        killable.job(gemma, out, "top")
        assert contents(out) == undisturbed_top
        pipe.close()


def test_what_was_done_is_not_done_again(processes, gemma, gemma_path, undisturbed, tmp_path, monkeypatch):
    from conceptatlas.recording import shard

    out = tmp_path / "rec"
    process, _ = start(processes, gemma_path, out, kill_at=60)
    process.join()
    done = len(list((out / ".work").glob("shard-*/sae-*.json")))
    assert done > 0
    encoded = []
    plain = shard.encode_states
    monkeypatch.setattr(shard, "encode_states", lambda *a, **k: (encoded.append(1), plain(*a, **k))[1])
    killable.job(gemma, out)
    assert len(encoded) == 10 - done
    assert contents(out) == undisturbed


def test_two_real_processes_on_one_recording(processes, gemma_path, undisturbed, tmp_path):
    out = tmp_path / "rec"
    first, pipe = start_target(processes, killable.run_paused, gemma_path, out, 30)
    try:
        assert heard(pipe) == "paused"
        before = contents(out)
        second, other = start_target(processes, killable.run_second, gemma_path, out)
        assert heard(other) == (
            f"Another process is writing into {out}; wait until it has finished, or choose another folder."
        )
        second.join()
        assert contents(out) == before
        pipe.send("go on")
        assert heard(pipe) == "done"
        first.join()
    finally:
        first.kill()  # where something went wrong it would wait for ever
    assert contents(out) == undisturbed
    assert verify(Recording.open(out)) == []


def test_the_lock_ends_with_the_block(gemma, tmp_path):
    out = tmp_path / "rec"
    out.mkdir()
    with folder_lock(out), pytest.raises(InputError, match=r"Another process is writing into .*rec"):
        killable.job(gemma, out)
    killable.job(gemma, out)
    assert not (out / ".lock").exists()


def test_a_full_disk_loses_nothing(gemma, undisturbed, tmp_path, monkeypatch):
    from conceptatlas.recording import work

    plain, calls = work._write_piece_file, []

    def full(path, array):
        calls.append(path)
        if len(calls) > 9:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return plain(path, array)

    monkeypatch.setattr(work, "_write_piece_file", full)
    with pytest.raises(WorkError, match=r"No space left on device; free some space and run the same command again"):
        killable.job(gemma, tmp_path / "rec")
    monkeypatch.undo()
    killable.job(gemma, tmp_path / "rec")
    assert contents(tmp_path / "rec") == undisturbed
