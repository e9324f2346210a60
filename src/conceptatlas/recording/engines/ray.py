"""Shards on a Ray cluster, on one machine or many.

A worker runs the same shard function on the same plan and writes the same pieces as the local engine, so the recording is
the same byte for byte (same kind of device, same libraries). Every node must see the recording's folder under the same
path (a shared file system), and the model and SAEs where they were found here. The shard of a worker that dies is run
again by another; what it had finished is not done twice.

This process plans and joins, and computes nothing: its model stays on the CPU, and the GPUs are the workers'.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conceptatlas.base.errors import ConceptAtlasError, InputError, WorkError
from conceptatlas.recording.engines.room import room_for, worker_needs, workers_device
from conceptatlas.recording.engines.types import Devices, Engine, EngineRun
from conceptatlas.recording.engines.worker import ShardWorker, WorkerRun
from conceptatlas.recording.fold import fold_shard
from conceptatlas.recording.work import WorkFolder

if TYPE_CHECKING:
    from conceptatlas.subjects.language import LanguageSubject

# A worker that dies more often than this on one shard, or on loading, is not bad luck.
_RETRIES = 5
# Workers asked for, to each that there is room for: the others start when nodes join.
_ASKED_FOR = 2


@contextmanager
def open_ray(address: str | None) -> Iterator[Engine]:
    """Connect to a cluster, or start one on this machine where there is no address.

    Raises:
        InputError: The package ray is missing, or the cluster cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "The engine ray needs the package ray; install it with: pip install 'conceptatlas[ray]'."
        ) from error
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(f"There is no Ray cluster at {address}: {error}; check --ray-address.") from error
    try:
        yield RayEngine(ray)
    finally:
        if started:
            ray.shutdown()


class RayEngine:
    """A cluster, connected."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def devices(self, asked: str) -> Devices:
        """Return what the cluster's workers use; this process plans on its CPU."""
        return Devices(planner="cpu", shards=workers_device(asked, self._ray.nodes()))

    def run(self, run: EngineRun) -> None:
        """Run what is left of every shard; fold in the order of the shards.

        Raises:
            InputError: The cluster is too small, or a worker finds another model than this process.
            WorkError: A shard failed again and again.
        """
        job = run.job
        everything = range(len(job.plan.shards))
        unfinished = [shard for shard in everything if not job.is_done(shard)]
        folds = _Folds(run)
        folds.fold_before(min(unfinished, default=len(everything)))
        if not unfinished:
            return
        crew = self._crew(run, len(unfinished))
        try:
            for shard in crew.work_through(unfinished):
                unfinished.remove(shard)
                for source in job.sources:
                    run.tick(source.slug)
                folds.fold_before(min(unfinished, default=len(everything)))
        finally:
            crew.dismiss()

    def _crew(self, run: EngineRun, n_shards: int) -> Crew:
        import torch

        threads = torch.get_num_threads()
        needs = worker_needs(run.job.options.device, threads)
        size = min(n_shards, _ASKED_FOR * room_for(needs, self._ray.nodes()))
        # A worker has a working folder of its own.
        job = replace(run.job, work=WorkFolder(run.job.work.recording.absolute()))
        shared = self._ray.put(WorkerRun(job, _model_anywhere(run.subject), run.info, threads))
        # Whom a dead worker's shard goes to is decided here: Ray would restart it where there may be no room.
        worker = self._ray.remote(max_restarts=0, max_task_retries=0, **needs.options())(ShardWorker)
        return Crew(self._ray, lambda: worker.remote(shared), size)


class _Folds:
    """Folds shards in order, each once."""

    def __init__(self, run: EngineRun) -> None:
        self._job = run.job
        self._next = 0

    def fold_before(self, end: int) -> None:
        """Fold what is not folded yet of the shards before ``end``."""
        for shard in range(self._next, end):
            fold_shard(self._job, shard)
        self._next = max(self._next, end)


class Crew:
    """The workers of one run. Each has its model loaded once, and one shard at a time."""

    def __init__(self, ray: Any, start: Callable[[], Any], size: int) -> None:
        self._ray = ray
        self._start = start
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, int | None]] = {}  # awaited -> worker and its shard, None while it loads
        self._deaths: Counter[int | None] = Counter()
        for _ in range(size):
            self._engage()

    def work_through(self, shards: Iterable[int]) -> Iterator[int]:
        """Yield each shard when it is done.

        Raises:
            WorkError: Workers died again and again.
            Exception: What a shard raised, as it was raised there.
        """
        waiting = deque(shards)
        left = len(waiting)
        while left:
            self._hand_out(waiting)
            awaited = self._ray.wait(list(self._busy), num_returns=1)[0][0]
            worker, shard = self._busy.pop(awaited)
            if not self._survived(awaited, shard):
                self._ray.kill(worker)  # where it only seemed dead
                self._engage()
                if shard is not None:
                    waiting.appendleft(shard)
                continue
            self._idle.append(worker)
            if shard is not None:
                left -= 1
                self._hand_out(waiting)  # nobody waits for what is done with the shard here
                yield shard

    def dismiss(self) -> None:
        """Let all workers go, whatever they are at."""
        for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
            self._ray.kill(worker)

    def _engage(self) -> None:
        worker = self._start()
        self._busy[worker.load.remote()] = worker, None

    def _hand_out(self, waiting: deque[int]) -> None:
        while waiting and self._idle:
            worker, shard = self._idle.pop(), waiting.popleft()
            self._busy[worker.run.remote(shard)] = worker, shard

    def _survived(self, awaited: Any, shard: int | None) -> bool:
        """Whether the worker did what it was asked; raise what it raised, as it was raised there."""
        try:
            self._ray.get(awaited)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ConceptAtlasError):
                raise error.cause from None
            raise
        except self._ray.exceptions.RayError as error:
            self._deaths[shard] += 1
            if self._deaths[shard] > _RETRIES:
                what = "Loading the model" if shard is None else f"Shard {shard}"
                raise WorkError(
                    f"{what} failed {_RETRIES + 1} times ({type(error).__name__}); look into the workers' memory, and run "
                    "the same command again to go on."
                ) from error
            return False
        if shard is None:
            del self._deaths[None]
        return True


def _model_anywhere(subject: LanguageSubject) -> str:
    """Return what a process with another working folder, or another installation, loads the model by."""
    from conceptatlas.subjects.loading import ORGANISM

    if subject.id == ORGANISM:
        return ORGANISM
    return str(Path(subject.location).absolute()) if subject.source.local else subject.location
