"""All shards in this process, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from conceptatlas.recording.engines.types import Devices, Engine, EngineRun, keep_loaded
from conceptatlas.recording.fold import fold_shard
from conceptatlas.recording.shard import run_shard
from conceptatlas.runtime.memory import give_back_memory
from conceptatlas.subjects import choose_device


@contextmanager
def open_local(address: str | None) -> Iterator[Engine]:
    """Open the engine; it has no address."""
    del address
    yield LocalEngine()


class LocalEngine:
    """This process."""

    def devices(self, asked: str) -> Devices:
        """Return the same device for all."""
        chosen = choose_device(asked)
        return Devices(planner=str(chosen), shards=chosen.type)

    def run(self, run: EngineRun) -> None:
        """Run what is left of every shard."""
        loaders = keep_loaded(run.job, run.subject)
        for shard in range(len(run.job.plan.shards)):
            run_shard(run.job, shard, loaders, run.tick)
            fold_shard(run.job, shard)
            if shard + 1 < len(run.job.plan.shards):
                give_back_memory()
