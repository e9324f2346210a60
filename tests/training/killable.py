"""A process of its own that trains, to be killed."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.helpers.kills import count_changes


def job(out: Path, model: Any = "organism") -> None:
    """Train two SAEs and their controls over three buffers."""
    import torch

    from conceptatlas.concepts import load_concept
    from conceptatlas.training import train
    from tests.training.conftest import small

    torch.set_num_threads(1)
    train(model, load_concept("builtin:dishonesty-small").texts, out, small(control=True))


def run(out: Path, started: Connection, kill_at: int) -> None:
    """Say that it starts, and train; with ``kill_at`` ≥ 0 die by SIGKILL at the so-manieth change of the disk."""
    count = count_changes(kill_at)
    started.send("start")
    job(out)
    started.send(count())
