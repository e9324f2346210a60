"""Killed at any moment and run again, a training gives the weights of one that was not disturbed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training import killable
from tests.training.conftest import weights

AT_CHANGES, AT_TIMES = 3, 2
# Changes at the very end, where the work is cleared away: the last is the removal of the lock.
LAST = 3


@pytest.fixture(scope="module")
def processes() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "tests.training.killable",
            "sae_lens",
            "sae_lens.training.sae_trainer",
            "conceptatlas.concepts.builtin",
            "conceptatlas.training.run",
            "transformers.models.gemma2.modeling_gemma2",
            "transformers.models.auto.modeling_auto",
            "transformers.models.auto.tokenization_auto",
        ]
    )
    return context


@pytest.fixture(scope="module")
def undisturbed(organism, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed") / "saes"
    killable.job(out, organism)
    return weights(out)


def start(processes: Any, out: Path, kill_at: int) -> tuple[Any, Any]:
    ours, theirs = processes.Pipe()
    process = processes.Process(target=killable.run, args=(out, theirs, kill_at))
    process.start()
    theirs.close()
    assert ours.poll(120)
    ours.recv()
    return process, ours


@pytest.mark.slow
def test_killed_at_any_moment(processes, organism, undisturbed, tmp_path) -> None:
    assert len(undisturbed) == 4
    begin = time.perf_counter()
    process, pipe = start(processes, tmp_path / "whole", 10**9)
    changes = pipe.recv()
    process.join()
    whole = time.perf_counter() - begin
    assert weights(tmp_path / "whole") == undisturbed
    draws = np.random.default_rng(0)
    moments = draws.choice(changes - LAST, AT_CHANGES, replace=False).tolist()
    moments += [*range(changes - LAST, changes), *[-1] * AT_TIMES]
    killed = 0
    for number, moment in enumerate(moments):
        out = tmp_path / f"saes{number}"
        process, pipe = start(processes, out, moment)
        if moment < 0:
            time.sleep(draws.uniform(0, whole))
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        killable.job(out, organism)
        assert weights(out) == undisturbed
        assert not (out / ".work").exists()
        pipe.close()
    assert killed >= AT_CHANGES + LAST
