"""A process of its own that records, to be killed."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

from conceptatlas.concepts import build_concept
from conceptatlas.recording.manifest import Keep
from tests.helpers.kills import count_changes
from tests.recording.standins import MadeSAE

TEXTS = [f"She told him that the bag was new when it was old number {i}." for i in range(24)]


def job(model: Any, out: Path, keep: Keep = "all") -> None:
    """Record two SAEs in five shards; with ``--keep top`` these are folded in three groups."""
    import torch

    from conceptatlas.recording import fold, record

    torch.set_num_threads(1)
    saes = [
        MadeSAE("low", "blocks.0.hook_resid_post", 0, seed=1, threshold=0.5),
        MadeSAE("high", "blocks.2.hook_resid_post", 2, seed=2, threshold=2.0),
    ]
    concept = build_concept("kill", TEXTS, [i % 4 for i in range(24)])
    with mock.patch.object(fold, "FOLD_SHARDS", 2):
        record(concept, model, saes, out, keep=keep, shard_rows=120)


def run(model: str, out: Path, started: Connection, kill_at: int, keep: Keep) -> None:
    """Say that it starts, and record; with ``kill_at`` ≥ 0 die by SIGKILL at the so-manieth change of the disk."""
    count = count_changes(kill_at)
    started.send("start")
    job(model, out, keep)
    started.send(count())


def run_paused(model: str, out: Path, pipe: Connection, pause_at: int) -> None:
    """Record, and at the so-manieth write to the disk stop until told to go on."""
    count, plain = 0, os.fsync

    def paused(fd: int) -> None:
        nonlocal count
        if count == pause_at:
            pipe.send("paused")
            pipe.recv()
        count += 1
        plain(fd)

    os.fsync = paused
    pipe.send("start")
    job(model, out)
    pipe.send("done")


def run_second(model: str, out: Path, pipe: Connection) -> None:
    """Record where another process does, and tell what it was told."""
    from conceptatlas.base.errors import InputError

    pipe.send("start")
    try:
        job(model, out)
        pipe.send("done")
    except InputError as error:
        pipe.send(str(error))
