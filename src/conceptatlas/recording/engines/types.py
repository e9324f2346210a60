"""What an engine is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from conceptatlas.recording.job import Job, resident_bytes
from conceptatlas.recording.manifest import SubjectInfo
from conceptatlas.recording.shard import EncoderCache, Loaders

if TYPE_CHECKING:
    from conceptatlas.subjects.language import LanguageSubject


@dataclass(frozen=True)
class Devices:
    """Where a recording computes.

    Attributes:
        planner: Where this process loads its model, such as ``cuda:1``.
        shards: The kind of device that the shards run on: ``cpu``, ``cuda`` or ``mps``.
    """

    planner: str
    shards: str


@dataclass(frozen=True)
class EngineRun:
    """One run over all shards.

    Attributes:
        job: The work.
        subject: The model, loaded in this process.
        info: What the manifest says of it; what others load must be the same.
        tick: Called with an SAE's slug whenever a piece of it has been computed.
    """

    job: Job
    subject: LanguageSubject
    info: SubjectInfo
    tick: Callable[[str], None]


class Engine(Protocol):
    """Runs shards."""

    def devices(self, asked: str) -> Devices:
        """Return what ``--device`` comes to here.

        Raises:
            InputError: There is no such device.
        """

    def run(self, run: EngineRun) -> None:
        """Run what is left of every shard."""


# Takes a cluster's address, for engines that have one.
OpenEngine = Callable[[str | None], AbstractContextManager[Engine]]


def keep_loaded(job: Job, subject: LanguageSubject) -> Loaders:
    """Return a loaded model and the SAEs that stay beside it from shard to shard.

    The model comes first: what it leaves free on its device is what the SAEs may take.
    """
    device = str(subject.device)
    limit = resident_bytes(device, job) if len(job.plan.shards) > 1 else 0
    return Loaders(lambda: subject, EncoderCache(job, device, limit_bytes=limit))
