"""What a process of the cluster does: it loads the model once, and then runs one shard after the other."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conceptatlas.base.errors import InputError
from conceptatlas.recording.engines.types import keep_loaded
from conceptatlas.recording.job import Job
from conceptatlas.recording.manifest import SubjectInfo
from conceptatlas.recording.shard import Loaders, run_shard
from conceptatlas.runtime.memory import give_back_memory

if TYPE_CHECKING:
    from conceptatlas.subjects.language import LanguageSubject


@dataclass(frozen=True)
class WorkerRun:
    """What every worker of a run is given. Plain values only.

    Attributes:
        job: The work; its options say device and dtype.
        model: What the model is loaded by: ``organism``, an absolute folder or a hub id.
        planned: The model that the work was planned with.
        threads: Of the process that planned; their number decides how sums are split, and so the last bit.
    """

    job: Job
    model: str
    planned: SubjectInfo
    threads: int


class ShardWorker:
    """One worker. It belongs to one run and goes with it, so that nothing loaded is ever taken for another run's."""

    def __init__(self, run: WorkerRun) -> None:
        import torch

        torch.set_num_threads(run.threads)
        self._run = run
        self._loaders: Loaders | None = None

    def load(self) -> None:
        """Load the model.

        Raises:
            InputError: It is not there, or is not the one that the work was planned with.
        """
        self._loaders = keep_loaded(self._run.job, load_planned(self._run))

    def run(self, shard: int) -> None:
        """Run what is left of one shard."""
        if self._loaders is None:
            raise RuntimeError("a worker loads its model before it runs a shard")
        run_shard(self._run.job, shard, self._loaders, lambda _: None)
        give_back_memory()


def load_planned(run: WorkerRun) -> LanguageSubject:
    """Load the model that the work was planned with.

    Raises:
        InputError: It is not there, or another one is.
    """
    from conceptatlas.subjects import load_subject

    node = platform.node()
    try:
        subject = load_subject(run.model, device=run.job.options.device, dtype=run.job.options.dtype)
    except InputError as error:
        raise InputError(f"The worker on {node} cannot load the model: {error}") from None
    planned = run.planned
    for name, here, there in (
        ("revision", subject.revision, planned.revision),
        ("attention", subject.attention, planned.attention),
    ):
        if here != there:
            raise InputError(
                f"The worker on {node} loads {planned.id} with {name} {here}, and the recording is planned with {there}; "
                "give all nodes the same files (one shared folder or hub cache) and the same version of transformers."
            )
    return subject
